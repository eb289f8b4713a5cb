"""The cases of a batch: the rows of a manifest, or the scans in a folder."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medseg.batch_processing.folder_search import FolderSearch, absolute
from medseg.datasets.layouts.case_naming import distinct, safe
from medseg.datasets.manifest import Case, read_rows
from medseg.errors import MedsegError, UsageError
from medseg.io import formats
from medseg.io.dicomweb.address import DicomwebAddress, is_address
from medseg.io.dicomweb.address_list import listed_series
from medseg.system.notices import notify

_LONGEST_BYTES = 180
# File systems take 255 bytes; suffixes and names of labels are appended.


@dataclass(frozen=True)
class Item:
    """One case.

    Attributes:
        id: Names the output files; unique even if upper and lower case are not distinguished.
        images: Absolute paths, one per channel; or the address of a series, as a path.
        patient: Id of the patient from the manifest; in a folder the first folder above the scan, such as
            ``p1`` for ``p1/2020/ct.nii.gz``; empty if there is none.
        study: Study of the case from the manifest; in a folder the second of these folders, such as ``2020``;
            empty if there is none.
        error: What is wrong with its row of the manifest; such a case has no images.
    """

    id: str
    images: tuple[Path, ...] = ()
    patient: str = ""
    study: str = ""
    error: MedsegError | None = None


def items(source: Path, *, root: Path | None = None, without: Path | None = None) -> tuple[Item, ...]:
    """The cases of a manifest or a folder.

    A malformed row becomes a case with an error, so that it does not stop the others. ``_1``, ``_2`` are
    appended to repeated ids, with a warning.

    Args:
        source: A CSV, JSON or YAML manifest; a folder of scans, DICOM series and image files at any
            depth; a folder with a ``dataset.json``; one scan; the ``dicomweb://`` address of a study or a
            series, or a ``.txt`` file with one of them per line.
        root: Folder that the paths of a manifest are relative to, instead of the manifest's own root.
        without: A folder that is not searched: the outputs.

    Raises:
        UsageError: the manifest cannot be read, or ``source`` does not exist or holds no case (``no-cases``).

    Errors of a DICOMweb server that is asked for the series of a study are those of
    :func:`medseg.io.dicomweb.retrieval.list_study`.
    """
    if is_address(source) or (source.suffix.lower() == ".txt" and source.is_file()):
        found = [_remote(address) for address in listed_series(source)]
    elif source.is_dir() and not (source / "dataset.json").is_file():
        found = [
            Item(safe(name), (path,), *_person(path, source))
            for name, path in FolderSearch(source, without).scans()
        ]
    elif source.suffix.lower() in (".csv", ".json", ".yaml", ".yml") or source.is_dir():
        found = [_item(place, name, row) for place, name, row in read_rows(source, root=root)]
    elif source.exists():
        found = [Item(safe(formats.stem(source)), (absolute(source),))]
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


def _remote(address: DicomwebAddress) -> Item:
    """A series of a server; its UID names the outputs, and the study is its UID."""
    return Item(address.series, (Path(str(address)),), study=address.study)


def _person(path: Path, source: Path) -> tuple[str, str]:
    """The patient and the study of a scan by the folders above it; empty if there are none."""
    top = absolute(source)
    above = path.relative_to(top).parts[:-1] if path.is_relative_to(top) else ()
    return above[0] if above else "", above[1] if len(above) > 1 else ""


def _item(place: str, name: str, row: Case | UsageError) -> Item:
    if isinstance(row, MedsegError):
        return Item(safe(name or place), error=row)
    return Item(row.id, tuple(absolute(path) for path in row.images), row.patient, row.study or "")


def _short(name: str) -> str:
    """The name; the end of one that is too long for files is replaced by a digest."""
    if len(name.encode()) <= _LONGEST_BYTES:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name.encode()[: _LONGEST_BYTES - 9].decode(errors='ignore')}_{digest}"


def _with_unique_ids(found: Sequence[Item], source: Path) -> Iterator[Item]:
    found = [replace(item, id=_short(item.id)) for item in found]
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
        yield replace(item, id=name)
