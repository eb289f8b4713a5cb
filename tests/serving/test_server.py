"""A real server process: many clients, slow ones, two users at once, and its end."""

import json
import socket
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")

from support.served import answered, form, get, scans, started

import medseg
from medseg.errors import UsageError
from medseg.serving.server import serve
from medseg.serving.settings import ServerSettings


def segment(url: str, scan: Path) -> np.ndarray:
    body, headers = form({"params": "{}"}, {"file": (scan.name, scan.read_bytes())})
    request = urllib.request.Request(f"{url}/infer/threshold?image=", body, headers)
    with urllib.request.urlopen(request) as answer:
        _, name, content = answered(answer.headers["content-type"], answer.read())
    path = scan.parent / f"answer-{name}"
    path.write_bytes(content)
    return np.asarray(medseg.read(path).array)


def test_a_server_under_many_hands_and_its_end(tmp_path):
    folder = scans(tmp_path / "data", "a", "b")
    sent = scans(tmp_path / "sent", "a", "b")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    log = tmp_path / "log.txt"
    with started(log, folder, "--model", "threshold", TMPDIR=str(temporary)) as (url, process):
        assert get(f"{url}/info/")["datastore"]["total"] == 2
        # Two users at once get their own masks.
        with ThreadPoolExecutor(2) as users:
            masks = list(users.map(lambda name: segment(url, sent / f"{name}.nii.gz"), ("a", "b")))
        expected = [medseg.segment(sent / f"{name}.nii.gz", model="threshold").array for name in ("a", "b")]
        assert not np.array_equal(*expected)
        assert all(np.array_equal(*pair) for pair in zip(masks, expected, strict=True))
        # 200 short connections, most of which end without a request.
        parts = urlsplit(url)
        address = (parts.hostname, parts.port)
        short = [socket.create_connection(address) for _ in range(200)]
        for number, each in enumerate(short):
            if number % 2:
                each.sendall(b"GET /info/ HTTP/1.1\r\nHo")
            each.close()
        with ThreadPoolExecutor(20) as clients:
            assert len(list(clients.map(get, [f"{url}/datastore/"] * 200))) == 200
        # A client that leaves in the middle of an upload.
        with socket.create_connection(address) as left:
            left.sendall(
                b"POST /infer/threshold HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
                b'Content-Disposition: form-data; name="file"; filename="x.nii"\r\n\r\nabc'
            )
        assert get(f"{url}/info/")["name"] == "medseg"
        (own,) = temporary.iterdir()
        assert own.stat().st_mode & 0o077 == 0
        # A session is open when the server is told to end.
        body, headers = form({}, {"files": ("a.nii.gz", (sent / "a.nii.gz").read_bytes())})
        put = urllib.request.Request(f"{url}/session/", body, headers, method="PUT")
        with urllib.request.urlopen(put) as answer:
            assert json.loads(answer.read())["session_id"]
        assert any(own.rglob("*.nii.gz"))
        process.terminate()
        assert process.wait() == 143
    assert list(temporary.iterdir()) == []
    assert "Traceback" not in log.read_text()
    assert not (folder / "medseg-serve" / "scans").exists()


def test_slow_headers_are_given_up(tmp_path):
    import asyncio

    import uvicorn

    from medseg.serving.http_protocol import protocol

    async def app(scope, receive, send):
        await asyncio.sleep(0.6)  # longer than the limit of headers
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=protocol(0.3), ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    running = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    running.start()
    try:
        address = listener.getsockname()
        for start in (b"", b"GET / HTTP/1.1\r\nHost: x\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT"):
            with socket.create_connection(address) as client:
                client.sendall(start)
                got = b""
                while part := client.recv(1000):
                    got += part
                assert got.endswith(b"ok") == (b"\r\n\r\n" in start)
    finally:
        server.should_exit = True
        running.join()


def test_a_remote_server_prints_its_address_with_the_token(tmp_path):
    with started(tmp_path / "log.txt", "--model", "threshold", "--host", "0.0.0.0") as (url, _):
        port, token = urlsplit(url).port, urlsplit(url).path.strip("/")
        assert len(token) >= 32
        assert get(f"http://127.0.0.1:{port}/{token}/info/")["name"] == "medseg"
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(f"http://127.0.0.1:{port}/info/")
        assert refused.value.code == 401


def test_a_port_in_use_and_a_second_server_on_a_folder_are_refused(tmp_path):
    folder = scans(tmp_path / "data", "a")
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UsageError) as refused:
        serve(ServerSettings(models=("threshold",), port=taken.getsockname()[1]))
    assert refused.value.reason == "address"
    with started(tmp_path / "log.txt", folder, "--model", "threshold"):
        with pytest.raises(UsageError) as refused:
            serve(ServerSettings(models=("threshold",), data=folder, port=0))
        assert refused.value.reason == "in-use"


def test_without_the_packages_the_extra_is_named(monkeypatch):
    import sys

    from medseg.errors import ResourceError

    monkeypatch.setitem(sys.modules, "python_multipart", None)
    with pytest.raises(ResourceError) as refused:
        serve(ServerSettings())
    assert refused.value.reason == "missing-extra"
    assert "medseg[serve]" in refused.value.remedy


def test_two_models_of_one_name_are_refused(tmp_path):
    with pytest.raises(UsageError) as refused:
        serve(ServerSettings(models=("threshold", "threshold"), port=0))
    assert refused.value.reason == "usage"
