"""A demo of the whole pipeline on a phantom with an exactly known segmentation; nothing is downloaded."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medseg.errors import UsageError
from medseg.evaluation.scoring import Score, score
from medseg.images.grid import Grid
from medseg.images.volume import Mask
from medseg.io import read, write_dicom_series, write_to
from medseg.io.formats import NIFTI
from medseg.io.mask_files import write_mask
from medseg.io.overwrite_guard import foreign_file, replacing_equal
from medseg.io.sidecar import facts_of
from medseg.phantom.thorax import LABELS, Thorax, default_grid, rotated
from medseg.system.atomic_write import replacing
from medseg.system.output_folder import make_output_folder
from medseg.visualization.overlays import overlay

if TYPE_CHECKING:
    from medseg.inference.registry import SegmentationMethod

MODEL = "lung_ct_context"
_LUNGS = LABELS[:4]


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
    """Writes a phantom patient as DICOM, segments it, scores the mask and returns the results.

    Args:
        folder: Output folder, which gets ``ct/`` (the DICOM series), ``lungs.nii.gz``, ``lungs.json`` and
            ``lungs.png``.
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
    made = [folder / name for name in ("lungs.nii.gz", "lungs.json", "lungs.png")]
    if (series.exists() and any(series.iterdir())) or any(path.exists() for path in made):
        raise UsageError(
            "the folder already contains a demo",
            where=folder,
            remedy="remove it, or choose another with -o",
            reason="has-results",
        )
    make_output_folder(series)
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
    """Writes phantom patients for trying out training without data, and returns the path of their manifest.

    Patients differ in anatomy, voxel size, noise and obliqueness. One in five is for
    validation. The truth holds the lungs with their nodules, as the recipe ``phantom_lungs`` names them.

    Args:
        folder: Output folder for ``images/``, ``labels/`` and ``manifest.csv``.
        cases: Number of patients.
        seed: Seed of the first patient; the others follow.

    Returns:
        Path of the manifest.

    Raises:
        UsageError: the folder holds a manifest or files of another origin (``foreign-file``).

    Example:
        >>> medseg.make_phantom("phantoms", 1).name
        'manifest.csv'
    """
    folder = Path(folder)
    for name in ("images", "labels"):
        make_output_folder(folder / name)
    manifest, text = folder / "manifest.csv", io.StringIO(newline="")
    rows = [_row(number, split=_split(number - seed)) for number in range(seed, seed + cases)]
    csv.writer(text, lineterminator="\n").writerows([("id", "image", "label", "split"), *rows])
    if manifest.exists() and manifest.read_bytes() != text.getvalue().encode():
        raise foreign_file(manifest)
    for number in range(seed, seed + cases):
        rng = np.random.default_rng([7, number])
        spacing = (float(rng.uniform(2, 4)), float(rng.uniform(2, 4)), float(rng.uniform(2, 6)))
        turn = rng.uniform(-20, 20, 3) if rng.random() < 0.5 else np.zeros(3)
        grid = rotated(default_grid(spacing), (float(turn[0]), float(turn[1]), float(turn[2])))
        patient = Thorax.random(number)
        scan = patient.scan(grid, noise_sd=float(rng.uniform(5, 60)), seed=number)
        _, image, label, _ = _row(number)
        for made, name in ((scan, image), (_lungs(patient.truth(grid)), label)):
            with replacing_equal(folder / name) as fresh:
                write_to(made, fresh, NIFTI.name)
    with replacing(manifest) as fresh:  # last: whatever it lists is there
        fresh.write_text(text.getvalue(), encoding="utf-8", newline="")
    return manifest


def _lungs(truth: Mask) -> Mask:
    """The truth without structures other than the lungs and their nodules."""
    values = {value for label in _LUNGS for value in label.values}
    return Mask(np.where(np.isin(truth.array, list(values)), truth.array, 0), truth.grid, _LUNGS)


def _row(number: int, split: str = "") -> tuple[str, str, str, str]:
    """The row of a phantom patient in the manifest."""
    name = f"phantom_{number:03d}"
    return name, f"images/{name}.nii.gz", f"labels/{name}.nii.gz", split


def _split(count: int) -> str:
    return "val" if count % 5 == 4 else "train"
