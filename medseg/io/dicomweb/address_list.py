"""The series that a DICOMweb address, or a text file of them, stands for."""

from __future__ import annotations

from pathlib import Path

from medseg.errors import UsageError
from medseg.io.dicomweb.address import DicomwebAddress, is_address
from medseg.io.dicomweb.connection import mention_unencrypted
from medseg.io.dicomweb.retrieval import list_study

_MOST = 16 << 20


def listed_series(source: Path) -> list[DicomwebAddress]:
    """The series of an address, or of all addresses in a text file, each once and in order.

    Args:
        source: An address; or a file with one address a line. Empty lines, and what follows ``#``, do not
            count. A study stands for its image series.

    Raises:
        UsageError: a line is no address or holds a password, or the addresses are of several servers
            (``dicomweb-address``, ``dicomweb-credentials``); the message names the line.
            Or the file has more than 16 million characters.

    Errors of a server that is asked for the series of a study are those of
    :func:`medseg.io.dicomweb.retrieval.list_study`.
    """
    addresses = [DicomwebAddress.parse(source)] if is_address(source) else _lines(source)
    services = sorted({address.service for address in addresses})
    if len(services) > 1:
        # The credentials of one server are not for another one.
        raise UsageError(
            f"the addresses are of {len(services)} servers, such as {services[0]} and {services[1]}",
            where=source,
            remedy="write one file, and start one batch, for each server",
            reason="dicomweb-address",
        )
    for address in addresses[:1]:
        mention_unencrypted(address)
    found = [
        series for address in addresses for series in ([address] if address.series else list_study(address))
    ]
    return list(dict.fromkeys(found))


def _lines(source: Path) -> list[DicomwebAddress]:
    with source.open(encoding="utf-8-sig", errors="replace") as file:
        text = file.read(_MOST + 1)
    if len(text) > _MOST:
        raise UsageError(
            f"the file has more than {_MOST >> 20} million characters",
            where=source,
            remedy="give a list of addresses, in several files if need be",
            reason="dicomweb-address",
        )
    lines = ((number, line.partition("#")[0].strip()) for number, line in enumerate(text.splitlines(), 1))
    return [DicomwebAddress.parse(line, where=f"{source}, line {number}") for number, line in lines if line]
