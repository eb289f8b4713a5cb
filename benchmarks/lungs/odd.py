"""Runs the lung model on unusual inputs and makes a table and one picture of all results.

Dice is computed against published masks, most of them automatic, of scanners not seen in training.

python benchmarks/lungs/odd.py --data ../shared/data [--model lung_ct] --out runs/lungs/odd
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt

import medseg
from medseg.evaluation.metrics import dice
from medseg.images.grid import Grid
from medseg.images.volume import Volume
from medseg.inference.registry import SegmentationMethod, load_segmenter
from medseg.phantom.thorax import orientations
from medseg.preprocessing.resampling import resample, resampled_grid


def main() -> None:
    """Segments every odd input; prints and writes a Markdown table, and ``odd.png``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="lung_ct")
    parser.add_argument("--out", type=Path, default=Path("runs/lungs/odd"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    segment = load_segmenter(arguments.model)
    rows, pictures = (
        ["| input | right ml | left ml | Dice | s | warnings |", "|---|---:|---:|---:|---:|---|"],
        [],
    )
    for name, scan in inputs(arguments.data, arguments.out):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            started = time.perf_counter()
            mask = segment(scan)
            seconds = time.perf_counter() - started
        right, left = mask.volumes_ml().values()
        words = "; ".join(str(warning.message).split(": ", 1)[-1] for warning in warned)
        truth = masked(arguments.data / "lung_ct_small" / name, scan)
        agrees = "" if truth is None else f"{dice(np.asarray(mask.array) > 0, truth):.3f}"
        rows.append(f"| {name} | {right:.0f} | {left:.0f} | {agrees} | {seconds:.1f} | {words} |")
        print(rows[-1], flush=True)
        pictures.append((name, scan.oriented("LPS"), mask.oriented("LPS")))
    rows += turned(segment, arguments.data)
    print(rows[-1])
    (arguments.out / "odd.md").write_text("\n".join(rows) + "\n")
    (arguments.out / "odd.json").write_text(json.dumps({"model": arguments.model, "sha256": segment.digest}))
    draw(pictures, arguments.out / "odd.png")


def inputs(data: Path, out: Path) -> Iterator[tuple[str, Volume]]:
    small = data / "lung_ct_small"
    for folder in sorted(small.iterdir()):
        yield folder.name, medseg.read(folder / "ct.nii.gz")
    unpacked = out / "4DLung-113"
    if not unpacked.is_dir():
        with zipfile.ZipFile(data / "dicom" / "4DLung-113_ct_99slices.zip") as archive:
            archive.extractall(unpacked)
    folders = [p.parent for p in sorted(unpacked.rglob("*.dcm"))]
    yield "DICOM 4DLung-113, 99 slices", medseg.read(max(set(folders), key=folders.count))
    yield "DICOM abdomen, 20 slices", medseg.read(data / "dicom" / "totalseg_ct_20slices")
    yield "C3N-04457, head", medseg.read(data / "lung_ct_2mm" / "C3N-04457" / "ct.nii.gz")
    scan = medseg.read(data / "lung_ct_2mm" / "LCTSC-002" / "ct.nii.gz").oriented("LPS")
    hu = np.asarray(scan.array)
    yield "LCTSC-002 in slices of 10 mm", thick(scan, 10.0)
    middle = hu.shape[2] // 2
    yield "LCTSC-002, 5 slices", cut(scan, (slice(None), slice(None), slice(middle - 10, middle - 5)))
    half = hu.shape[0] // 2
    yield "LCTSC-002, right lung", cut(scan, (slice(0, half), slice(None), slice(None)))
    yield "LCTSC-002, left lung", cut(scan, (slice(half, None), slice(None), slice(None)))
    yield "LCTSC-002, abdomen", cut(scan, (slice(None), slice(None), slice(0, 12)))
    yield "LCTSC-002 at 512 x 512", medseg.read(data / "lung_ct_native" / "LCTSC-002" / "ct.nii.gz")


def thick(scan: Volume, slice_mm: float) -> Volume:
    """The scan averaged to slices of another thickness."""
    grid = resampled_grid(scan.grid, (*scan.grid.spacing_mm[:2], slice_mm))
    (hu,) = resample(scan.array[None], scan.grid, grid)
    return Volume(np.asfortranarray(np.round(hu).astype(np.int16)), grid)


def masked(folder: Path, scan: Volume) -> npt.NDArray[np.bool_] | None:
    """Published lung mask of the scan: bool, same shape as the scan."""
    for name, values in (("lung_mask.nii.gz", None), ("seg_117_auto.nii.gz", range(10, 15))):
        if (folder / name).is_file():
            found = np.asarray(medseg.read(folder / name).oriented(scan.grid.axcodes).array)
            # TotalSegmentator's lobes of both lungs are 10 to 14.
            return found > 0 if values is None else np.isin(found, values)
    return None


def cut(scan: Volume, box: tuple[slice, slice, slice]) -> Volume:
    start = [s.start or 0 for s in box]
    matrix = scan.grid.affine.copy()
    matrix[:3, 3] += matrix[:3, :3] @ start
    part = np.asfortranarray(scan.array[box])
    return Volume(part, Grid(part.shape, matrix))


def turned(segment: SegmentationMethod, data: Path) -> list[str]:
    """Counts how many of the 48 orientations of a scan give the same mask in world space."""
    scan = medseg.read(data / "lung_ct_small" / "cip-ct64" / "ct.nii.gz").oriented("RAS")
    first = segment(scan)
    same = sum(
        np.array_equal(segment(scan.oriented(codes)).oriented("RAS").array, first.array)
        for codes in orientations()
    )
    return [f"| cip-ct64 in all 48 orientations | | | | | {same} of 48 masks are the same voxel by voxel |"]


def draw(pictures: list[tuple[str, Volume, medseg.Mask]], path: Path) -> None:
    """Draws, for each input, the axial and the coronal slice with the most lung."""
    figure, axes = plt.subplots(len(pictures), 2, figsize=(8, 3.2 * len(pictures)))
    for row, (name, scan, mask) in zip(axes, pictures, strict=True):
        lungs = np.asarray(mask.array)
        spacing = scan.grid.spacing_mm
        z, y = int(np.argmax((lungs > 0).sum((0, 1)))), int(np.argmax((lungs > 0).sum((0, 2))))
        views = (
            (scan.array[:, :, z].T, lungs[:, :, z].T, spacing[1] / spacing[0]),
            (scan.array[:, y, ::-1].T, lungs[:, y, ::-1].T, spacing[2] / spacing[0]),
        )
        for axis, (hu, painted, aspect) in zip(row, views, strict=True):
            grey = np.clip((np.asarray(hu) + 1000) / 1300, 0, 1)[..., None] * np.ones(3)
            grey[painted == 1] = 0.6 * grey[painted == 1] + 0.4 * np.array([0.9, 0.2, 0.2])
            grey[painted == 2] = 0.6 * grey[painted == 2] + 0.4 * np.array([0.2, 0.4, 0.9])
            axis.imshow(grey, aspect=aspect)
            axis.axis("off")
        row[0].set_title(name, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=60)


if __name__ == "__main__":
    main()
