"""A demo of the whole pipeline on a phantom with an exactly known segmentation; nothing is downloaded."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medseg.errors import UsageError
from medseg.evaluation.scoring import Score, score
from medseg.images.grid import Grid
from medseg.images.volume import Mask
from medseg.io import read, write_dicom_series
from medseg.io.mask_files import write_mask
from medseg.io.sidecar import facts_of
from medseg.phantom.thorax import LABELS, Thorax, default_grid, rotated
from medseg.visualization.overlays import overlay

if TYPE_CHECKING:
    from medseg.inference.registry import SegmentationMethod

MODEL = "lung_ct"


@dataclass(frozen=True)
class DemoResult:
    """The results of :func:`run_demo`.

    Attributes:
        scores: Scores of each lung against the exact truth.
        found: The mask.
        by: The segmentation method.
        series: Folder of the DICOM series.
        mask: Path of the mask file.
        picture: Path of the picture.

    Example:
        >>> [field for field in medseg.DemoResult.__dataclass_fields__][:2]
        ['scores', 'found']
    """

    scores: tuple[Score, ...]
    found: Mask
    by: SegmentationMethod
    series: Path
    mask: Path
    picture: Path


def run_demo(folder: str | Path, *, seed: int = 2026, model: str | Path = MODEL) -> DemoResult:
    """Results for a phantom patient written as DICOM, segmented by a model and compared with the truth.

    Args:
        folder: Output folder for ``ct/`` (the series), ``lungs.nii.gz``, ``lungs.json`` and ``lungs.png``.
        seed: Seed of the patient. Patients of the training set have seeds below 1,000.
        model: The shipped model, another model of the right (1) and left lung (2), or ``threshold``.

    Raises:
        UsageError: the folder already contains a demo (``has-results``).

    Example:
        >>> result = medseg.run_demo("demo", model="threshold")
        >>> [score.label for score in result.scores]
        ['right_lung', 'left_lung']
    """
    from medseg.inference.registry import load_segmenter

    folder = Path(folder)
    series = folder / "ct"
    if series.exists() and any(series.iterdir()):
        raise UsageError(
            "the folder already contains a demo",
            where=folder,
            remedy="remove it, or choose another with -o",
            reason="has-results",
        )
    series.mkdir(parents=True, exist_ok=True)
    patient = Thorax.random(seed)
    grid = default_grid()
    write_dicom_series(patient.scan(grid, seed=seed), series)
    scan = read(series)
    segment = load_segmenter(model)
    mask = segment(scan)
    truth = patient.truth(scan.grid)
    lungs = LABELS[:2]  # with their nodules
    scores = score(Mask(mask.array, mask.grid, lungs), Mask(truth.array, truth.grid, lungs))
    path = folder / "lungs.nii.gz"
    write_mask(mask, path, facts_of(mask, segment))
    return DemoResult(
        scores,
        mask,
        segment,
        series,
        path,
        overlay(scan, mask, folder / "lungs.png", title="Phantom chest CT"),
    )


def phantom_grid(
    spacing_mm: tuple[float, float, float] = (2.0, 2.0, 3.0),
    *,
    axcodes: str = "RAS",
    turned_degrees: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Grid:
    """A grid that holds the chest of a phantom, for :meth:`Thorax.scan` and :meth:`Thorax.truth`.

    Args:
        spacing_mm: Between voxels along R, A and S.
        axcodes: Directions of the array's axes.
        turned_degrees: Rotation about x, y and z, for an oblique scan.

    Example:
        >>> medseg.phantom_grid((4.0, 4.0, 5.0))
        Grid(98 x 76 x 67 voxels, 4 x 4 x 5 mm, RAS)
    """
    return rotated(default_grid(spacing_mm, axcodes), turned_degrees)


def make_phantom(folder: str | Path, cases: int = 10, *, seed: int = 0) -> Path:
    """The manifest of newly written phantom patients, for trying out training without any data.

    Patients differ in anatomy, voxel size, noise and obliqueness. One in five is for
    validation.

    Args:
        folder: Output folder for ``images/``, ``labels/`` and ``manifest.csv``.
        cases: Number of patients.
        seed: Seed of the first patient; the others follow.

    Returns:
        Path of the manifest.

    Example:
        >>> medseg.make_phantom("phantoms", 1).name
        'manifest.csv'
    """
    folder = Path(folder)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(seed, seed + cases):
        rng = np.random.default_rng([7, number])
        spacing = (float(rng.uniform(2, 4)), float(rng.uniform(2, 4)), float(rng.uniform(2, 6)))
        turn = rng.uniform(-20, 20, 3) if rng.random() < 0.5 else np.zeros(3)
        grid = rotated(default_grid(spacing), (float(turn[0]), float(turn[1]), float(turn[2])))
        patient, name = Thorax.random(number), f"phantom_{number:03d}.nii.gz"
        patient.scan(grid, noise_sd=float(rng.uniform(5, 60)), seed=number).save(folder / "images" / name)
        patient.truth(grid).save(folder / "labels" / name)
        split = "val" if (number - seed) % 5 == 4 else "train"
        rows.append((f"phantom_{number:03d}", f"images/{name}", f"labels/{name}", split))
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("id", "image", "label", "split"), *rows])
    return manifest
