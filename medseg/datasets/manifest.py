"""Manifests: the scans of a data set with their patients, label maps and splits.

A manifest is read from CSV, JSON or YAML, or from a data set in the layout of the Medical Segmentation
Decathlon (MSD) or nnU-Net (v2 raw). No image is opened here.

CSV has one case per row. The columns ``id`` and ``image`` are required; ``patient``, ``study``, ``label``,
``group``, ``split`` and ``annotated`` are optional, and further channels are ``image_2``, ``image_3``, ...
In JSON and YAML, ``cases`` is a list of the same fields, and ``image`` may be a list with one file per
channel; ``name``, ``description`` and ``root`` (the folder of the data) are optional.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from medseg.datasets import manifest_spellings as spellings
from medseg.datasets.manifest_readers import FIELDS, Record, as_text, read_records, wrong
from medseg.errors import UsageError
from medseg.system.csv_cells import to_cell
from medseg.system.validation_words import validation_words

Split = Literal["train", "val", "test"]

# Path separators, and characters that Windows or macOS do not allow in file names.
_NOT_IN_FILE_NAMES = frozenset('/\\:*?"<>|')


class Case(BaseModel):
    """One scan (of one or more channels) with its label map and metadata.

    Attributes:
        id: Name of the case in tables and output files; must be usable as a file name.
        patient: Patient of the scan; by default the id. Splits never divide a patient.
        study: Examination of the patient, such as a date or an accession number; a column of the results of
            a batch. None if not given.
        images: One file (or DICOM folder) per channel, or a single 4D file with all channels.
        label: Label map of the truth; None if there is none.
        group: Site, scanner or similar; splits keep the proportions of groups.
        split: ``train``, ``val`` or ``test``; None if the case is in no split.
        annotated: Names of the labels that this case is annotated for; None for all. Other labels
            are unknown: training and evaluation leave them out. Separated by ``;`` in a CSV.

    Example:
        >>> case = medseg.Case(id="c1", images=("chest.nii.gz",), label="lungs.nii.gz", split="train")
        >>> case.patient
        'c1'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    patient: str = Field(default="", validate_default=False)
    study: str | None = None
    images: tuple[Path, ...] = Field(min_length=1)
    label: Path | None = None
    group: str | None = None
    split: Split | None = None
    annotated: tuple[str, ...] | None = None

    @field_validator("annotated")
    @classmethod
    def _names(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (not value or not all(value) or len(set(value)) < len(value)):
            raise ValueError("must name at least one label, each once")
        return value

    @model_validator(mode="before")
    @classmethod
    def _own_patient(cls, data: object) -> object:
        if isinstance(data, dict) and data.get("patient") in (None, ""):
            return {**data, "patient": data.get("id")}
        return data

    @field_validator("id")
    @classmethod
    def _safe(cls, value: str) -> str:
        bad = sorted(_NOT_IN_FILE_NAMES & set(value))
        if bad:
            raise ValueError(f"must be usable as a file name: it may not contain {' '.join(bad)}")
        if not value.strip() or value != value.strip() or not value.isprintable():
            raise ValueError("must be text without control characters and without spaces at its ends")
        if value.startswith(".") or len(value.encode()) > 200:  # 255 bytes minus room for suffixes
            raise ValueError("must be usable as a file name: no leading dot, at most 200 bytes")
        return value


@dataclass(frozen=True)
class Manifest:
    """A validated list of cases: ids are unique, and no patient is in two splits.

    Attributes:
        name: Name of the data set.
        cases: Cases in the order of the source.
        root: Folder that relative paths of the source start from.
        description: Free text.

    Raises:
        UsageError: there is no case, an id is used twice, or a patient is in two splits.

    Example:
        >>> manifest = medseg.Manifest.read("cases.csv")
        >>> [case.id for case in manifest.split("train")]
        ['case_0', 'case_1']
    """

    name: str
    cases: tuple[Case, ...]
    root: Path = Path()
    description: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "cases", tuple(self.cases))
        _check(self.cases, [f"case {number}" for number in range(1, len(self.cases) + 1)], self.name)

    @classmethod
    def read(cls, path: str | Path, *, root: str | Path | None = None) -> Manifest:
        """The manifest in a CSV, JSON or YAML file, an MSD ``dataset.json``, or an MSD or nnU-Net folder.

        Args:
            path: The file, or a folder with a ``dataset.json``.
            root: Folder of the data, instead of the file's own ``root`` entry (which is
                relative to the file) or the file's folder.

        Raises:
            UsageError: the file is missing or malformed, or a case is invalid; the message names the
                file, row, field and value. Whether the files of cases exist is not checked here:
                see :meth:`missing`.
        """
        path, start = Path(path), None if root is None else Path(root)
        file = path / "dataset.json" if path.is_dir() else path
        header, records = read_records(file, start)
        return _built(header, records, file, start)

    def split(self, name: str) -> tuple[Case, ...]:
        """The cases in ``train``, ``val`` or ``test``; may be empty.

        Raises:
            UsageError: the split is unknown.
        """
        if name not in get_args(Split):
            known = ", ".join(get_args(Split))
            raise wrong(f"unknown split {name!r}", self.name, f"choose one of: {known}", "split")
        return tuple(case for case in self.cases if case.split == name)

    def missing(self) -> tuple[Path, ...]:
        """Images and labels that do not exist, each once, in the order of the cases."""
        paths = [path for case in self.cases for path in (*case.images, case.label) if path is not None]
        return tuple(path for path in dict.fromkeys(paths) if not path.exists())

    def write(self, path: str | Path, *, replace: bool = True) -> Path:
        """Writes CSV, JSON or YAML depending on the suffix; :meth:`read` returns equal cases.

        Paths below the folder of the data (JSON, YAML) or of the file (CSV) are written relative to it,
        other paths as absolute ones. CSV cannot hold ``name``, ``description`` and ``root``.

        Args:
            path: The file.
            replace: Whether an existing file with other content is replaced.

        Raises:
            UsageError: the suffix is unknown, the folder does not exist, or there is a file with other
                content (``foreign-file``) and ``replace`` is not set.
            ResourceError: the file cannot be written, for example because the disk is full.
        """
        from medseg.io.overwrite_guard import replacing_equal
        from medseg.system.atomic_write import replacing

        path = Path(path)
        if path.suffix.lower() == ".csv":
            text = _as_csv(self.cases, _absolute(path.parent))
        elif path.suffix.lower() in (".json", ".yaml", ".yml"):
            root = _absolute(self.root)
            data: Record = {
                "name": self.name,
                "description": self.description,
                "root": _within(root, _absolute(path.parent)),
                "cases": [_record(case, root) for case in self.cases],
            }
            as_json = path.suffix.lower() == ".json"
            dumped: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=1000)
            text = json.dumps(data, indent=1, ensure_ascii=False) + "\n" if as_json else dumped
        else:
            raise wrong(
                f"cannot write {path.suffix!r}", path, "use the suffix .csv, .json or .yaml", "suffix"
            )
        with replacing(path) if replace else replacing_equal(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
        return path


def read_cases(path: str | Path, *, root: str | Path | None = None) -> tuple[Case, ...]:
    """The cases of :meth:`Manifest.read`, without its check that no patient is in two splits.

    For callers that report such patients themselves.

    Raises:
        UsageError: as :meth:`Manifest.read`, except for patients in two splits.
    """
    path, start = Path(path), None if root is None else Path(root)
    file = path / "dataset.json" if path.is_dir() else path
    header, numbered = read_records(file, start)
    folder = _root(header, file, start)
    cases = [_case(record, folder, f"{file}, {place}") for place, record in numbered]
    _check(cases, [place for place, _ in numbered], file, patients=False)
    return tuple(cases)


def read_rows(
    path: str | Path, *, root: str | Path | None = None
) -> Iterator[tuple[str, str, Case | UsageError]]:
    """For every row its place, its id as written, and its case or the error in it.

    For callers that skip invalid rows. Ids may be repeated and patients may be in two splits.

    Raises:
        UsageError: the file as a whole is missing or malformed.
    """
    path, start = Path(path), None if root is None else Path(root)
    file = path / "dataset.json" if path.is_dir() else path
    header, numbered = read_records(file, start)
    folder = _root(header, file, start)
    for place, record in numbered:
        name = "" if isinstance(record, UsageError) else str(record.get("id") or "")
        try:
            yield place, name, _case(record, folder, f"{file}, {place}")
        except UsageError as error:
            yield place, name, error


def _check(cases: Sequence[Case], places: Sequence[str], where: str | Path, *, patients: bool = True) -> None:
    if not cases:
        raise wrong("it has no case", where, "add at least one case", "empty")
    ids: dict[str, str] = {}
    splits: dict[str, Split] = {}
    for case, place in zip(cases, places, strict=True):
        # Compared without regard to case: on Windows and macOS 'a' and 'A' are the same output file.
        earlier = ids.setdefault(case.id.casefold(), place)
        if earlier != place:
            raise wrong(
                f"id {case.id!r} of {place} is also the id of {earlier}", where, "make ids unique", "ids"
            )
        if patients and case.split and splits.setdefault(case.patient, case.split) != case.split:
            raise wrong(
                f"patient {case.patient!r} is in splits {splits[case.patient]} and {case.split} ({place})",
                where,
                "put all cases of a patient into the same split",
                "patient-in-two-splits",
            )


def _built(
    header: Record, numbered: list[tuple[str, Record | UsageError]], file: Path, root: Path | None
) -> Manifest:
    folder = _root(header, file, root)
    cases = [_case(record, folder, f"{file}, {place}") for place, record in numbered]
    _check(cases, [place for place, _ in numbered], file)
    plain = file.parent.resolve().name if file.name == "dataset.json" else file.stem
    return Manifest(
        name=str(header.get("name") or plain),
        cases=tuple(cases),
        root=folder,
        description=str(header.get("description") or ""),
    )


def _root(header: Record, file: Path, given: Path | None) -> Path:
    own = header.get("root")
    return given if given is not None else file.parent / (str(own) if own else "")


def _case(record: Record | UsageError, root: Path, where: str) -> Case:
    if isinstance(record, UsageError):
        raise record
    unknown = [name for name in record if name not in FIELDS]
    if unknown:
        known = ", ".join(FIELDS)
        raise wrong(f"unknown field {unknown[0]!r}", where, f"known fields: {known}", "unknown-field")
    for name in ("id", "image"):
        if record.get(name) in (None, "", []):
            raise wrong(f"{name} is missing", where, f"fill in {name}", "missing-field")
    given = record["image"]
    images = [as_text(image, "image", where) for image in (given if isinstance(given, list) else [given])]
    plain = [name for name in FIELDS if name not in ("image", "label", "annotated")]
    texts: dict[str, object] = {name: as_text(record.get(name), name, where) for name in plain}
    texts["annotated"] = _names(record.get("annotated"), where)
    label = as_text(record.get("label"), "label", where)
    if None in images:
        raise wrong("image has an empty channel", where, "give one file for each channel", "missing-field")
    texts["split"] = spellings.split(as_text(record.get("split"), "split", where))
    texts["images"] = [_path(str(image), "image", root, where) for image in images]
    texts["label"] = _path(label, "label", root, where) if label else None
    try:
        return Case.model_validate(texts)
    except ValidationError as error:
        first = error.errors()[0]
        field, rule = str(first["loc"][0]), validation_words(first)
        if field == "split":
            rule = f"must be one of {', '.join(get_args(Split))}, or empty"
        raise wrong(f"{field} {first['input']!r:.80}: {rule}", where, f"correct {field}", "field") from None


def _path(text: str, field: str, root: Path, where: str) -> Path:
    if os.name != "nt" and spellings.is_windows_drive(text):
        raise wrong(
            f"{field} {text!r:.80} is a path of a Windows drive, which this computer does not have",
            where,
            "write paths relative to the manifest, such as scans/a.nii.gz",
            "field",
        )
    return root / spellings.path(text, root)


def _names(given: object, where: str) -> tuple[str, ...] | None:
    """Names of labels, given as a list or as text separated by ``;``; None if empty."""
    if given is None or given == "":
        return None
    parts = given if isinstance(given, list) else (as_text(given, "annotated", where) or "").split(";")
    return tuple((as_text(part, "annotated", where) or "").strip() for part in parts)


def _record(case: Case, root: Path) -> Record:
    images = [_within(image, root) for image in case.images]
    record: Record = {
        "id": case.id,
        "patient": case.patient,
        "image": images if len(images) > 1 else images[0],
    }
    if case.label is not None:
        record["label"] = _within(case.label, root)
    if case.annotated is not None:
        record["annotated"] = list(case.annotated)
    optional = {"study": case.study, "group": case.group, "split": case.split}
    return record | {name: value for name, value in optional.items() if value is not None}


def _as_csv(cases: Sequence[Case], folder: Path) -> str:
    widest = max(len(case.images) for case in cases)
    further = [f"image_{number}" for number in range(2, widest + 1)]
    study = ["study"] if any(case.study is not None for case in cases) else []
    annotated = ["annotated"] if any(case.annotated is not None for case in cases) else []
    out = io.StringIO(newline="")
    table = csv.DictWriter(
        out,
        ["id", "patient", *study, "image", *further, "label", "group", "split", *annotated],
        lineterminator="\n",
    )
    table.writeheader()
    for case in cases:
        record = _record(case, folder)
        images = [_within(image, folder) for image in case.images]
        if case.annotated is not None:
            record["annotated"] = ";".join(case.annotated)
        row = record | dict(zip(["image", *further], images, strict=False))
        table.writerow({name: to_cell(value) for name, value in row.items()})
    return out.getvalue()


def _absolute(path: Path) -> Path:
    # Not resolve(): images may be links into a store (such as git-annex) with meaningless names.
    return Path(os.path.abspath(path))  # noqa: PTH100


def _within(path: Path, folder: Path) -> str:
    path = _absolute(path)
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.as_posix()
