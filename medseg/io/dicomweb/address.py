"""Addresses of studies and series on a DICOMweb server. They hold no password, and need no large import."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path, PurePath
from urllib.parse import urlsplit

from medseg.errors import UsageError

_SCHEMES = {"dicomweb": "https", "dicomweb+https": "https", "dicomweb+http": "http"}
# A Path has lost one of two slashes.
_START = re.compile(r"(dicomweb(?:\+https?)?):/{1,2}(?=[^/])", re.IGNORECASE)
_PLACE = re.compile(r"(?P<root>(?:/[\w.~-]+)*)/studies/(?P<study>[\d.]+)(?:/series/(?P<series>[\d.]+))?/?")
# PS3.5 section 9.1: components without leading zeros, at most 64 characters.
_UID = re.compile(r"(?=.{1,64}$)(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*))*")
_FORM = "write dicomweb://HOST/dicom-web/studies/UID/series/UID, or dicomweb+http:// without TLS"


@dataclass(frozen=True)
class DicomwebAddress:
    """The place of a study or a series.

    Attributes:
        scheme: ``https`` or ``http``.
        host: Name or address of the server, with its port if one is given.
        root: Path of the DICOMweb service, such as ``/dicom-web``.
        study: StudyInstanceUID.
        series: SeriesInstanceUID; empty for a whole study.

    ``str()`` gives the address as users write it.
    """

    scheme: str
    host: str
    root: str
    study: str
    series: str = ""

    def __str__(self) -> str:
        start = "dicomweb" if self.scheme == "https" else "dicomweb+http"
        place = f"{start}://{self.host}{self.root}/studies/{self.study}"
        return f"{place}/series/{self.series}" if self.series else place

    @property
    def service(self) -> str:
        """The URL of the DICOMweb service."""
        return f"{self.scheme}://{self.host}{self.root}"

    @property
    def is_readable_on_the_way(self) -> bool:
        """Whether what is sent leaves this machine without encryption."""
        name = urlsplit(self.service).hostname or ""
        try:
            local = ip_address(name).is_loopback
        except ValueError:
            local = name == "localhost"
        return self.scheme == "http" and not local

    @classmethod
    def parse(cls, text: str | PurePath, *, where: str | None = None) -> DicomwebAddress:
        """The address in a text, or in a path that was made of one.

        Args:
            text: Such as ``dicomweb://host/dicom-web/studies/1.2.3/series/1.2.4``.
            where: The place of the text for messages; the text itself by default.

        Raises:
            UsageError: a user name or password is in it (``dicomweb-credentials``), or it is not such an
                address (``dicomweb-address``). The message never quotes a password.
        """
        given = _text(text)
        start = _START.match(given)
        if "@" in given:
            raise UsageError(
                "an address must not hold a user name or password",
                where=where or (f"{start[1]}://…" if start else None),
                remedy="set MEDSEG_DICOMWEB_USER and MEDSEG_DICOMWEB_PASSWORD instead, or use a netrc",
                reason="dicomweb-credentials",
            )
        shown = where or re.split(r"[?#]", given)[0]
        if start is None:
            raise _wrong("this is no dicomweb:// address", shown)
        try:
            parts = urlsplit(f"//{given[start.end() :]}")
            host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else (parts.hostname or "")
            host += f":{parts.port}" if parts.port else ""
        except ValueError:
            raise _wrong("its host or port is not valid", shown) from None
        place = _PLACE.fullmatch(parts.path)
        if not re.fullmatch(r"[\w.-]+(:\d+)?|\[[\da-f:.]+\](:\d+)?", host) or parts.query or parts.fragment:
            raise _wrong("its host is not valid, or something follows '?' or '#'", shown)
        if place is None or {".", ".."} & set(place["root"].split("/")):
            raise _wrong("it does not end with /studies/UID or /studies/UID/series/UID", shown)
        for uid in (place["study"], place["series"]):
            if uid is not None and not _UID.fullmatch(uid):
                raise _wrong(f"{uid[:70]} is not a UID", shown)
        scheme = _SCHEMES[start[1].lower()]
        return cls(scheme, host, place["root"], place["study"], place["series"] or "")


def is_address(text: str | PurePath) -> bool:
    """Whether a text, or a path that was made of one, begins as a DICOMweb address."""
    return _START.match(_text(text)) is not None


def written(path: str | Path) -> str:
    """A path as text; an address has its two slashes again."""
    return _START.sub(r"\1://", _text(path)) if is_address(path) else str(path)


def _text(text: str | PurePath) -> str:
    return text if isinstance(text, str) else text.as_posix()


def _wrong(problem: str, where: str) -> UsageError:
    return UsageError(problem, where=where, remedy=_FORM, reason="dicomweb-address")
