"""A server of models for tests, with clients that speak as MONAI Label's do."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.parser import BytesParser
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient
from support.processes import environment

import medseg
from medseg.phantom.thorax import Thorax, default_grid
from medseg.serving.application import application
from medseg.serving.server import service_of
from medseg.serving.service import Service
from medseg.serving.settings import ServerSettings

GRID = default_grid((6.0, 6.0, 8.0), "LPS")
LIMIT = "----------lImIt_of_THE_fIle_eW_$"
"""The boundary that the module of 3D Slicer uses."""


def scans(folder: Path, *names: str) -> Path:
    """A data folder with phantoms, each with less of its lungs than the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        scan = Thorax().scan(GRID)
        array = scan.array.copy()
        array[:, :, : 12 * number] = 40  # HU of soft tissue
        medseg.write(medseg.Volume(array, scan.grid), folder / f"{name}.nii.gz")
    return folder


@contextmanager
def in_process(temporary: Path, **settings: Any) -> Iterator[tuple[TestClient, Service]]:
    """A client of an application in this process, on 127.0.0.1, with the threshold model by default."""
    chosen = ServerSettings(**{"models": ("threshold",), **settings})
    temporary.mkdir(parents=True, exist_ok=True)
    service = service_of(chosen, temporary)
    app = application(service, chosen.hosts())
    with TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=True) as client:
        yield client, service


_WITH_LIMITS = """
from functools import partial
from medseg.serving import limits
limits.Limits = partial(limits.Limits, **{limits!r})
from medseg.cli import main
main()
"""


@contextmanager
def started(
    log: Path, *arguments: object, limits: Mapping[str, float] | None = None, **variables: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address and the process of a real ``medseg serve``; it is ended by SIGTERM.

    Args:
        log: File for what it prints to standard error.
        arguments: Of the command.
        limits: Those that the command has no options for.
        variables: Environment variables.
    """
    code = ("-m", "medseg") if limits is None else ("-c", _WITH_LIMITS.format(limits=dict(limits)))
    command = [sys.executable, *code, "serve", "--port", "0", *map(str, arguments)]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, env=environment(**variables), cwd=log.parent
        )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        assert url.startswith("http://"), log.read_text()
        yield url, process
    finally:
        process.terminate()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def form(fields: dict[str, str], files: dict[str, tuple[str, bytes]]) -> tuple[bytes, dict[str, str]]:
    """A body and its headers, encoded as the module of 3D Slicer does."""
    lines: list[bytes] = []
    for name, value in fields.items():
        lines += [f"--{LIMIT}".encode(), f'Content-Disposition: form-data; name="{name}"'.encode(), b""]
        lines.append(value.encode())
    for name, (file_name, content) in files.items():
        head = f'Content-Disposition: form-data; name="{name}"; filename="{file_name}"'
        lines += [
            f"--{LIMIT}".encode(),
            head.encode(),
            b"Content-Type: application/octet-stream",
            b"",
            content,
        ]
    body = b"".join(line + b"\r\n" for line in [*lines, f"--{LIMIT}--".encode(), b""])
    return body, {"content-type": f"multipart/form-data; boundary={LIMIT}"}


def answered(kind: str, body: bytes) -> tuple[dict[str, Any], str, bytes]:
    """The parameters, the file's name and its content in a multipart answer."""
    message = BytesParser().parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
    parts = {part.get_param("name", header="content-disposition"): part for part in message.get_payload()}
    image = parts["image"]
    return json.loads(parts["params"].get_payload()), image.get_filename(), image.get_payload(decode=True)


def get(url: str) -> Any:
    """The JSON at an address."""
    with urllib.request.urlopen(url) as answer:
        return json.loads(answer.read())
