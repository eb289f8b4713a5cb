"""Masks for the patients without a manual one, and all cases in one file for train.py.

    python benchmarks/lungs/context/silver.py --data ../shared/data --out runs/context

A silver mask is the threshold mask without the regions further than 10 mm from the mask of the 2D model
(``lung_ct``), such as the table. Voxels that only the 2D model finds are added within 6 mm of the threshold
mask, without fat (mean of -160 to -25 HU) and after an opening by one voxel. LIDC-IDRI-0314 has a collapse
and an effusion; there they are added at any distance. All masks were reviewed in three planes.
`split_left_right` finds the sides.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy import ndimage

import medseg
from medseg.images.label import Label
from medseg.images.run_length import Runs
from medseg.inference.lungs import split_left_right

DISEASED = ("LIDC-IDRI-0314",)
LOW, RANGE = -1024, 1300


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/context"))
    parser.add_argument("--model", default="lung_ct", help="the 2D model")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    flat, plain = medseg.load_segmenter(arguments.model), medseg.load_segmenter("threshold")
    packed: dict[str, np.ndarray] = {}
    for folder in sorted((arguments.data / "lung_ct_2mm").iterdir()):
        scan = medseg.read(folder / "ct.nii.gz").oriented("RAS")
        hu, spacing = np.asarray(scan.array, np.float32), np.array(scan.grid.spacing_mm)
        if (folder / "lung_mask.nii.gz").is_file():
            label = Label(name="lungs", values=(1,))
            truth = medseg.read_mask(folder / "lung_mask.nii.gz", (label,)).oriented("RAS").array > 0
        else:
            masks = (np.asarray(method(scan).array) > 0 for method in (plain, flat))
            truth = silver(hu, spacing, *masks, diseased=folder.name in DISEASED)
        sides = np.zeros(hu.shape, np.uint8)
        if truth.any():
            right, left = split_left_right(Runs.of(np.asfortranarray(truth)), scan.grid, hu)
            sides = (right.binary() + 2 * left.binary()).astype(np.uint8)
        packed |= pack(folder.name, hu, sides, spacing)
        print(
            folder.name,
            np.bincount(sides.ravel(), minlength=3)[1:] * np.prod(spacing) / 1000,
            "ml",
            flush=True,
        )
    np.savez_compressed(arguments.out / "cases.npz", **packed)


def silver(
    hu: np.ndarray, spacing: np.ndarray, dark: np.ndarray, flat: np.ndarray, *, diseased: bool
) -> np.ndarray:
    if not dark.any() or not flat.any():
        return np.zeros(hu.shape, bool)
    dark = dark & (ndimage.distance_transform_edt(~flat, sampling=spacing) <= 10)
    mean = ndimage.uniform_filter(hu, [max(1, 2 * round(2 / mm) + 1) for mm in spacing])
    added = flat & ~dark & ~((mean > -160) & (mean < -25))
    if not diseased:
        added &= ndimage.distance_transform_edt(~dark, sampling=spacing) <= 6
    lungs = ndimage.binary_opening(dark | added) | dark
    parts, _ = ndimage.label(lungs, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    large = [n for n in np.argsort(sizes)[:-3:-1] if sizes[n] * spacing.prod() >= 5000]
    return np.asarray(ndimage.binary_fill_holes(np.isin(parts, large)))


def pack(name: str, hu: np.ndarray, sides: np.ndarray, spacing: np.ndarray) -> dict[str, np.ndarray]:
    """The body's box, 8 bits for -1024 to 276 HU, and about 2 mm across where the scan is finer."""
    if spacing[0] < 1.65:
        steps = (spacing[0] / 2, spacing[1] / 2, 1)
        given = {"zoom": steps, "order": 1, "grid_mode": True, "mode": "nearest"}
        before = hu.shape
        hu = ndimage.zoom(ndimage.gaussian_filter(hu, (0.35, 0.35, 0)), **given)
        right, left = (ndimage.zoom((sides == v).astype(np.float32), **given) for v in (1, 2))
        sides = np.where(right >= 0.5, 1, np.where(left >= 0.5, 2, 0)).astype(np.uint8)
        spacing = spacing * np.array(before) / np.array(hu.shape)
    parts, _ = ndimage.label(ndimage.binary_opening(hu > -500, iterations=2))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    body = ndimage.find_objects((parts == sizes.argmax()).astype(np.uint8))[0]
    margin = np.ceil(16 / spacing).astype(int)
    box = tuple(
        slice(max(0, s.start - m), min(n, s.stop + m)) for s, m, n in zip(body, margin, hu.shape, strict=True)
    )
    levels = np.clip(np.round((hu[box] - LOW) / RANGE * 255), 0, 255).astype(np.uint8)
    levels[levels < 9] = 0
    return {f"{name}/q": levels, f"{name}/t": sides[box], f"{name}/s": spacing.astype(np.float32)}


if __name__ == "__main__":
    main()
