"""Makes the scans for the speed benchmarks: a phantom's chest, 512 x 512 voxels of 0.7 mm, 1 mm slices.

    python benchmarks/speed/volumes.py --out runs/speed [--slices 100 300 600 1000]

If there are more slices than the phantom is tall, the chest is repeated upside down.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from medseg.images.grid import Grid
from medseg.images.volume import Source, Volume
from medseg.phantom.thorax import Thorax, default_grid

SPACING_MM = (0.7, 0.7, 1.0)
NOISE_HU = 25.0  # of a thin slice of an ordinary chest CT


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/speed"))
    parser.add_argument("--slices", type=int, nargs="+", default=[100, 300, 600, 1000])
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    wanted = [n for n in arguments.slices if not path(arguments.out, n).is_file()]
    if not wanted:
        return
    whole = chest(300)
    hu = np.asarray(whole.array)
    for slices in wanted:
        piled = np.concatenate([hu, hu[..., ::-1]] * (slices // 600 + 1), axis=2)
        middle = max(0, (hu.shape[2] - slices) // 2)
        made = np.asfortranarray(piled[..., middle : middle + slices])
        grid = Grid(made.shape, whole.grid.affine)
        Volume(made, grid, Source(modality="CT")).save(path(arguments.out, slices))
        print(path(arguments.out, slices), flush=True)


def path(folder: Path, slices: int) -> Path:
    return folder / f"ct_512x512x{slices}.nii.gz"


def chest(slices: int, side: int = 512) -> Volume:
    """Centre of the phantom's field of view, so many slices of ``side`` x ``side`` voxels."""
    whole = default_grid(SPACING_MM, "LPS")
    shape = (side, side, slices)
    start = [(a - b) // 2 for a, b in zip(whole.shape, shape, strict=True)]
    affine = whole.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ start
    return Thorax.random(3).scan(Grid(shape, affine), noise_sd=NOISE_HU)


if __name__ == "__main__":
    main()
