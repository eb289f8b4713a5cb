"""Uploads are bounded in size, time and number while they arrive."""

import asyncio
import hashlib
import time
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("python_multipart")

from starlette.requests import Request
from support.served import form, in_process

from medseg.errors import MedsegError
from medseg.serving.case_queue import CaseQueue
from medseg.serving.limits import Limits
from medseg.serving.uploads import json_object, receive_form, suffix_of


def request_of(chunks: list[bytes], headers: dict[str, str], *, pause: float = 0.0) -> Request:
    """A request whose body arrives in these pieces; after the last one the client is silent."""
    left = list(chunks)

    async def receive() -> dict[str, object]:
        if not left:
            await asyncio.sleep(pause)
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.request", "body": left.pop(0), "more_body": True}

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request(
        {"type": "http", "method": "PUT", "path": "/", "headers": raw, "query_string": b""}, receive
    )


def received(request: Request, folder: Path, **limits: float):
    return asyncio.run(receive_form(request, folder, Limits(**limits)))


def refused(request: Request, folder: Path, **limits: float) -> str:
    with pytest.raises(MedsegError) as error:
        received(request, folder, **limits)
    return error.value.reason


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_files_and_fields_arrive_whole_in_pieces_of_any_size(tmp_path, size):
    content = bytes(range(256)) * 40 + b"\r\n------" * 9
    body, headers = form({"params": '{"a": 1}', "b": "ü"}, {"file": ("../x.nii.gz", content)})
    chunks = [body[first : first + size] for first in range(0, len(body), size)]
    got = received(request_of(chunks, headers), tmp_path)
    (file,) = got.files
    assert got.fields == {"params": '{"a": 1}', "b": "ü"}
    assert file.path.parent == tmp_path
    assert file.path.read_bytes() == content
    assert file.sha256 == hashlib.sha256(content).hexdigest()


def test_a_body_that_announces_too_much_is_refused_before_it_is_read(tmp_path):
    body, headers = form({}, {"file": ("x.nii.gz", b"x" * 5000)})
    request = request_of([body], headers | {"content-length": "5001"})
    assert refused(request, tmp_path, upload_bytes=5000) == "upload-size"
    assert list(tmp_path.iterdir()) == []


def test_a_body_that_grows_too_large_is_refused_when_it_does(tmp_path):
    body, headers = form({}, {"file": ("x.nii.gz", b"x" * 100_000)})
    chunks = [body[first : first + 1000] for first in range(0, len(body), 1000)]
    assert refused(request_of(chunks, headers), tmp_path, upload_bytes=5000) == "upload-size"
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 5000


def test_large_fields_and_many_parts_are_refused(tmp_path):
    body, headers = form({"params": "x" * 5000}, {})
    assert refused(request_of([body], headers), tmp_path, field_bytes=1000) == "upload-size"
    body, headers = form({str(number): "" for number in range(20)}, {})
    assert refused(request_of([body], headers), tmp_path, files=10) == "upload-size"
    body, headers = form({}, {"file": ("x" * 100_000 + ".nii", b"")})
    assert refused(request_of([body], headers), tmp_path) == "upload-form"


def test_a_client_that_falls_silent_is_given_up(tmp_path):
    body, headers = form({}, {"file": ("x.nii.gz", b"x" * 5000)})
    assert refused(request_of([body[:900]], headers, pause=60), tmp_path, idle_seconds=0.05) == "upload-slow"


def test_a_client_that_drips_is_given_up(tmp_path):
    body, headers = form({}, {"file": ("x.nii.gz", b"x" * 5000)})
    left = [body[:900]]

    async def drip() -> dict[str, object]:
        await asyncio.sleep(0.1)
        return {"type": "http.request", "body": left.pop() if left else b"x", "more_body": True}

    request = Request(request_of([], headers).scope, drip)
    limits = {"idle_seconds": 0.5, "slowest_bytes_per_second": 1 << 30}
    assert refused(request, tmp_path, **limits) == "upload-slow"


def test_a_client_is_not_blamed_for_a_server_that_is_busy(tmp_path):
    """Its body has arrived, but the server gets round to it only after the longest pause."""
    body, headers = form({"params": "{}"}, {})
    for left in ([], [body]):

        async def receive(left=left) -> dict[str, object]:
            time.sleep(0.1)
            piece = left.pop() if left else b""
            return {"type": "http.request", "body": piece, "more_body": bool(piece)}

        sent = headers if left else {}
        request = Request(request_of([], sent).scope, receive)
        assert received(request, tmp_path, idle_seconds=0.05).files == ()


@pytest.mark.parametrize("name", ["x.nhdr", "x.mhd", "x.hdr", "x.zip", "x", ".nii.gz.exe", "x.pt"])
def test_headers_of_other_files_and_foreign_formats_are_not_received(tmp_path, name):
    body, headers = form({}, {"file": (name, b"x")})
    assert refused(request_of([body], headers), tmp_path) == "upload-format"
    assert list(tmp_path.iterdir()) == []


def test_suffixes_in_capitals():
    assert suffix_of("SCAN.NII.GZ") == ".nii.gz"


@pytest.mark.parametrize("text", ["[", "[]", "1", "null", "[" * 100_000])
def test_parameters_that_are_no_object(text):
    with pytest.raises(MedsegError) as error:
        json_object(text)
    assert error.value.reason == "params"


def test_one_case_at_a_time_and_a_queue_that_ends():
    inside, most, refusals = 0, 0, 0

    def work() -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        for _ in range(1000):
            pass
        inside -= 1
        return 1

    async def all_at_once() -> list[object]:
        queue = CaseQueue(waiting=3)
        first = await asyncio.gather(*(queue.run(work) for _ in range(10)), return_exceptions=True)
        assert await queue.run(work) == 1  # it is empty again
        return first

    results = asyncio.run(all_at_once())
    refusals = sum(isinstance(each, MedsegError) and each.reason == "server-busy" for each in results)
    assert (most, results.count(1), refusals) == (1, 4, 6)


def test_the_case_of_a_client_that_left_is_not_begun():
    async def leave() -> list[str]:
        async def is_gone() -> bool:
            return True

        begun: list[str] = []
        with pytest.raises(ConnectionAbortedError):
            await CaseQueue(1).run(lambda: begun.append("x"), is_gone=is_gone)
        return begun

    assert asyncio.run(leave()) == []


def test_a_full_queue_is_an_answer_that_says_when_to_come_back(tmp_path):
    with in_process(tmp_path / "t", limits=Limits(waiting=-1)) as (client, _):
        response = client.post("/infer/threshold?image=a")
        assert (response.status_code, response.json()["reason"]) == (503, "server-busy")
        assert response.headers["retry-after"] == "10"
