"""How much of augmented patches is their outermost voxels, repeated, with and without a larger cut.

    python benchmarks/smeared_edges.py

For each patch it draws the movements of 400 patches and prints the share of voxels that are read from beyond
the patch as it was cut: of all patches (mean) and of the worst one. With ``larger_cut`` the patch is cut to
hold every position that is read, so that the share is 0; how many times more voxels that takes is printed.
"""

from __future__ import annotations

import numpy as np

from medseg.preprocessing.augmentation.interpolation import spline_weights
from medseg.preprocessing.augmentation.spatial import Deform, NnunetDeform
from medseg.recipe import Augment, NnunetAugment

PATCHES = (((40, 56, 40), (1.0, 1.0, 1.0)), ((128, 128, 64), (1.5, 1.5, 3.0)), ((256, 256), (0.8, 0.8)))
FULL = Augment(rotate_degrees=30, scale=0.3, elastic_mm=7.5, elastic_grid_mm=40, probability=0.3)


def beyond(deform: Deform, shape: tuple[int, ...], first: np.ndarray, size: np.ndarray) -> float:
    """Share of the voxels whose position lies outside of a box of voxels by more than half a voxel."""
    assert deform.control is not None
    at = deform.control
    for axis, (n, distance) in enumerate(zip(shape, deform.distances, strict=True), start=1):
        at = np.moveaxis(np.tensordot(spline_weights(n, distance), at, axes=(1, axis)), 0, axis)
    low = (first - 0.5).reshape(-1, *[1] * len(shape))
    high = (first + size - 0.5).reshape(-1, *[1] * len(shape))
    return float(((at < low) | (at > high)).any(0).mean())


def main() -> None:
    """Prints a row for each patch and augmentation."""
    print("patch           augmentation  mean %  worst %  larger cut %  voxels (mean, most)")
    for shape, spacing_mm in PATCHES:
        for name in ("full", "nnunet"):
            rules = NnunetAugment(kind="nnunet", rotate_degrees=30 if len(shape) == 3 else 180)
            deform = Deform(FULL, spacing_mm) if name == "full" else NnunetDeform(rules, len(shape))
            deform.set_random_state(seed=0)
            zero, rows = np.zeros(len(shape)), []
            for _ in range(400):
                deform.place(shape)
                if deform.control is None:
                    rows.append((0.0, 0.0, 1.0))
                    continue
                first = np.floor(deform.reach[0])
                size = np.ceil(deform.reach[1]) - first + 1
                small, large = (
                    beyond(deform, shape, *each) for each in ((zero, np.array(shape)), (first, size))
                )
                rows.append((small, large, float(np.prod(size) / np.prod(shape))))
            small, large, times = np.array(rows).T
            print(
                f"{' x '.join(map(str, shape)):15} {name:12} {100 * small.mean():7.1f} "
                f"{100 * small.max():8.1f}{100 * large.max():14.1f}   {times.mean():.1f}, {times.max():.1f}"
            )


if __name__ == "__main__":
    main()
