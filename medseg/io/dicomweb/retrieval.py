"""Series of a DICOMweb server as files in a folder, and the series of a study."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from email.message import Message
from pathlib import Path
from typing import Any

from medseg.errors import InputRefused, MedsegError
from medseg.io.dicom import part10
from medseg.io.dicomweb.address import DicomwebAddress
from medseg.io.dicomweb.connection import (
    CONNECT_SECONDS,
    READ_SECONDS,
    connect,
    named_errors,
    not_found,
)
from medseg.io.dicomweb.multipart import BodyError, parts

# PS3.18 table 8.7.3-2; `*` leaves the pixels as they are stored, and decoders run in their own process here.
_ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_CHUNK_BYTES = 1 << 18
MOST_FILES, MOST_SERIES = 20_000, 10_000
_MODALITY, _STUDY, _SERIES = "00080060", "0020000D", "0020000E"
_SERIES_COUNT, _COUNT = "00201206", "00201209"  # NumberOf{Study,Series}Related...
_IMAGES = ("CT", "MR", "PT", "NM")
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
# Answers of a server that has no search for studies, does not allow it, or ignores its filter.
_NOT_SAID = ("dicomweb-not-found", "dicomweb-unauthorized", "dicomweb-answer", "dicomweb-size")


def list_study(address: DicomwebAddress) -> tuple[DicomwebAddress, ...]:
    """The image series (CT, MR, PT, NM) of a study, in the order of their UIDs.

    Raises:
        InputRefused: the server has no such study (``dicomweb-not-found``), lists fewer series than it has
            (``dicomweb-incomplete``), or more than 10,000 (``dicomweb-size``).

    Other errors are those of :func:`medseg.io.dicomweb.connection.named_errors`.
    """
    client, session = connect(address)
    with session, named_errors(address):
        found = list(_found(client, address))
        if not found:
            raise not_found(address)
        total = _total(client, address)
        if len(found) < total:
            raise InputRefused(
                f"the server lists {len(found)} of the {total} series that it has of the study",
                where=str(address),
                remedy="raise its limit of results, or give the addresses of the series in a text file",
                reason="dicomweb-incomplete",
            )
        uids = {_value(one, _SERIES) for one in found if _value(one, _MODALITY) in _IMAGES}
    addresses = [replace(address, series=str(uid)) for uid in sorted(map(str, uids))]
    return tuple(DicomwebAddress.parse(str(each), where=str(address)) for each in addresses)


def fetch_series(address: DicomwebAddress, folder: Path) -> Path:
    """Copies a series into an empty folder, byte by byte as the server sends it, and returns the folder.

    One piece of 256 KB is in memory at a time. Nothing is decoded: the folder is read like any other one.

    Args:
        address: A series; or a study with one image series.
        folder: An existing folder.

    Raises:
        InputRefused: no such series (``dicomweb-not-found``), a study with several (``several-series``),
            fewer objects than the server lists (``dicomweb-incomplete``), objects of another series
            (``dicomweb-mismatch``), or more than fits the limits (``dicomweb-size``).

    Other errors are those of :func:`medseg.io.dicomweb.connection.named_errors`.
    """
    if not address.series:
        address = _only_series(address)
    client, session = connect(address)
    with session, named_errors(address):
        expected = _count(client, address)
        url = f"{address.service}/studies/{address.study}/series/{address.series}"
        with session.get(
            url, headers={"Accept": _ACCEPT}, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)
        ) as answer:
            answer.raise_for_status()
            _save(answer, folder, address)
    _check(folder, address, expected)
    return folder


def _only_series(address: DicomwebAddress) -> DicomwebAddress:
    found = list_study(address)
    if len(found) != 1:
        refusal = InputRefused(
            f"the study has {len(found)} image series",
            where=str(address),
            remedy="add /series/UID, or segment the whole study with medseg batch",
            reason="several-series",
        )
        refusal.details = tuple(map(str, found[:20]))
        raise refusal
    return found[0]


def _count(client: Any, address: DicomwebAddress) -> int | None:
    """How many objects of the series the server has; None if it does not say."""
    found = _found(
        client,
        address,
        search_filters={"SeriesInstanceUID": address.series},
        fields=["NumberOfSeriesRelatedInstances"],
    )
    own = next((one for one in found if _value(one, _SERIES) == address.series), None)
    if own is None:
        raise not_found(address)
    number = _value(own, _COUNT)
    return int(number) if number is not None else None


def _total(client: Any, address: DicomwebAddress) -> int:
    """How many series of the study the server has; 0 if it does not say.

    A server may allow only to search within a study: then it has listed the series before, and answers this
    with an error.
    """
    try:
        with named_errors(address):
            found = client.search_for_studies(
                search_filters={"StudyInstanceUID": address.study}, fields=["NumberOfStudyRelatedSeries"]
            )
            counts = [_value(one, _SERIES_COUNT) for one in found if _value(one, _STUDY) == address.study]
            return int(counts[0] or 0) if counts else 0
    except MedsegError as error:
        if error.reason not in _NOT_SAID:
            raise
        return 0


def _found(client: Any, address: DicomwebAddress, **query: Any) -> Iterator[Any]:
    """The series of a study that the server finds, page by page, each once.

    Servers may limit how many they list at a time (PS3.18 section 8.3.4.4), and need not say so. So more are
    asked for until none is new, which is also how a server that knows no ``offset`` answers. Some answer an
    ``offset`` past the end with 404.
    """
    seen: set[str] = set()
    offset = 0
    while page := _page(client, address, offset, query):
        offset += len(page)
        fresh = {str(_value(one, _SERIES)): one for one in page}
        fresh = {uid: one for uid, one in fresh.items() if uid not in seen}
        if not fresh:
            return
        seen |= fresh.keys()
        if len(seen) > MOST_SERIES:
            raise InputRefused(
                f"the study has more than {MOST_SERIES} series",
                where=str(address),
                remedy="give the addresses of the series that are meant",
                reason="dicomweb-size",
            )
        yield from fresh.values()


def _page(client: Any, address: DicomwebAddress, offset: int, query: dict[str, Any]) -> list[Any]:
    try:
        with named_errors(address):
            found: list[Any] = client.search_for_series(address.study, offset=offset or None, **query)
            return found
    except InputRefused as error:
        if offset and error.reason == "dicomweb-not-found":
            return []
        raise


def _value(found: Any, tag: str) -> Any:
    """The first value of an attribute in DICOM JSON (PS3.18 F.2); None without one."""
    return next(iter(found.get(tag, {}).get("Value", [])), None)


def _save(answer: Any, folder: Path, address: DicomwebAddress) -> None:
    """Writes each part of an answer to a file of its own."""
    header = Message()
    header["Content-Type"] = answer.headers.get("Content-Type", "")
    pieces = answer.iter_content(_CHUNK_BYTES)
    boundary = header.get_param("boundary")
    if header.get_content_type() == "application/dicom":  # a single object, without an envelope
        with (folder / "00001.dcm").open("xb") as file:
            for piece in pieces:
                file.write(piece)
        return
    if header.get_content_type() != "multipart/related" or not isinstance(boundary, str) or not boundary:
        raise BodyError("no multipart message")
    number, out = 0, None
    try:
        for piece in parts(pieces, boundary.encode("latin-1")):
            if piece is not None:
                assert out is not None
                out.write(piece)
                continue
            number += 1
            if number > MOST_FILES:
                raise InputRefused(
                    f"the series has more than {MOST_FILES} objects",
                    where=str(address),
                    remedy="if the series really is that large, download it yourself",
                    reason="dicomweb-size",
                )
            if out is not None:
                out.close()
            out = (folder / f"{number:05d}.dcm").open("xb")
    finally:
        if out is not None:
            out.close()


def _check(folder: Path, address: DicomwebAddress, expected: int | None) -> None:
    """Refuses objects of another series, and fewer of them than the server has listed."""
    objects = set()
    for path in sorted(folder.iterdir()):
        try:
            head = part10.header(path, _UIDS)
            study, series, instance = (str(head.get(name, "")) for name in _UIDS)
        except Exception:  # any error of pydicom; the reader of the folder says what is wrong with it
            objects.add(path.name)
            continue
        if (study, series) != (address.study, address.series):
            raise InputRefused(
                "the server sent an object of another study or series",
                where=str(address),
                remedy="report it to those who run the server, and download the series another way",
                reason="dicomweb-mismatch",
            )
        objects.add(instance)
    if expected is not None and len(objects) < expected:
        raise InputRefused(
            f"the server sent {len(objects)} of the {expected} objects that it lists",
            where=str(address),
            remedy="wait until all of it has arrived there, then try again (a batch: --retry-failed)",
            reason="dicomweb-incomplete",
        )
