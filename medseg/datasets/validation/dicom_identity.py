"""Patient and study of DICOM files, as digests that stay in memory and are never shown."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from medseg.datasets.manifest import Case
from medseg.io.dicom import signature

_TAGS = {"patient": "PatientID", "study": "StudyInstanceUID"}


class Subject(NamedTuple):
    """Digests of PatientID and StudyInstanceUID; None if the file has none.

    A PatientID can be guessed from its digest by trying all values, so digests are never written.
    """

    patient: str | None
    study: str | None


NOBODY = Subject(None, None)


def subject_of(case: Case) -> Subject:
    """Patient and study of the first DICOM file of the case's first scan; `NOBODY` if there is none.

    Reads a single header. Damaged files give `NOBODY`; the reader of scans reports what is wrong.
    """
    for file in _files(case.images[0]):
        try:
            if not signature.is_dicom(file):
                continue
            from medseg.io.dicom import part10  # imports pydicom

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
