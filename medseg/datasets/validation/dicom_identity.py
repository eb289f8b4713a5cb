"""Whose scan a DICOM file says it is, as digests that live as long as the process and are shown nowhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from medseg.datasets.manifest import Case
from medseg.io.dicom import part10

_TAGS = {"patient": "PatientID", "study": "StudyInstanceUID"}


class Subject(NamedTuple):
    """Digests that are equal where the patient or the study is; None where the file says nothing.

    A PatientID can be guessed from its digest by trying all of them, so these are never written.
    """

    patient: str | None
    study: str | None


NOBODY = Subject(None, None)


def subject_of(case: Case) -> Subject:
    """Who the first DICOM file of the case's first scan is about; nobody where there is none.

    Reads one header. A damaged file tells nothing here: the reader of scans says what is wrong.
    """
    for file in _files(case.images[0]):
        try:
            if not part10.is_dicom(file):
                continue
            header = part10.header(file, list(_TAGS.values()))
            return Subject(**{name: _digest(str(header.get(tag) or "")) for name, tag in _TAGS.items()})
        except Exception:  # pydicom raises anything
            return NOBODY
    return NOBODY


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from (p for p in sorted(path.rglob("*")) if p.is_file() and p.name != "DICOMDIR")


def _digest(text: str) -> str | None:
    plain = text.strip()
    return hashlib.sha256(plain.encode()).hexdigest() if plain else None
