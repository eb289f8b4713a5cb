"""A folder with the files that the examples in the documentation use: scans, masks, a data set, a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from support.foreign_models import training_folder
from support.worlds import tiny, untrained

from medseg.evaluation import evaluator, summary_table
from medseg.images.volume import Mask
from medseg.io import read_mask, write_dicom_series
from medseg.io.sidecar import meaning_of, sidecar_path, write_json
from medseg.phantom.thorax import LABELS, Thorax, default_grid

GRID = default_grid((7.0, 8.0, 12.0), "LPS")
LUNGS = LABELS[:2]


def lay_out(desk: Path) -> Path:
    """Fills a folder and returns it."""
    patient, grid = Thorax(), default_grid((4.0, 4.0, 5.0), "LPS")
    patient.scan(grid).save(desk / "chest.nii.gz")
    (desk / "dicom_folder").mkdir()
    write_dicom_series(patient.scan(grid), desk / "dicom_folder")
    lungs = Mask(patient.truth(grid).array, grid, LUNGS)
    lungs.save(desk / "lungs.nii.gz")
    write_json(sidecar_path(desk / "lungs.nii.gz"), meaning_of(lungs))
    data_set(desk)
    (desk / "tiny.yaml").write_text(tiny(train={"epochs": 1}).yaml())
    untrained(tiny()).save(desk / "model.safetensors")
    training_folder(desk)
    return desk


def data_set(desk: Path) -> None:
    """Writes four cases to ``dataset/``, ``cases.csv``, and two evaluations."""
    rows = ["id,image,label,split"]
    for folder in ("images", "labels"):
        (desk / "dataset" / folder).mkdir(parents=True)
    for number, split in enumerate(("train", "train", "val", "test")):
        name = f"case_{number}.nii.gz"
        patient = Thorax.random(number)
        patient.scan(GRID, seed=number).save(desk / "dataset" / "images" / name)
        truth = patient.truth(GRID)
        lungs = np.array([0, 1, 2, 1, 2, 0, 0, 0], np.uint8)[truth.array]  # with their nodules, 3 and 4
        Mask(lungs, GRID, truth.labels).save(desk / "dataset" / "labels" / name)
        rows.append(f"case_{number},dataset/images/{name},dataset/labels/{name},{split}")
    (desk / "cases.csv").write_text("\n".join(rows) + "\n")
    from medseg.datasets.manifest import Manifest

    for name in ("first", "second"):
        (desk / name).mkdir()
        cases = Manifest.read(desk / "cases.csv").split("test")
        frame = evaluator.evaluate_cases(cases, lambda case: read_mask(str(case.label), LUNGS), LUNGS)
        summary_table.write(frame, desk / name)
