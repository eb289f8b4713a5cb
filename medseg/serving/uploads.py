"""Files that a client sends: written to a temporary folder as they arrive, within limits of size and time."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from medseg.errors import InputRefused, MedsegError, UsageError
from medseg.serving.limits import Limits

SUFFIXES = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".mha")
"""Files that hold a whole image. Headers of detached files are not accepted: they name other files."""
_MOST_NAME = 1000


@dataclass(frozen=True)
class UploadedFile:
    """A file that was received.

    Attributes:
        field: Name of the form's field.
        name: Name given by the client; only for messages.
        path: Where it is, under a name of the server's own with the suffix.
        sha256: Hexadecimal SHA-256 of its content.
    """

    field: str
    name: str
    path: Path
    sha256: str


@dataclass(frozen=True)
class Form:
    """The fields and the files of a form."""

    fields: dict[str, str] = field(default_factory=dict)
    files: tuple[UploadedFile, ...] = ()

    def file(self, *names: str) -> UploadedFile | None:
        """The first file of a field of these names; None if there is none."""
        return next((each for each in self.files if each.field in names), None)


def suffix_of(name: str) -> str:
    """The suffix of an image file, one of `SUFFIXES`.

    Raises:
        UsageError: it has none (``upload-format``).
    """
    found = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), None)
    if found is None:
        raise UsageError(
            f"cannot receive {name[-60:]!r}: its suffix is not that of a whole image",
            remedy=f"send one of {', '.join(SUFFIXES)}",
            reason="upload-format",
        )
    return found


def json_object(text: str | bytes) -> dict[str, object]:
    """The JSON object in a text that a client sent; an empty text is an empty object.

    Raises:
        UsageError: it is something else (``params``).
    """
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UsageError("the parameters are not a JSON object", remedy="send {}", reason="params")
    return value


async def body_chunks(request: Request, limits: Limits, most: int) -> AsyncIterator[bytes]:
    """The body of a request as it arrives.

    Args:
        request: Its body has not been read.
        limits: Times and rate.
        most: Most bytes.

    Raises:
        InputRefused: the body is larger (``upload-size``) or slower (``upload-slow``) than allowed.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most:
        raise _too_large(most)
    stream, received, start = request.stream(), 0, 0.0
    while True:
        try:
            chunk = await asyncio.wait_for(anext(stream), limits.idle_seconds)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise _too_slow() from None
        if not chunk:  # the end
            return
        # From the first piece: before it, and after the last one, it may be the server that is busy.
        start = start or time.monotonic()
        received += len(chunk)
        if received > most:
            raise _too_large(most)
        seconds = time.monotonic() - start
        if seconds > limits.idle_seconds and received < limits.slowest_bytes_per_second * seconds:
            raise _too_slow()
        yield chunk


async def receive_form(request: Request, folder: Path, limits: Limits, *, dicom: bool = False) -> Form:
    """The form in a request; its files are in ``folder``.

    Args:
        request: A request with a multipart body; one without a body is an empty form.
        folder: A temporary folder for this request.
        limits: What may be sent.
        dicom: Whether files without a suffix of `SUFFIXES` are taken for DICOM.

    Raises:
        InputRefused: too large or too slow (``upload-size``, ``upload-slow``).
        UsageError: not a form (``upload-form``), or a file of another format (``upload-format``).
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        async for _ in body_chunks(request, limits, limits.field_bytes):
            raise _not_a_form("the request has a body, but not one of type multipart/form-data")
        return Form()
    receiver = _Receiver(folder, limits, dicom=dicom)
    try:
        parser = MultipartParser(options[b"boundary"], receiver.callbacks())
        async for chunk in body_chunks(request, limits, limits.upload_bytes):
            parser.write(chunk)
        parser.finalize()
    except FormParserError:
        raise _not_a_form("the form is damaged") from None
    finally:
        receiver.close()
    return receiver.form()


class _Receiver:
    """Writes the parts of a form as they are parsed."""

    def __init__(self, folder: Path, limits: Limits, *, dicom: bool) -> None:
        self._folder, self._limits, self._dicom = folder, limits, dicom
        self._fields: dict[str, str] = {}
        self._files: list[UploadedFile] = []
        self._headers: dict[str, bytes] = {}
        self._header, self._value = b"", b""
        self._name, self._text = "", b""
        self._file_name: str | None = None
        self._out: IO[bytes] | None = None
        self._path, self._digest = Path(), hashlib.sha256()

    def callbacks(self) -> Any:
        """What the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
        }

    def form(self) -> Form:
        return Form(dict(self._fields), tuple(self._files))

    def close(self) -> None:
        if self._out is not None:
            self._out.close()

    def _begin(self) -> None:
        if len(self._files) + len(self._fields) >= self._limits.files:
            raise InputRefused(
                f"the form has more than {self._limits.files} parts",
                remedy="send fewer files at a time",
                reason="upload-size",
            )
        self._headers, self._header, self._value = {}, b"", b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]
        self._check_header()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self._header) + len(self._value) > 8 * _MOST_NAME or len(self._headers) > 16:
            raise _not_a_form("a part of the form has too many headers")

    def _header_end(self) -> None:
        self._headers[self._header.decode("latin-1").lower()] = self._value
        self._header, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", b""))
        self._name = options.get(b"name", b"").decode(errors="replace")[:_MOST_NAME]
        given = options.get(b"filename")
        self._file_name = None if given is None else given.decode(errors="replace")[-_MOST_NAME:]
        self._text = b""
        if self._file_name is None:
            return
        try:
            suffix = suffix_of(self._file_name)
        except MedsegError:
            if not self._dicom:
                raise
            suffix = ".dcm"
        self._path = self._folder / f"{len(self._files):05d}-{secrets.token_hex(8)}{suffix}"
        self._digest, self._out = hashlib.sha256(), self._path.open("xb")

    def _data(self, data: bytes, start: int, end: int) -> None:
        part = data[start:end]
        if self._out is not None:
            self._digest.update(part)
            self._out.write(part)
            return
        self._text += part
        if len(self._text) > self._limits.field_bytes:
            raise _too_large(self._limits.field_bytes)

    def _end(self) -> None:
        if self._out is None or self._file_name is None:
            self._fields[self._name] = self._text.decode(errors="replace")
            return
        self._out.close()
        self._out = None
        digest = self._digest.hexdigest()
        self._files.append(UploadedFile(self._name, self._file_name, self._path, digest))


def _too_large(most: int) -> InputRefused:
    return InputRefused(
        f"the upload is larger than {most / (1 << 20):.0f} MB",
        remedy="crop or compress the scan, or start the server with a larger --max-upload",
        reason="upload-size",
    )


def _too_slow() -> InputRefused:
    return InputRefused(
        "the upload was given up: it stopped or was too slow",
        remedy="send it again over a faster connection",
        reason="upload-slow",
    )


def _not_a_form(problem: str) -> UsageError:
    return UsageError(
        problem,
        remedy="send the fields and files as a form: multipart/form-data with a boundary",
        reason="upload-form",
    )
