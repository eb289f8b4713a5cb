"""Other spellings of a manifest's columns, splits and paths that have one meaning only."""

from __future__ import annotations

import ntpath
import re
from pathlib import Path

_COLUMNS = {
    "case": "id",
    "case_id": "id",
    "caseid": "id",
    "mask": "label",
    "seg": "label",
    "segmentation": "label",
    "labels": "label",
    "scan": "image",
    "image_1": "image",
    "patient_id": "patient",
    "patientid": "patient",
    "subject": "patient",
    "study_id": "study",
}
_SPLITS = {
    "training": "train",
    "validation": "val",
    "valid": "val",
    "dev": "val",
    "testing": "test",
}


def column(name: str) -> str:
    """The column that a header's cell means: ``ID`` is ``id``, ``Mask`` is ``label``; others are kept."""
    plain = re.sub(r"[\s-]+", "_", name.strip().lower())
    return _COLUMNS.get(plain, plain)


def split(text: str | None) -> str | None:
    """The split that a word means: ``Training`` is ``train``, ``Validation`` is ``val``; others are kept."""
    plain = (text or "").strip().lower()
    return _SPLITS.get(plain, plain) if plain in (*_SPLITS, *_SPLITS.values()) else text


def path(text: str, root: Path) -> str:
    r"""A path with ``/``: ``scans\a.nii.gz``, as written on Windows, is ``scans/a.nii.gz``.

    A file whose name contains a backslash is kept, if there is one.
    """
    if "\\" not in text or (root / text).exists():
        return text
    return text.replace("\\", "/")


def is_windows_drive(text: str) -> bool:
    r"""Whether the path starts with a drive, such as ``D:\scans``."""
    drive, rest = ntpath.splitdrive(text)
    return bool(re.fullmatch("[A-Za-z]:", drive)) and rest.startswith(("\\", "/"))
