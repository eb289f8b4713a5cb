"""A DICOMweb server for tests that answers as each test wants, also wrongly."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pydicom

from medseg.io.dicomweb.address import DicomwebAddress

BOUNDARY = "b0undary"


@dataclass
class FakeServer:
    """What a server of one series answers.

    Attributes:
        port: Its port on 127.0.0.1.
        series: The files of the series, and what is listed and sent.
        status: HTTP status of all answers.
        listed: Number of objects that it lists; None leaves it out.
        body: Body of the series' answer.
        cut: The connection ends after so many bytes of it.
        silent: It never answers with the series.
        kind: Content type of the series' answer.
        series_of_study: Number of series that it says the study has; None: it does not say.
        studies_status: HTTP status of its answer to a search for studies.
        page: Most series that it lists at a time; None: all, whatever the offset.
        past_end: HTTP status of its answer to an offset past the last series; None: it is not treated apart.
        stored: Its answer to a mask: status and JSON.
        masks: UIDs of the masks that it has.
        authorizations: What requests brought as credentials.
        posted: Bodies of masks.
    """

    port: int
    series: Path
    status: int = 200
    listed: int | None = 0
    body: bytes = b""
    cut: int | None = None
    silent: threading.Event | None = None
    kind: str = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
    series_of_study: int | None = None
    studies_status: int = 200
    page: int | None = None
    past_end: int | None = None
    stored: tuple[int, Any] = (200, {})
    masks: list[str] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    posted: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        files = sorted(self.series.iterdir())
        self.listed, self.body = len(files), multipart([path.read_bytes() for path in files])
        head = pydicom.dcmread(files[0], stop_before_pixels=True)
        self.study, self.uid = str(head.StudyInstanceUID), str(head.SeriesInstanceUID)

    @property
    def address(self) -> DicomwebAddress:
        """The address of the series."""
        return DicomwebAddress("http", f"127.0.0.1:{self.port}", "/dicom-web", self.study, self.uid)

    def listing(self) -> list[dict[str, Any]]:
        one = {"00080060": {"vr": "CS", "Value": ["CT"]}, "0020000E": {"vr": "UI", "Value": [self.uid]}}
        if self.listed is not None:
            one["00201209"] = {"vr": "IS", "Value": [self.listed]}
        return [one]


def multipart(contents: list[bytes], boundary: str = BOUNDARY) -> bytes:
    """A body with these parts."""
    head = f"\r\n--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(head + content for content in contents) + f"\r\n--{boundary}--\r\n".encode()


@contextmanager
def served(series: Path) -> Iterator[FakeServer]:
    """A server of one series, on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fake.authorizations.append(self.headers.get("Authorization", ""))
            path, _, query = self.path.partition("?")
            asked = dict(parse_qsl(query))
            if fake.status != 200:
                self.answer(b"", "text/plain", fake.status)
            elif path.endswith(f"/studies/{fake.study}/series"):
                listing, first = fake.listing(), int(asked.get("offset", 0))
                if first >= len(listing) and fake.past_end is not None:
                    self.answer(b"", "text/plain", fake.past_end)
                    return
                listing = listing if fake.page is None else listing[first : first + fake.page]
                self.answer(json.dumps(listing).encode(), "application/dicom+json")
            elif path.endswith("/studies") and fake.studies_status != 200:
                self.answer(b"", "text/plain", fake.studies_status)
            elif path.endswith("/studies") and fake.series_of_study is not None:
                one = {"0020000D": {"vr": "UI", "Value": [fake.study]}}
                one["00201206"] = {"vr": "IS", "Value": [fake.series_of_study]}
                self.answer(json.dumps([one]).encode(), "application/dicom+json")
            elif path.endswith("/instances") and asked.get("SOPInstanceUID") in fake.masks:
                one = {"00080018": {"vr": "UI", "Value": [asked["SOPInstanceUID"]]}}
                self.answer(json.dumps([one]).encode(), "application/dicom+json")
            elif path.endswith(f"/series/{fake.uid}"):
                if fake.silent is not None:
                    fake.silent.wait(60)
                    return
                self.answer(fake.body, fake.kind)
            else:
                self.answer(b"[]", "application/dicom+json")

        def do_POST(self) -> None:
            size = self.headers.get("Content-Length")
            fake.posted.append(self.rfile.read(int(size)) if size else b"")
            status, facts = fake.stored
            self.answer(json.dumps(facts).encode(), "application/dicom+json", status)

        def answer(self, body: bytes, kind: str, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: fake.cut] if "json" not in kind else body)

        def log_message(self, *args: Any) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake = FakeServer(server.server_address[1], series)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield fake
    finally:
        if fake.silent is not None:
            fake.silent.set()
        server.shutdown()
        server.server_close()
