"""The files of a batch in its output folder: whether they are its own, and how they are kept.

Files of another origin are never replaced: an edited file stays, and files that no longer belong to their row
are renamed.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from medseg.batch_processing import fingerprint, results
from medseg.batch_processing.messages import (
    DICOM,
    MASKS,
    MEASURES,
    OVERLAYS,
    PER_LABEL,
    PROBABILITIES,
    BatchConfig,
)
from medseg.images.label import Label
from medseg.inference.case_result import CaseResult, ModelIdentity
from medseg.io import read, read_mask
from medseg.io.dicom import part10
from medseg.io.label_files import label_paths
from medseg.system.file_names import file_name
from medseg.system.notices import notify

_DICOM_BYTES = 1 << 31

FileState: TypeAlias = Literal["missing", "own", "damaged", "foreign"]


class OutputFiles:
    """The output folder of a batch, and what batches ever wrote into it.

    Args:
        folder: The output folder.
        written: SHA-256 of all content that batches wrote, by path in the folder.
    """

    def __init__(self, folder: Path, written: Mapping[str, set[str]]) -> None:
        self.folder = folder
        self._written = written

    def state(self, name: str) -> FileState:
        """What is at a path in the folder, compared with what batches wrote there.

        Other content is ``foreign`` if it can be read as a file of its kind, else ``damaged``.

        Args:
            name: Path of a file of a case in the folder.
        """
        path = self.folder / name
        try:
            found = fingerprint.digest([path])
        except FileNotFoundError:
            return "missing"
        except OSError:
            return "damaged"
        if found in self._written.get(name, ()):
            return "own"
        return "foreign" if _is_readable(name, path) else "damaged"

    def knows(self, name: str) -> bool:
        """Whether a batch ever wrote a file at this path."""
        return name in self._written

    def is_complete(self, result: CaseResult) -> bool:
        """Whether all files of a result still have the content that was written."""
        try:
            return all(
                fingerprint.digest([self.folder / name]) == known for name, known in result.files.items()
            )
        except OSError:
            return False

    def set_aside(self, name: str, word: str) -> str:
        """Renames ``a.nii.gz`` to ``a.<word>.nii.gz``, or with a number if that exists; returns the path.

        Args:
            name: Path of the file in the folder.
            word: Why, such as ``edited``.
        """
        path = self.folder / name
        ending = ".nii.gz" if path.name.endswith(".nii.gz") else path.suffix
        stem = path.name.removesuffix(ending)
        number, fresh = 1, path.with_name(f"{stem}.{word}{ending}")
        while fresh.exists():
            number += 1
            fresh = path.with_name(f"{stem}.{word}-{number}{ending}")
        path.rename(fresh)
        return fresh.relative_to(self.folder).as_posix()


def keep_edited_table(folder: Path, name: str, records: Sequence[CaseResult]) -> None:
    """Renames a table of results that was edited, such as by notes of a reader, before it is written again.

    Args:
        folder: The output folder.
        name: Name of the table.
        records: All results that were ever recorded in the folder.
    """
    if records and (folder / name).is_file() and not results.is_unedited(folder / name, records):
        kept = OutputFiles(folder, {}).set_aside(name, "edited")
        notify("table-edited", f"the table was edited; it was renamed to {kept}", path=folder / name)


def mask_name(case: str, model: str, config: BatchConfig) -> str:
    """Path of a mask in the output folder."""
    inner = f"{model}/" if len(config.models) > 1 else ""
    return f"{MASKS}/{inner}{case}{config.mask_ending}"


def names_of(case: str, model: ModelIdentity, config: BatchConfig) -> Iterator[str]:
    """Paths of the files that a batch may write for a case, in its output folder; the mask comes first."""
    inner = f"{model.name}/" if len(config.models) > 1 else ""
    yield mask_name(case, model.name, config)
    if config.overlays:
        yield f"{OVERLAYS}/{inner}{case}.png"
    if config.measure:
        yield f"{MEASURES}/{inner}{case}.csv"
    if config.dicom:
        yield f"{DICOM}/{inner}{case}.dcm"
    for label in model.labels if config.probabilities else ():
        yield f"{PROBABILITIES}/{inner}{case}_{file_name(label)}.nii.gz"
    if config.per_label:
        labels = [Label(name=name, values=values) for name, values in model.labels.items()]
        for path in label_paths(f"{PER_LABEL}/{inner}{case}", labels).values():
            yield path.as_posix()


def _is_whole_table(text: str) -> bool:
    """Whether the text of a CSV file does not end within a row."""
    rows = list(csv.reader(text.splitlines()))
    return text.endswith("\n") and "\0" not in text and len({len(row) for row in rows}) == 1


def _is_readable(name: str, path: Path) -> bool:
    """Whether a file is whole, by its kind."""
    kind = name.partition("/")[0]
    try:
        if kind in (MASKS, PER_LABEL):
            read_mask(path, ())
        elif kind == OVERLAYS:
            from PIL import Image

            with Image.open(path) as picture:
                picture.load()
        elif kind == MEASURES:
            return _is_whole_table(path.read_text(encoding="utf-8"))
        elif kind == DICOM:
            if "ROIContourSequence" not in part10.header(path, None):
                part10.whole(path, _DICOM_BYTES)
        else:
            read(path)
    except Exception:  # Pillow and pydicom raise all kinds of errors for damaged files
        return False
    return True
