"""The cases of a batch: the rows of a manifest, or the scans in a folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.datasets.layouts.case_naming import distinct, safe
from medseg.datasets.manifest import read_rows
from medseg.errors import MedsegError, UsageError
from medseg.io import formats
from medseg.io.dicom.companions import Identity, SeriesFolder, grouped, identity
from medseg.system.notices import notify


@dataclass(frozen=True)
class Item:
    """One case.

    Attributes:
        id: Names the output files; unique even if upper and lower case are not distinguished.
        images: Absolute paths, one per channel.
        patient: Id of the patient; empty if unknown.
        error: What is wrong with its row of the manifest; such a case has no images.
    """

    id: str
    images: tuple[Path, ...] = ()
    patient: str = ""
    error: MedsegError | None = None


def items(source: Path, *, root: Path | None = None, without: Path | None = None) -> tuple[Item, ...]:
    """The cases of a manifest or a folder.

    A malformed row becomes a case with an error, so that it does not stop the others. ``_1``, ``_2`` are
    appended to repeated ids, with a warning.

    Args:
        source: A CSV, JSON or YAML manifest; a folder of scans, DICOM series and image files at any
            depth; a folder with a ``dataset.json``; or one scan.
        root: Folder that the paths of a manifest are relative to, instead of the manifest's own root.
        without: A folder that is not searched: the outputs.

    Raises:
        UsageError: the manifest cannot be read, or ``source`` does not exist or holds no case (``no-cases``).
    """
    if source.is_dir() and not (source / "dataset.json").is_file():
        found = [Item(safe(name), (path,)) for name, path in _scans(source, without)]
    elif source.suffix.lower() in (".csv", ".json", ".yaml", ".yml") or source.is_dir():
        found = [_item(place, name, row) for place, name, row in read_rows(source, root=root)]
    elif source.exists():
        found = [Item(safe(formats.stem(source)), (_absolute(source),))]
    else:
        raise UsageError("no such file or folder", where=source, remedy="check the path", reason="no-cases")
    if not found:
        raise UsageError(
            "no scan was found",
            where=source,
            remedy="give a folder with NIfTI, NRRD, MHA or DICOM files, or a manifest",
            reason="no-cases",
        )
    return tuple(_with_unique_ids(found, source))


def shard(found: Sequence[Item], text: str) -> tuple[Item, ...]:
    """The cases of a shard ``i/n``: every n-th from the i-th on, counted from 1.

    Raises:
        UsageError: it is not such a pair (``shard``).
    """
    first, _, count = text.partition("/")
    if not (first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
        raise UsageError(
            f"cannot parse the shard {text!r}",
            where="--shard",
            remedy="give ten runs 1/10 to 10/10",
            reason="shard",
        )
    return tuple(found[int(first) - 1 :: int(count)])


def _item(place: str, name: str, row: object) -> Item:
    if isinstance(row, MedsegError):
        return Item(safe(name or place), error=row)
    return Item(row.id, tuple(_absolute(path) for path in row.images), row.patient)  # type: ignore[attr-defined]


def _with_unique_ids(found: Sequence[Item], source: Path) -> Iterator[Item]:
    names = [item.id for item in found]
    repeated = [name for name, times in Counter(name.casefold() for name in names).items() if times > 1]
    if repeated:
        text = f"{len(repeated)} names occur more than once, such as {repeated[0]}: numbers are appended"
        notify("names-numbered", text, path=source)
    taken = {name.casefold() for name in names} - set(repeated)
    for item, name in zip(found, distinct(names), strict=True):
        if item.id.casefold() in repeated:
            while name.casefold() in taken:  # such as a, a and a_1
                name += "_"
            taken.add(name.casefold())
        yield Item(name, item.images, item.patient, item.error)


def _scans(folder: Path, without: Path | None) -> Iterator[tuple[str, Path]]:
    """Name and path of every scan: image files, and each DICOM series once."""
    skipped = None if without is None else without.resolve()
    found: list[tuple[str, Path] | SeriesFolder] = []
    deepest: set[Path] = set()
    for top, folders, names in os.walk(folder):
        if not folders:
            deepest.add(Path(top))
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and Path(top, name).resolve() != skipped
        )
        found += _in_folder([Path(top, name) for name in sorted(names) if not name.startswith(".")], folder)
    series = [each for each in found if isinstance(each, SeriesFolder)]
    places = {each.first: place for each, place in _series_places(series, folder, skipped, deepest)}
    for each in found:
        if not isinstance(each, SeriesFolder):
            yield each
        elif each.first in places:
            yield places[each.first]


def _in_folder(paths: Sequence[Path], folder: Path) -> Iterator[tuple[str, Path] | SeriesFolder]:
    """The image files in one folder by name and path, and the series in it."""
    series: dict[str, list[tuple[Path, Identity]]] = {}
    damaged: list[Path] = []
    for path in paths:
        if formats.ending(path):
            if formats.is_image(path):
                yield _name(path.with_name(formats.stem(path)), folder), _absolute(path)
        elif path.is_file() and path.name != "DICOMDIR":
            try:
                known = identity(path)
            except Exception:  # pydicom raises all kinds of errors for damaged files
                damaged.append(path)
                continue
            if known is not None:
                series.setdefault(known.series, []).append((path, known))
    # If there is a series, its reader reports the damaged files beside it.
    for path in () if series else damaged:
        yield _name(path.with_name(formats.stem(path)), folder), _absolute(path)
    for files in series.values():
        yield SeriesFolder(files[0][0], frozenset(known for _, known in files))


def _series_places(
    series: Sequence[SeriesFolder], folder: Path, without: Path | None, deepest: set[Path]
) -> Iterator[tuple[SeriesFolder, tuple[str, Path]]]:
    """Name and path of each series, by its first folder.

    A series in several folders (DIR000, DIR001 ...) has the path of their common folder if that holds
    nothing else; otherwise that of its first file, which stands for the series in folders side by side.
    """
    inside = Counter(each.first.parent for each in series)
    for group in grouped(series):
        parents = [each.first.parent for each in group]
        common = Path(os.path.commonpath(parents))
        name, first = _name(common, folder), _absolute(group[0].first)
        tail = f"_{group[0].series[-8:]}"
        if len(group) == 1:
            alone = inside[common] == 1
            place = _absolute(common) if alone and common in deepest else first
            yield group[0], (name if alone else name + tail, place)
            continue
        alone = sum(each.first.is_relative_to(common) for each in series) == len(group)
        if alone and not (without is not None and without.is_relative_to(common.resolve())):
            yield group[0], (name, _absolute(common))
        elif all(parent.parent == common for parent in parents):
            yield group[0], (name + tail, first)
        else:
            for each, parent in zip(group, parents, strict=True):
                yield each, (_name(parent, folder) + tail * (inside[parent] > 1), _absolute(each.first))


def _name(path: Path, folder: Path) -> str:
    parts = path.relative_to(folder).parts
    return "_".join(parts) or folder.resolve().name


def _absolute(path: Path) -> Path:
    # Not resolve(): images may be links into a store whose names mean nothing.
    return Path(os.path.abspath(path))  # noqa: PTH100
