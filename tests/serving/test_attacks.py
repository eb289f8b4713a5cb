"""Attacks on one real server process: each is refused or bounded, and none leaves a traceback."""

import asyncio
import http.client
import io
import json
import socket
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")

from support.served import answered, form, scans, started

import medseg
from medseg.serving.limits import Limits

TOKEN = "a-token-of-24-characters"
GIVEN = {"Authorization": f"Bearer {TOKEN}"}
SHORTER = {"field_bytes": 64 << 10, "idle_seconds": 2.0, "header_seconds": 4.0, "waiting": 3, "uploads": 8}
LIMITS = Limits(upload_bytes=4 << 20, **SHORTER)
SECRET = b"secret of another folder"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with a token on 127.0.0.1, a data folder, and a secret beside it."""
    whole = tmp_path_factory.mktemp("attacked")
    data, temporary, log = scans(whole / "data", "a", "b"), whole / "temporary", whole / "log.txt"
    temporary.mkdir()
    (whole / "secret.nii.gz").write_bytes(SECRET)
    variables = {"TMPDIR": str(temporary), "MEDSEG_SERVE_TOKEN": TOKEN}
    arguments = (data, "--model", "threshold", "--max-upload", LIMITS.upload_bytes >> 20)
    with started(log, *arguments, limits=SHORTER, **variables) as (url, process):
        yield SimpleNamespace(
            address=(urlsplit(url).hostname, urlsplit(url).port),
            data=data,
            temporary=temporary,
            log=log,
            process=process,
        )
    assert list(temporary.iterdir()) == []


@pytest.fixture(autouse=True)
def unharmed(server):
    """After each attack the server answers, holds nothing of it, and has printed no traceback."""
    before = sorted(path for path in server.data.rglob("*") if path.is_file())
    yield
    assert ask(server, "GET", "/info/")[0] == 200
    assert server.process.poll() is None
    printed = server.log.read_text()
    assert not any(word in printed for word in ("Traceback", "Error", "Exception", TOKEN)), printed
    assert sorted(path for path in server.data.rglob("*") if path.is_file()) == before
    assert [path for path in server.temporary.rglob("*") if path.is_file()] == []


def ask(server, method, place, body=None, headers=None, *, source=None, given=GIVEN):
    """Status, headers and body of the answer to a request with the token."""
    connection = http.client.HTTPConnection(*server.address, timeout=60, source_address=source)
    try:
        connection.request(method, place, body, {**given, **(headers or {})})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def reason(answer) -> tuple[int, str]:
    return answer[0], json.loads(answer[2])["reason"]


def raw(server, request: bytes) -> bytes:
    """What the server sends until it closes the connection."""
    with socket.create_connection(server.address, timeout=60) as client:
        got = b""
        with suppress(ConnectionError):  # what was answered before is still to be read
            client.sendall(request)
        with suppress(ConnectionError):
            while part := client.recv(1 << 16):
                got += part
    return got


def head(place: str, *lines: str, method: str = "GET") -> bytes:
    fixed = (f"{method} {place} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {TOKEN}")
    return "\r\n".join((*fixed, *lines, "", "")).encode("latin-1")


PAGES = (
    ("GET", "/info/"),
    ("GET", "/"),
    ("GET", "/datastore/image?image=a"),
    ("POST", "/infer/threshold?image=a"),
    ("PUT", "/datastore/label?image=a"),
    ("PUT", "/session/"),
    ("POST", "/train/"),
    ("DELETE", "/train/"),
    ("OPTIONS", "/info/"),
)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Host": "evil.example"}, "foreign-host"),
        ({"Host": "127.0.0.1.evil.example"}, "foreign-host"),
        ({"Origin": "http://evil.example"}, "foreign-origin"),
        ({"Origin": "null"}, "foreign-origin"),
        ({"Sec-Fetch-Site": "cross-site"}, "foreign-origin"),
    ],
)
def test_foreign_hosts_and_pages_get_nothing_although_they_have_the_token(server, headers, expected):
    for method, place in PAGES:
        answer = ask(server, method, place, headers=headers)
        assert reason(answer) == (403, expected), place
        assert not any(name.lower().startswith("access-control") for name in answer[1])


def test_a_host_in_the_request_line_or_named_twice_is_no_way_round(server):
    for request in (
        head("http://evil.example/info/", "Host: evil.example", "Connection: close"),
        head("/info/", "Host: evil.example", "Connection: close"),
        head("http://evil.example/info/", "Connection: close"),
    ):
        status = raw(server, request).split(b" ", 2)[1]
        assert status in (b"400", b"403", b"404"), request


TRAVERSALS = (
    *("/page/../../secret.nii.gz", "/page/..%2f..%2fsecret.nii.gz", "/page/%2e%2e/app.js"),
    *("//etc/passwd", "/../../../../etc/passwd", "/page/....//....//etc/passwd", "/%2fetc%2fpasswd"),
    *("/session/../../secret.nii.gz", "/session/x/view/..%2f..%2f..%2fsecret.nii.gz"),
    *("/datastore/image?image=../secret", "/datastore/image?image=..%2fsecret.nii.gz"),
    *("/datastore/image?image=/etc/passwd", "/datastore/image?image=a%00.nii", "/datastore/image?image=.."),
    *("/datastore/label?label=../../secret&tag=final", "/datastore/label?label=a&tag=../../secret"),
    *("/datastore/image?image=%c0%ae%c0%ae%c0%afsecret", "/datastore/image?image=file:///etc/passwd"),
)


@pytest.mark.parametrize("place", TRAVERSALS)
def test_paths_that_lead_elsewhere_lead_nowhere(server, place):
    answer = raw(server, head(place, "Connection: close"))
    assert answer.split(b" ", 2)[1] in (b"400", b"404")
    assert SECRET not in answer
    assert b"root:" not in answer


def test_ids_and_names_that_lead_elsewhere_write_nothing(server):
    scan = (server.data / "a.nii.gz").read_bytes()
    for name in ("../evil", "..%2fevil", "/tmp/evil", "a/../evil", "%00", ".evil"):
        body, headers = form({"params": "{}"}, {"file": ("../../evil.nii.gz", scan)})
        assert ask(server, "PUT", f"/datastore/?image={name}", body, headers)[0] == 400
        body, headers = form({"params": "{}"}, {"label": ("../../evil.nii.gz", scan)})
        assert reason(ask(server, "PUT", f"/datastore/label?image=a&tag={name}", body, headers))[0] == 400
        assert ask(server, "POST", f"/infer/{name}?image=a")[0] in (400, 404)


BROKEN = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200,  # a TLS hello
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",  # no host
    b"\0" * 1000 + b"\r\n\r\n",
    b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
    head("/train/", "Content-Length: -1", method="POST") + b"{}",
    head("/train/", "Content-Length: 1, 2", method="POST") + b"{}",
    head("/train/", "Content-Length: " + "9" * 40, "Connection: close", method="POST") + b"{}",
    head("/train/", "Transfer-Encoding: chunked", "Connection: close", method="POST") + b"zz\r\n{}",
    head("/train/", "Transfer-Encoding: gzip, chunked", "Content-Length: 2", method="POST") + b"{}",
)


@pytest.mark.parametrize("request_bytes", BROKEN, ids=range(len(BROKEN)))
def test_requests_that_are_none_are_refused_and_the_connection_ends(server, request_bytes):
    answer = raw(server, request_bytes)
    assert answer.split(b" ", 2)[1:2] in ([b"400"], [b"403"], [b"404"], [b"413"], [])


def sent_until_closed(client: socket.socket, piece: bytes) -> int:
    """How many bytes can be sent before the server closes the connection; a gigabyte at most."""
    sent = 0
    try:
        while sent < 1 << 30:
            client.sendall(piece)
            sent += len(piece)
    except OSError:
        return sent
    return sent


def test_uploads_that_are_too_large_end_early(server):
    """Announced, and sent in chunks without an announcement; the server stops reading both."""
    body, headers = form({}, {"file": ("a.nii.gz", bytes(1 << 20))})
    for method, place in (
        ("POST", "/infer/threshold"),
        ("PUT", "/session/"),
        ("PUT", "/datastore/?image=new"),
        ("PUT", "/datastore/label?image=a"),
    ):
        kind = f"Content-Type: {headers['content-type']}"
        announced = head(place, kind, "Content-Length: 1099511627776", method=method)
        assert b" 413 " in raw(server, announced + body[: 1 << 16])
        with socket.create_connection(server.address, timeout=60) as client:
            client.sendall(head(place, kind, "Transfer-Encoding: chunked", method=method))
            sent = sent_until_closed(client, b"%x\r\n%b\r\n" % (len(body), body))
            assert sent < LIMITS.upload_bytes + (64 << 20)  # what the sockets of both sides hold
    for method, place in (("POST", "/train/"), ("POST", "/activelearning/first"), ("POST", "/auth/token")):
        assert reason(ask(server, method, place, b"x" * (1 << 17))) == (413, "upload-size")


def test_a_small_archive_that_unpacks_to_gigabytes_is_refused(server):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(40):
            archive.writestr(f"{number}.nii", bytes(1 << 20))
    body, headers = form({}, {"files": ("scan.zip", packed.getvalue())})
    assert len(body) < 1 << 20
    assert reason(ask(server, "PUT", "/session/", body, headers)) == (413, "upload-size")


def test_slow_clients_are_given_up_and_do_not_keep_others_out(server):
    """More clients than may upload at a time send a byte at a time, or fall silent; others only connect."""
    kind = f"Content-Type: {form({}, {})[1]['content-type']}"
    start = head("/infer/threshold", kind, "Content-Length: 99999", method="POST")

    async def slow(first: bytes, drip: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(first)
        answer = asyncio.ensure_future(reader.read())
        try:
            while drip and not answer.done():
                writer.write(drip)
                await asyncio.wait([answer], timeout=0.2)
            return await answer
        except ConnectionError:
            return b""
        finally:
            writer.close()

    async def all_at_once() -> list[bytes]:
        uploads = [slow(start, drip) for drip in (b"x", b"") for _ in range(LIMITS.uploads)]
        headers = [slow(b"GET /info/ HTTP/1.1\r\nX: ", drip) for drip in (b"x", b"") for _ in range(30)]
        both = asyncio.gather(*uploads, *headers)
        while not both.done():
            answer = await asyncio.to_thread(ask, server, "GET", "/info/")
            assert answer[0] == 200
            await asyncio.wait([both], timeout=0.5)
        return await both

    got = asyncio.run(asyncio.wait_for(all_at_once(), 120))
    statuses = {each.split(b" ", 2)[1] for each in got[: 2 * LIMITS.uploads] if each}
    assert statuses <= {b"400", b"408", b"503"}  # a byte of no form, given up, too many at a time
    assert not any(b" 200 " in each for each in got)


def test_200_clients_at_once_are_answered_or_told_to_come_back(server):
    """Each asks for information, then for a mask; the queue has room for few of them."""

    async def one(request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        return answer

    async def crowd(request: bytes) -> list[bytes]:
        return await asyncio.wait_for(asyncio.gather(*(one(request) for _ in range(200))), 300)

    for answer in asyncio.run(crowd(head("/info/", "Connection: close"))):
        assert answer.startswith(b"HTTP/1.1 200 ")
    mask = head("/infer/threshold?image=a&output=json", "Connection: close", method="POST")
    answers = asyncio.run(crowd(mask))
    statuses = [answer.split(b" ", 2)[1] for answer in answers]
    assert set(statuses) == {b"200", b"503"}
    assert statuses.count(b"200") > LIMITS.waiting
    assert all(b"retry-after: 10" in answer.lower() for answer in answers if b" 503 " in answer[:20])


def test_two_users_at_once_get_their_own_masks(server, tmp_path):
    def mask(name: str) -> np.ndarray:
        body, headers = form({"params": "{}"}, {"file": (f"{name}.nii.gz", scan(name).read_bytes())})
        status, kind, content = ask(server, "POST", "/infer/threshold?image=", body, headers)
        assert status == 200
        _, _, image = answered(kind["content-type"], content)
        (tmp_path / f"{name}.nii.gz").write_bytes(image)
        return np.asarray(medseg.read(tmp_path / f"{name}.nii.gz").array)

    def scan(name: str):
        return server.data / f"{name}.nii.gz"

    with ThreadPoolExecutor(2) as users:
        masks = list(users.map(mask, ("a", "b")))
    expected = [medseg.segment(scan(name), model="threshold").array for name in ("a", "b")]
    assert not np.array_equal(*expected)
    assert all(np.array_equal(*pair) for pair in zip(masks, expected, strict=True))


def test_tokens_cannot_be_guessed(server):
    """From an address of its own, because the right token does not help an address that has guessed."""
    try:
        socket.create_server(("127.0.0.2", 0)).close()
    except OSError:
        pytest.skip("this machine has no second loopback address")
    source = ("127.0.0.2", 0)
    guesses = [f"{TOKEN[:-1]}{letter}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    answers = []
    for number, guess in enumerate(guesses):
        ways = (
            ("GET", f"/{guess}/info/", None, {}),
            ("GET", "/info/", None, {"Authorization": f"Bearer {guess}"}),
            ("POST", "/auth/token", f"password={guess}", {}),
        )
        method, place, body, headers = ways[number % len(ways)]
        answer = ask(server, method, place, body, headers, source=source, given={})
        assert TOKEN.encode() not in answer[2]
        answers.append(answer[0])
    assert answers == [401] * LIMITS.guesses + [429] * (len(guesses) - LIMITS.guesses)
    assert reason(ask(server, "GET", "/info/", source=source)) == (429, "token-guesses")
    assert ask(server, "GET", "/info/")[0] == 200  # the others go on working
