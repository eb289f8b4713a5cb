"""Makes the training cases of the lung model: every original scan and altered copies of it.

    python benchmarks/lungs/cases.py --data ../shared/data --out runs/lungs/cases

`medseg.inference.lungs.split_left_right` separates right from left. A copy has simulated disease, a different
scanner and a different field of view (`simulate.py`). The random seed comes from the patient's name and the
copy's number, so the same command makes the same files. ``disease_*.nii.gz`` is the fixed test set: one scan
per disease for each patient with a manual mask, with nothing else altered. It never validates a model that
was trained on the same patient.
"""

from __future__ import annotations

import argparse
import csv
import zlib
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simulate
from scipy import ndimage

import medseg
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.run_length import Runs
from medseg.images.volume import Mask, Volume
from medseg.inference.lungs import split_left_right
from medseg.phantom.thorax import Thorax, default_grid

LABELS = (
    Label(name="right_lung", values=(1,), side="right"),
    Label(name="left_lung", values=(2,), side="left"),
)
BOTH = (Label(name="lungs", values=(1,)),)
COPIES_OF_MANUAL, COPIES_OF_SILVER, COPIES_OF_PHANTOMS = 20, 10, 2
PATIENTS = (
    *(f"LCTSC-00{number}" for number in (0, 1, 2, 3, 4, 6, 7, 8)),
    "LIDC-IDRI-0001",
    "LIDC-IDRI-0003",
    "4DLung-113",
)
# Smooth organs without fat between them, which no patient has; that of `medseg demo` is none of these.
PHANTOMS = range(900, 908)
# How often a copy gets each disease. What hides the edge of the lung is hardest to learn, and comes oftenest.
SHARES = {"consolidation": 4, "collapse": 3, "effusion": 2, "mass": 2}
TESTED = (
    "consolidation",
    "ground_glass",
    "effusion",
    "mass",
    "collapse",
    "pleural_nodules",
    "pneumothorax",
)

Values = npt.NDArray[np.uint8]


def main() -> None:
    """Writes the cases and ``cases.csv`` (id, patient, image, label, kind)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/lungs/cases"))
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    folders = [arguments.data / "lung_ct_2mm" / name for name in PATIENTS]
    with Pool(arguments.workers) as pool:
        made = pool.starmap(patient, [(f, arguments.out) for f in folders], 1)
        made += pool.starmap(phantom, [(seed, arguments.out) for seed in PHANTOMS], 1)
    rows = [row for rows in made for row in rows]
    with (arguments.out / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "patient", "image", "label", "kind"])
        writer.writeheader()
        writer.writerows(rows)


def patient(folder: Path, out: Path) -> list[dict[str, str]]:
    """All cases of one patient, as rows of the table."""
    name = folder.name
    manual = (folder / "lung_mask.nii.gz").is_file()
    scan = medseg.read(folder / "ct.nii.gz")
    truth = medseg.read_mask(folder / ("lung_mask.nii.gz" if manual else "lung_mask_auto.nii.gz"), BOTH)
    scan, truth = scan.oriented("LPS"), truth.oriented("LPS")
    right, left = (
        side.binary() for side in split_left_right(Runs.of(np.asarray(truth.array) > 0), truth.grid)
    )
    values = (right + 2 * left).astype(np.uint8)
    hu = np.asarray(scan.array, dtype=np.float32)
    written = [save(out, name, name, "scan", hu, values, scan.grid)]
    for number in range(1, (COPIES_OF_MANUAL if manual else COPIES_OF_SILVER) + 1):
        random = np.random.default_rng([zlib.crc32(name.encode()), number])
        made, kept, grid = changed(hu, values, scan.grid, random)
        written.append(save(out, f"{name}_{number:02d}", name, "copy", made, kept, grid))
    for disease in TESTED if manual else ():
        random = np.random.default_rng([zlib.crc32(name.encode()), zlib.crc32(disease.encode())])
        made = simulate.DISEASES[disease](hu, values > 0, values == 1, scan.grid.spacing_mm, random)
        written.append(save(out, f"disease_{name}_{disease}", name, disease, made, values, scan.grid))
    print(name, flush=True)
    return written


def phantom(seed: int, out: Path) -> list[dict[str, str]]:
    """The cases of one phantom patient, whose truth is exact."""
    name = f"phantom-{seed}"
    thorax, grid = Thorax.random(seed), default_grid(axcodes="LPS")
    truth = np.asarray(thorax.truth(grid).array)
    values = np.where(np.isin(truth, [1, 3]), 1, np.where(np.isin(truth, [2, 4]), 2, 0)).astype(np.uint8)
    hu = np.asarray(thorax.scan(grid, seed=seed).array, dtype=np.float32)
    written = [save(out, name, name, "scan", hu, values, grid)]
    for number in range(1, COPIES_OF_PHANTOMS + 1):
        made, kept, cut = changed(hu, values, grid, np.random.default_rng([seed, number]))
        written.append(save(out, f"{name}_{number:02d}", name, "copy", made, kept, cut))
    return written


def save(
    out: Path, case: str, whose: str, kind: str, hu: simulate.Scan, values: Values, grid: Grid
) -> dict[str, str]:
    """Writes a case and returns its row."""
    image, label = f"{case}.nii.gz", f"{case}_lungs.nii.gz"
    whole = np.clip(np.round(hu), -3100, 3100).astype(np.int16)
    Volume(np.asfortranarray(whole), grid).save(out / image)
    Mask(np.asfortranarray(values), grid, LABELS).save(out / label)
    return {"id": case, "patient": whose, "image": image, "label": label, "kind": kind}


def changed(
    hu: simulate.Scan, values: Values, grid: Grid, random: np.random.Generator
) -> tuple[simulate.Scan, Values, Grid]:
    """A copy with other disease, another scanner and another field of view."""
    spacing_mm = grid.spacing_mm
    lungs, right = values > 0, values == 1
    if random.random() < 0.4:
        hu = simulate.organs(hu, lungs, spacing_mm, random)
    if random.random() < 0.5:
        hu = simulate.breath(hu, lungs, random)
    if random.random() < 0.8:
        weights = np.array([SHARES.get(disease, 1) for disease in simulate.DISEASES], dtype=float)
        drawn = random.choice(
            list(simulate.DISEASES), size=random.integers(1, 3), replace=False, p=weights / weights.sum()
        )
        for disease in drawn:
            hu = simulate.DISEASES[disease](hu, lungs, right, spacing_mm, random)
    if random.random() < 0.3:
        hu = simulate.gas(hu, lungs, spacing_mm, random)
    if random.random() < 0.25:
        hu = simulate.contrast(hu, lungs, spacing_mm, random)
    if random.random() < 0.4:
        hu = simulate.arms(hu, spacing_mm, random)
    if random.random() < 0.5:
        # In front for who lies prone.
        facing = slice(None, None, -1 if random.random() < 0.2 else 1)
        hu = simulate.table(hu[:, facing], spacing_mm, random)[:, facing]
    if random.random() < 0.5:
        hu = simulate.noise(hu, spacing_mm, random)
    hu = np.asarray(hu + random.normal(0, 12), dtype=np.float32)
    if random.random() < 0.3:
        hu = simulate.round_view(hu, spacing_mm, random)
    if random.random() < 0.35:
        hu, values, grid = thick(hu, values, grid, int(random.integers(2, 4)))
    if random.random() < 0.4:
        hu, values, grid = part(hu, values, grid, random)
    if random.random() < 0.1:
        hu, values, grid = turned(hu, values, grid, int(random.integers(1, 4)))
    return hu, values, grid


def turned(
    hu: simulate.Scan, values: Values, grid: Grid, quarters: int
) -> tuple[simulate.Scan, Values, Grid]:
    """Patient lying on the side or the front, although the header says otherwise."""
    hu, values = np.rot90(hu, quarters), np.rot90(values, quarters)
    shape = (hu.shape[0], hu.shape[1], hu.shape[2])
    return hu, values, Grid(shape, grid.affine)


def thick(hu: simulate.Scan, values: Values, grid: Grid, every: int) -> tuple[simulate.Scan, Values, Grid]:
    """Scan and mask in slices ``every`` times as thick; a voxel is lung if at least half of it was."""
    matrix = grid.affine.copy()
    matrix[:3, 3] += matrix[:3, 2] * (every // 2 + (0 if every % 2 else -0.5))
    matrix[:3, 2] *= every
    hu = simulate.thick_slices(hu, every)
    parts = [simulate.thick_slices((values == v).astype(np.float32), every) for v in (1, 2)]
    merged = np.where(parts[0] >= 0.5, 1, np.where(parts[1] >= 0.5, 2, 0)).astype(np.uint8)
    shape = (hu.shape[0], hu.shape[1], hu.shape[2])
    return hu, merged, Grid(shape, matrix)


def part(
    hu: simulate.Scan, values: Values, grid: Grid, random: np.random.Generator
) -> tuple[simulate.Scan, Values, Grid]:
    """A partial field of view: bases, top, a slab, one lung, a tight box, or no lung at all."""
    box = list(ndimage.find_objects((values > 0).astype(np.uint8))[0])
    low, high = [s.start for s in box], [s.stop for s in box]
    size = [b - a for a, b in zip(low, high, strict=True)]
    start, stop = [0, 0, 0], list(hu.shape)
    kind = random.choice(["bases", "top", "slab", "one lung", "tight", "abdomen"])
    if kind == "abdomen" and low[2] < 5:
        kind = "bases"
    if kind == "bases":
        stop[2] = low[2] + max(5, int(size[2] * random.uniform(0.1, 0.5)))
    elif kind == "abdomen":
        stop[2] = low[2]
    elif kind == "top":
        start[2] = high[2] - max(5, int(size[2] * random.uniform(0.2, 0.6)))
    elif kind == "slab":
        slices = int(random.integers(5, 12))
        start[2] = low[2] + int(random.integers(0, max(1, size[2] - slices)))
        stop[2] = min(start[2] + slices, hu.shape[2])
    elif kind == "one lung":
        middle = (low[0] + high[0]) // 2 + int(random.integers(-8, 9))
        if random.random() < 0.5:
            start[0], stop[0] = max(0, low[0] - 5), middle
        else:
            start[0], stop[0] = middle, min(hu.shape[0], high[0] + 5)
    else:
        margins = random.integers(-6, 12, size=(2, 3))
        start = [max(0, a - int(m)) for a, m in zip(low, margins[0], strict=True)]
        stop = [min(n, b + int(m)) for n, b, m in zip(hu.shape, high, margins[1], strict=True)]
    cut = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    matrix = grid.affine.copy()
    matrix[:3, 3] += matrix[:3, :3] @ start
    shape = (stop[0] - start[0], stop[1] - start[1], stop[2] - start[2])
    return hu[cut], values[cut], Grid(shape, matrix)


if __name__ == "__main__":
    main()
