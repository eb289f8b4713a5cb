"""Recipes and changes of cases for the tests of data checks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from support.worlds import tiny

from medseg.datasets.manifest import Case
from medseg.datasets.validation import (
    Finding,
    check,
)
from medseg.io import write_dicom_series
from medseg.phantom.thorax import Thorax, default_grid

GRID = default_grid((8.0, 9.0, 12.0))


# Every value of the phantom's truth has a label, so that nothing is unknown.
RECIPE = tiny(
    labels=[
        {"name": "right_lung", "values": [1, 3], "side": "right"},
        {"name": "left_lung", "values": [2, 4], "side": "left"},
        {"name": "middle", "values": [5, 6, 7]},
    ]
)


MR = tiny(
    modality="MR",
    labels=[{"name": "all", "values": [1, 2, 3, 4, 5, 6, 7]}],
    prepare={"intensity": {"kind": "percentile", "low": 0, "high": 99}},
)


def changed(case: Case, how: Callable[[np.ndarray], np.ndarray], *, what: str = "image", dtype=None) -> Case:
    """The case with the voxels of its image or label changed; in the same file."""
    path = case.images[0] if what == "image" else case.label
    image = nib.load(path)
    array = how(np.asarray(image.dataobj))
    nib.save(nib.Nifti1Image(array.astype(dtype or array.dtype), image.affine), path)
    return case


def found(cases: list[Case], recipe=RECIPE) -> list[tuple[str | None, str]]:
    return [(each.case, each.code) for each in check(cases, recipe).findings]


def only(cases: list[Case], code: str, recipe=RECIPE) -> Finding:
    """The one finding of a set that has one."""
    findings = check(cases, recipe).findings
    assert [each.code for each in findings] == [code]
    assert findings[0].problem
    assert findings[0].remedy
    return findings[0]


def with_(case: Case, **changes: object) -> Case:
    return case.model_copy(update=changes)


def series(folder: Path, number: int, split: str, **elements: str) -> Case:
    scan = Thorax.random(number).scan(default_grid((16.0, 18.0, 40.0)), seed=number)
    place = folder / f"series{number}"
    place.mkdir()
    for path in sorted(write_dicom_series(scan, place).iterdir()):
        header = pydicom.dcmread(path)
        for name, value in elements.items():
            setattr(header, name, value)
        header.save_as(path)
    return Case(id=f"c{number}", images=(place,), split=split)  # type: ignore[arg-type]  # a split
