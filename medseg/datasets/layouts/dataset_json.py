"""Medical Segmentation Decathlon and nnU-Net: a folder with a ``dataset.json``.

nnU-Net's version 1 lists cases as MSD does, but its images are one file a channel:
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
    """The cases that the file lists, those without a label in no split: no model can be tested on them.

    Raises:
        UsageError: an image or a label that it lists is missing (``layout-missing``).
    """
    cases = tuple(_channels(case) for case in Manifest.read(folder).cases)
    named = {path.resolve() for case in cases for path in (*case.images, case.label) if path is not None}
    gone = [path for path in sorted(named) if not path.exists()]
    if gone:
        raise UsageError(
            f"{len(gone)} files that it lists are missing, the first: {gone[0]}",
            where=folder / "dataset.json",
            remedy="download or unpack the data set again",
            reason="layout-missing",
        )
    cases = tuple(c if c.label else c.model_copy(update={"split": None}) for c in cases)
    return Found(cases, tuple(path for path in images(folder, deep=True) if path.resolve() not in named))


def _channels(case: Case) -> Case:
    """The case with its files of nnU-Net's version 1 if the one that is listed does not exist."""
    path = case.images[0]
    if len(case.images) > 1 or path.exists():
        return case
    last = path.name[len(stem(path)) :]
    there = sorted(path.parent.glob(f"{stem(path)}_[0-9][0-9][0-9][0-9]{last}"))
    expected = [path.with_name(f"{stem(path)}_{n:04d}{last}") for n in range(len(there))]
    return case.model_copy(update={"images": tuple(expected)}) if there else case
