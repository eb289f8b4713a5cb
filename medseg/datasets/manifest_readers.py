"""Readers of manifest files: each returns a header and numbered records of plain data.

The formats are described in :mod:`medseg.datasets.manifest`.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import yaml

from medseg.datasets import manifest_spellings as spellings
from medseg.errors import UsageError
from medseg.io.formats import is_image
from medseg.system.csv_cells import from_cell
from medseg.system.notices import notify
from medseg.system.safe_parsing import PlainLoader, json_data, text_of, yaml_data

Record: TypeAlias = dict[str, object]

FIELDS = ("id", "patient", "study", "image", "label", "group", "split", "annotated")
_HEADER = ("name", "description", "root", "cases")
# Room for a hundred thousand cases. PyYAML reads about 100 kB per second, so 4 MB take under a minute.
_MOST_BYTES = {".csv": 64 << 20, ".json": 64 << 20, ".yaml": 4 << 20, ".yml": 4 << 20}
_CHANNEL = re.compile(r"image_([2-9]|[1-9]\d+)")


def read_records(file: Path, root: Path | None) -> tuple[Record, list[tuple[str, Record | UsageError]]]:
    """The header (name, description and root, if given) and each record with its place, such as ``row 3``.

    A malformed record is replaced by its error.

    Args:
        file: ``.csv``, ``.json``, ``.yaml`` or ``.yml``; JSON may be an MSD or nnU-Net dataset.json.
        root: Folder of the images of an nnU-Net data set, instead of the file's folder.

    Raises:
        UsageError: the file cannot be read or is malformed.
    """
    suffix = file.suffix.lower()
    if file.is_file() and suffix not in (".csv", ".json", ".yaml", ".yml"):
        if is_image(file):
            hint = "`medseg manifest FOLDER -o cases.csv` makes one of a folder of scans and masks"
            raise wrong("this is an image, not a manifest", file, hint, "suffix")
        raise wrong(f"unknown suffix {suffix!r}", file, "use .csv, .json, .yaml or a folder", "suffix")
    text = _text(file)
    if suffix == ".csv":
        return {}, _csv_records(text, file)
    data = _parsed(text, file)
    if "cases" not in data and (_SPLIT_OF.keys() & data.keys() or "channel_names" in data):
        header, records = _dataset(data, root or file.parent, file)
    else:
        header, records = _document(data, file)
    return header, [(f"case {number}", record) for number, record in enumerate(records, start=1)]


def as_text(value: object, name: str, where: str) -> str | None:
    """A field as text; None if empty. Whole numbers in JSON are accepted as text."""
    if value is None or value == "":
        return None
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise wrong(f"{name} is {value!r:.80}, not text", where, "put it in quotes", "field")


def _text(file: Path) -> str:
    try:
        return text_of(file, most_bytes=_MOST_BYTES.get(file.suffix.lower(), 0))
    except OSError as error:
        cause = error.strerror or type(error).__name__
        raise wrong(
            f"cannot be read: {cause}", file, "give a manifest, or a folder with one", "not-found"
        ) from None
    except UnicodeDecodeError as error:
        raise wrong(f"not UTF-8 at byte {error.start}", file, "save it as UTF-8", "encoding") from None


def _csv_records(text: str, file: Path) -> list[tuple[str, Record | UsageError]]:
    first = text.lstrip().split("\n", 1)[0]
    # Column names contain no comma, semicolon or tab, so the header reveals the delimiter.
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        for row in reader:
            cells = [from_cell(cell.strip()) for cell in row]
            if any(cells):
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise wrong(
            f"not CSV: {error}", f"{file}, row {reader.line_num}", "correct the quotes", "csv"
        ) from None
    if not rows:
        raise wrong("it is empty", file, "add a header and at least one case", "empty")
    header = _header(rows[0][1])
    channels = _channels(header, file)
    records: list[tuple[str, Record | UsageError]] = []
    for number, row in rows[1:]:
        cells = row
        while len(cells) > len(header) and not cells[-1]:  # spreadsheets end rows with empty cells
            cells = cells[:-1]
        if len(cells) != len(header):
            refusal = wrong(
                f"it has {len(cells)} cells, but the header has {len(header)}",
                f"{file}, row {number}",
                "give every row the same number of cells; quote a path that contains the delimiter",
                "csv",
            )
            records.append((f"row {number}", refusal))
            continue
        fields = dict(zip(header, cells, strict=True))
        images = [fields.pop(name) for name in channels]
        while len(images) > 1 and not images[-1]:  # a case may have fewer channels than others
            images.pop()
        records.append((f"row {number}", {**fields, "image": images if any(images) else ""}))
    return records


def _header(cells: list[str]) -> list[str]:
    """The names of the columns, in medseg's spelling and without empty ones at the end."""
    header = [spellings.column(cell) for cell in cells]
    while header and not header[-1]:
        header.pop()
    return header


def _channels(header: list[str], file: Path) -> list[str]:
    """The names of the image columns in channel order, after checking the header."""
    repeated = [name for name, times in Counter(header).items() if times > 1]
    if repeated:
        raise wrong(f"column {repeated[0]!r} is repeated", f"{file}, row 1", "rename or remove one", "column")
    unknown = [name for name in header if name not in FIELDS and not _CHANNEL.fullmatch(name)]
    if unknown:
        known = f"rename or remove it; known columns: {', '.join(FIELDS)}, image_2, ..."
        raise wrong(f"unknown column {unknown[0]!r}", f"{file}, row 1", known, "column")
    further = sorted((name for name in header if _CHANNEL.fullmatch(name)), key=lambda name: int(name[6:]))
    required = ["id", "image", *(f"image_{number}" for number in range(2, len(further) + 2))]
    missing = [name for name in required if name not in header]
    if missing:
        raise wrong(f"column {missing[0]!r} is missing", f"{file}, row 1", "add it", "column")
    return ["image", *further]


class _TextLoader(PlainLoader):
    """YAML loader that reads every plain scalar except null as text: 001 keeps its zeros, no stays no."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the type of PyYAML
        key: [(tag, pattern) for tag, pattern in resolvers if tag.endswith(":null")]
        for key, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _parsed(text: str, file: Path) -> Record:
    try:
        data = json_data(text) if file.suffix.lower() == ".json" else yaml_data(text, _TextLoader)
    except ValueError as error:
        raise wrong(f"not valid {file.suffix[1:]}: {error}", file, "correct the syntax", "syntax") from None
    if isinstance(data, list):
        return {"cases": _listed(data)}
    if not isinstance(data, dict):
        raise wrong(
            "it is neither a mapping nor a list of cases",
            file,
            f"write the keys {', '.join(_HEADER)}",
            "syntax",
        )
    return data


def _listed(cases: list[object]) -> list[object]:
    """The cases of a document that is a list; if none has an id, ids come from the names of the images."""
    records = [case for case in cases if isinstance(case, dict)]
    if len(records) < len(cases) or not all("image" in case and "id" not in case for case in records):
        return cases
    return [
        {"id": name} | case
        for name, case in zip(_ids([_first_image(case) for case in records]), records, strict=True)
    ]


def _document(data: Record, file: Path) -> tuple[Record, list[Record]]:
    unknown = [name for name in data if name not in _HEADER]
    if unknown:
        raise wrong(f"unknown key {unknown[0]!r}", file, f"known keys: {', '.join(_HEADER)}", "unknown-field")
    header = {name: as_text(data.get(name), name, str(file)) for name in _HEADER if name != "cases"}
    return dict(header), _list(data, "cases", file)


def _list(data: Record, key: str, file: Path) -> list[Record]:
    found = data.get(key) or []
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise wrong(f"{key} is not a list of mappings", file, f"write {key} as a list of cases", "syntax")
    return found


def _dataset(data: Record, root: Path, file: Path) -> tuple[Record, list[Record]]:
    header = {
        name: data.get(name) if isinstance(data.get(name), str) else "" for name in ("name", "description")
    }
    _check_lists(data, file)
    return header, _nnunet(data, root, file) if "channel_names" in data else _msd(data, file)


def _check_lists(data: Record, file: Path) -> None:
    """Refuses a list of cases under an unknown key, which would be left out silently."""
    for key, value in data.items():
        entries = value if isinstance(value, list) else []
        if key not in _SPLIT_OF and any(isinstance(entry, dict) and "image" in entry for entry in entries):
            known = ", ".join(_SPLIT_OF)
            raise wrong(
                f"unknown list of cases {key!r}", file, f"rename it to one of: {known}", "unknown-field"
            )


_SPLIT_OF = {"training": "train", "validation": "val", "test": "test", "testing": "test"}


def _msd(data: Record, file: Path) -> list[Record]:
    """Records of an MSD data set or a MONAI datalist; several channels are a list or one 4D file.

    ``training``, ``validation``, ``test`` and ``testing`` list cases; MSD's ``test`` lists images only.
    Of the training cases with a ``fold`` the lowest fold is for validation, as in MONAI's Auto3DSeg by
    default, if there is no list of validation cases.

    Source: dataset.json of the ten tasks, http://medicaldecathlon.com (Antonelli et al. 2022,
    doi:10.1038/s41467-022-30695-9); monai.data.load_decathlon_datalist.
    """
    records: list[Record] = []
    for key, split in _SPLIT_OF.items():
        for entry in _list(data, key, file) if key != "test" else _tests(data):
            records.append(
                {"image": entry.get("image"), "label": entry.get("label"), "split": split}
                | ({"fold": entry["fold"]} if "fold" in entry and split == "train" else {})
            )
    _apply_folds(records, file)
    ids = _ids([_first_image(record) for record in records])
    return [{"id": name, **record} for name, record in zip(ids, records, strict=True)]


def _tests(data: Record) -> list[Record]:
    """The entries of ``test``, which may be images alone."""
    tests = data.get("test")
    entries = tests if isinstance(tests, list) else []
    return [entry if isinstance(entry, dict) else {"image": entry} for entry in entries]


def _apply_folds(records: list[Record], file: Path) -> None:
    """Moves the lowest of several folds to split val, with a notice."""
    folds = sorted({str(record["fold"]) for record in records if "fold" in record}, key=lambda f: (len(f), f))
    divided = len(folds) > 1 and not any(record["split"] == "val" for record in records)
    for record in records:
        fold = record.pop("fold", None)
        if divided and fold is not None and str(fold) == folds[0]:
            record["split"] = "val"
    if divided:
        text = f"fold {folds[0]} of the folds {', '.join(folds)} is split val, the others are train"
        notify("fold-validation", text, path=file, remedy="edit the splits of the manifest for another fold")


def _first_image(record: Record) -> str:
    image = record["image"]
    return str((image[0] if isinstance(image, list) and image else image) or "")


def _ids(images: list[str]) -> list[str]:
    """Ids from file names; if these are not unique, from folders, or from whole paths."""
    names = [_stem(image) for image in images]
    if len(set(names)) == len(names):
        return names
    parents = [PurePosixPath(image).parent.name for image in images]
    if all(parents) and len(set(parents)) == len(parents):
        return parents
    return ["_".join((*PurePosixPath(image).parent.parts, _stem(image))) for image in images]


def _nnunet(data: Record, root: Path, file: Path) -> list[Record]:
    """Records of an nnU-Net v2 raw data set: imagesTr/<case>_0000<ending>, labelsTr/<case><ending>, imagesTs.

    Source: documentation/dataset_format.md of MIC-DKFZ/nnUNet. ``labelsTs`` is not part of the
    format but common; if it has a file for the case, that is its label.
    """
    names, ending = data["channel_names"], data.get("file_ending")
    if not isinstance(names, dict) or not names or not isinstance(ending, str):
        raise wrong("channel_names or file_ending is not in nnU-Net's format", file, "correct it", "nnunet")
    records: list[Record] = []
    for part, split in (("Tr", "train"), ("Ts", "test")):
        folder = root / f"images{part}"
        suffix = f"_0000{ending}"
        found = sorted(p.name for p in folder.glob(f"*{suffix}")) if folder.is_dir() else []
        for name in (n.removesuffix(suffix) for n in found if not n.startswith(".")):
            images = [f"images{part}/{name}_{channel:04d}{ending}" for channel in range(len(names))]
            label: str | None = f"labels{part}/{name}{ending}"
            if part == "Ts" and not (root / str(label)).exists():
                label = None
            records.append({"id": name, "image": images, "label": label, "split": split})
    expected, trained = data.get("numTraining"), sum(record["split"] == "train" for record in records)
    missing = [f"{part}/" for part in ("imagesTr", "labelsTr") if not (root / part).is_dir()]
    if missing and (expected or trained):
        raise wrong(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing beside dataset.json",
            file,
            "put the scans into imagesTr/ as CASE_0000 and the masks into labelsTr/ as CASE, "
            f"both ending in {ending}",
            "nnunet",
        )
    if isinstance(expected, int) and expected != trained:
        raise wrong(
            f"numTraining is {expected}, but imagesTr has {trained} cases named CASE_0000{ending}",
            file,
            "add the missing files, or correct numTraining or file_ending",
            "nnunet",
        )
    return records


def _stem(name: str) -> str:
    name = name.rsplit("/", 1)[-1]
    name = name[:-3] if name.lower().endswith(".gz") else name
    return name.rsplit(".", 1)[0]


def wrong(problem: str, where: str | Path, remedy: str, reason: str) -> UsageError:
    """An error about a manifest; its reason code starts with ``manifest-``."""
    return UsageError(problem, where=where, remedy=remedy, reason=f"manifest-{reason}")
