"""Labels that readers submit: each a new file with its origin, and a manifest of the newest ones."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.datasets.manifest import Case, Manifest
from medseg.errors import InputRefused, UsageError
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.mask_placement import placed_on
from medseg.images.volume import Mask, whole_numbers
from medseg.inference.registry import SegmentationMethod
from medseg.io import read
from medseg.io.mask_files import write_mask
from medseg.serving.data_folder import ServedImage
from medseg.serving.uploads import UploadedFile
from medseg.system.atomic_write import replacing
from medseg.system.csv_cells import to_cell
from medseg.system.error_conversion import damaged_table
from medseg.system.notices import collect_notices
from medseg.system.output_folder import make_output_folder

FINAL = "final"
"""Tag of the labels that are trained on."""
TABLE, MANIFEST = "submissions.csv", "manifest.csv"
_LABELS = "labels"
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_MOST_READER = 100


@dataclass(frozen=True)
class Submission:
    """A label that was submitted: a row of ``submissions.csv``.

    Attributes:
        image: Id of the scan.
        tag: ``final``, or another kind of label.
        version: 1 for the first label of this scan and tag, 2 for the next one, ...
        label: Path of the label map, relative to the output folder.
        reader: Who submitted it, as the client says.
        date: When, in UTC.
        submitted_sha256: Digest of the file that the client sent.
        original_sha256: Digest of the model whose mask the client got for this scan; empty if it got none.
        scan_sha256: Digest of the scan.
        labels: ``name=value`` of every label, separated by ``;``.
    """

    image: str
    tag: str
    version: int
    label: str
    reader: str
    date: str
    submitted_sha256: str
    original_sha256: str
    scan_sha256: str
    labels: str

    @property
    def values(self) -> dict[str, int]:
        """The value of each label in the label map."""
        pairs = (each.rpartition("=") for each in self.labels.split(";") if each)
        return {name: int(value) for name, _, value in pairs}


class Submissions:
    """All labels in an output folder.

    Args:
        output: The folder; None if labels cannot be kept.

    Raises:
        UsageError: its table is damaged (``table``).
    """

    def __init__(self, output: Path | None) -> None:
        self._output = output
        self.all: tuple[Submission, ...] = () if output is None else _read(output / TABLE)

    def newest(self, image: str, tag: str = FINAL) -> Submission | None:
        """The last label of a scan; None if there is none."""
        return next((each for each in reversed(self.all) if (each.image, each.tag) == (image, tag)), None)

    def of(self, image: str) -> dict[str, Submission]:
        """The last label of every tag of a scan."""
        return {each.tag: each for each in self.all if each.image == image}

    def path(self, submission: Submission) -> Path:
        """The file of a label."""
        return self._folder() / submission.label

    def _folder(self) -> Path:
        if self._output is None:
            raise UsageError(
                "this server keeps no labels",
                remedy="start it with a data folder: medseg serve FOLDER",
                reason="no-data-folder",
            )
        return self._output

    def check(self, tag: str) -> str:
        """The tag, if a label of it can be kept.

        Raises:
            UsageError: there is no data folder (``no-data-folder``), or it is no tag (``params``).
        """
        self._folder()
        if not _TAG.fullmatch(tag):
            raise UsageError(
                f"unknown tag {tag[:60]!r} for a label",
                remedy="use tag=final for a corrected label, or tag=original for one as the model made it",
                reason="params",
            )
        return tag

    def add(
        self,
        image: ServedImage,
        upload: UploadedFile,
        *,
        tag: str,
        names: Mapping[int, str],
        method: SegmentationMethod,
        facts: Mapping[str, str],
    ) -> Submission:
        """Keeps a label as a new version; earlier ones stay.

        Args:
            image: Its scan.
            upload: The label map as the client sent it.
            tag: The kind of label.
            names: Name of each value in the label map; empty: numbered in the order of the model's labels.
            method: The model whose values the names get.
            facts: ``reader``, ``original_sha256`` and ``scan_sha256``.

        Raises:
            InputRefused: it cannot be read, is on another grid (``grid-mismatch``), or has values without a
                name (``label-names``).
            UsageError: as :meth:`check`.
        """
        self.check(tag)
        folder = self._folder()
        with collect_notices() as notices:
            scan = read(image.path).grid
            mask = _renumbered(upload.path, scan, names, method)
        last = self.newest(image.id, tag)
        version = 1 + (last.version if last else 0)
        while (place := Path(_LABELS) / image.id / f"{tag}-v{version}.nii.gz", (folder / place).exists())[1]:
            version += 1  # a file that a crash has left without a row
        make_output_folder((folder / place).parent)
        row = Submission(
            image=image.id,
            tag=tag,
            version=version,
            label=place.as_posix(),
            reader=" ".join(facts.get("reader", "").split())[:_MOST_READER],
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            submitted_sha256=upload.sha256,
            original_sha256=facts.get("original_sha256", ""),
            scan_sha256=facts.get("scan_sha256", ""),
            labels=";".join(f"{label.name}={label.value}" for label in mask.labels),
        )
        origin = {field.name: getattr(row, field.name) for field in fields(row)}
        write_mask(mask, folder / place, {**origin, "warnings": [notice.text for notice in notices]})
        self.all = (*self.all, row)
        self._write_table(folder)
        return row

    def write_manifest(self, images: Iterable[ServedImage], labels: Sequence[str]) -> Path | None:
        """Writes the newest final label of every scan as a manifest; None if there is none.

        Every fifth patient, by a digest of the patient's id, validates; so does none if that were all.

        Args:
            images: All scans.
            labels: Names of the model's labels: a case with fewer is annotated for those alone.
        """
        cases = []
        for image in images:
            row = self.newest(image.id)
            if row is None:
                continue
            known = tuple(name for name in labels if name in row.values)
            cases.append(
                Case(
                    id=image.id,
                    patient=image.patient,
                    images=(image.path,),
                    label=self.path(row).absolute(),
                    split="val" if _validates(image.patient) else "train",
                    annotated=known if known and len(known) < len(labels) else None,
                )
            )
        if not cases:
            return None
        if all(case.split == "val" for case in cases):
            cases = [case.model_copy(update={"split": "train"}) for case in cases]
        return Manifest("submissions", tuple(cases), self._folder()).write(self._folder() / MANIFEST)

    def _write_table(self, folder: Path) -> None:
        text = io.StringIO(newline="")
        table = csv.writer(text, lineterminator="\n")
        table.writerow([field.name for field in fields(Submission)])
        for row in self.all:
            table.writerow([to_cell(cell) for cell in astuple(row)])
        with replacing(folder / TABLE) as fresh:
            fresh.write_text(text.getvalue(), encoding="utf-8", newline="")


def _read(path: Path) -> tuple[Submission, ...]:
    if not path.is_file():
        return ()
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return tuple(_row(row) for row in csv.DictReader(file))
    except (KeyError, ValueError, TypeError) as error:
        raise damaged_table(error, path, remedy="restore it, or serve another folder") from error


def _row(cells: Mapping[str, Any]) -> Submission:
    return Submission(**{**cells, "version": int(cells["version"])})


def _validates(patient: str) -> bool:
    return hashlib.sha256(patient.encode()).digest()[0] % 5 == 0


def _renumbered(path: Path, grid: Grid, names: Mapping[int, str], method: SegmentationMethod) -> Mask:
    """The label map with the model's value for each name, on the grid of its scan."""
    volume = read(path)
    array: npt.NDArray[np.uint16] = whole_numbers(volume.array, "label").astype(np.uint16)
    found = [int(value) for value in np.unique(array) if value]
    named = dict(names) or {number: label.name for number, label in enumerate(method.labels, start=1)}
    missing = [value for value in found if value not in named]
    if missing:
        raise InputRefused(
            f"the label has the value {missing[0]}, which no name belongs to",
            remedy="send label_info with the name and idx of every segment",
            reason="label-names",
        )
    values = {label.name: label.value for label in method.labels}
    taken = {value for label in method.labels for value in label.values}
    for name in named.values():
        if name not in values:
            values[name] = next(value for value in range(1, 1 << 16) if value not in taken)
            taken.add(values[name])
    table = np.zeros(max(named, default=0) + 1, np.uint16)
    for number, name in named.items():
        table[number] = values[name]
    # Each label is its own value alone: what lies inside what is the recipe's to say.
    labels = tuple(Label(name=name, values=(values[name],)) for name in dict.fromkeys(named.values()))
    return placed_on(Mask(table[array], volume.grid, labels), grid, crop=True, names=("label", "scan"))
