"""Medical Segmentation Decathlon and nnU-Net: a folder with a ``dataset.json``.

nnU-Net's version 1 lists cases like MSD, but has one image file per channel:
``"image": "./imagesTr/a.nii.gz"`` stands for ``a_0000.nii.gz``, ``a_0001.nii.gz`` and so on
(documentation/dataset_conversion.md of MIC-DKFZ/nnUNet, branch nnunetv1).
"""

from __future__ import annotations

from pathlib import Path

from medseg.datasets.layouts.case_naming import Found, images
from medseg.datasets.manifest import Case, Manifest
from medseg.errors import UsageError
from medseg.io.formats import stem


def matches(folder: Path) -> bool:
    """Whether there is a ``dataset.json``."""
    return (folder / "dataset.json").is_file()


def find(folder: Path, _: Path) -> Found:
    """The listed cases; those without a label are in no split, because no model can be tested on them.

    Raises:
        UsageError: a listed image or label is missing (``layout-missing``).
    """
    cases = tuple(_channels(case) for case in Manifest.read(folder).cases)
    listed = {path.resolve() for case in cases for path in (*case.images, case.label) if path is not None}
    missing = [path for path in sorted(listed) if not path.exists()]
    if missing:
        raise UsageError(
            f"{len(missing)} listed files are missing, the first is {missing[0]}",
            where=folder / "dataset.json",
            remedy="download or unpack the data set again",
            reason="layout-missing",
        )
    cases = tuple(c if c.label else c.model_copy(update={"split": None}) for c in cases)
    return Found(cases, tuple(path for path in images(folder, deep=True) if path.resolve() not in listed))


def _channels(case: Case) -> Case:
    """The case with one file per channel (nnU-Net version 1) if the listed file does not exist."""
    path = case.images[0]
    if len(case.images) > 1 or path.exists():
        return case
    last = path.name[len(stem(path)) :]
    present = sorted(path.parent.glob(f"{stem(path)}_[0-9][0-9][0-9][0-9]{last}"))
    expected = [path.with_name(f"{stem(path)}_{n:04d}{last}") for n in range(len(present))]
    return case.model_copy(update={"images": tuple(expected)}) if present else case
