"""Foreign hosts, foreign pages and wrong tokens are refused, and guesses are counted."""

from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("python_multipart")

from support.served import in_process, scans

from medseg.errors import UsageError
from medseg.serving.access_control import TokenCheck
from medseg.serving.settings import ServerSettings

TOKEN = "a-token-of-24-characters"


@pytest.fixture
def local(tmp_path):
    with in_process(tmp_path / "temporary") as pair:
        yield pair[0]


@pytest.fixture
def remote(tmp_path):
    with in_process(tmp_path / "temporary", host="0.0.0.0", token=TOKEN) as pair:
        yield pair[0]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "a@127.0.0.1x", "[::"]
)
def test_foreign_hosts_are_refused(local, host):
    response = local.get("/info/", headers={"Host": host})
    assert (response.status_code, response.json()["reason"]) == (403, "foreign-host")


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000", "127.0.0.1:9000"]
)
def test_this_machine_is_answered_by_its_names_and_through_a_tunnel(local, host):
    assert local.get("/info/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "http://127.0.0.1:8000.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_requests_of_foreign_pages_are_refused(local, headers):
    for method, place in (
        ("GET", "/info/"),
        ("POST", "/infer/threshold?image=a"),
        ("PUT", "/session/"),
        ("OPTIONS", "/"),
    ):
        response = local.request(method, place, headers=headers)
        assert (response.status_code, response.json()["reason"]) == (403, "foreign-origin")
        assert not any(name.startswith("access-control") for name in response.headers)


def test_its_own_pages_may_ask(local):
    headers = {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}
    response = local.get("/info/", headers=headers)
    assert response.status_code == 200
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cross-origin-resource-policy"] == "same-origin"


def test_numbers_and_allowed_names_are_answered_where_every_address_is_served(tmp_path):
    with in_process(tmp_path / "t", host="0.0.0.0", token=TOKEN, allowed_hosts=("scans.ward",)) as (
        client,
        _,
    ):
        given = {"Authorization": f"Bearer {TOKEN}"}
        for host, status in (("192.0.2.7:8000", 200), ("scans.ward:8000", 200), ("evil.example", 403)):
            assert client.get("/info/", headers={"Host": host, **given}).status_code == status


def test_the_token_is_needed_and_accepted_in_three_ways(remote):
    for place in (
        "/info/",
        "/datastore/?output=all",
        "/nowhere",
        f"/{TOKEN[:-1]}/info/",
        f"/x/{TOKEN}/info/",
    ):
        response = remote.get(place)
        assert (response.status_code, response.json()["reason"]) == (401, "token")
        assert TOKEN not in response.text
    assert remote.get("/info/", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert remote.get(f"/{TOKEN}/info/").status_code == 200
    assert remote.get("/auth/").json() == {"enabled": True}
    assert remote.get(f"/{TOKEN}/auth/").json() == {"enabled": False}
    login = remote.post("/auth/token", data={"username": "me", "password": TOKEN, "grant_type": "password"})
    assert login.json() == {"access_token": TOKEN, "token_type": "bearer"}
    headers = {"Authorization": "bearer " + login.json()["access_token"]}
    assert remote.get("/auth/token/valid", headers=headers).status_code == 200
    assert remote.get("/auth/token/valid").status_code == 401


def test_guessing_is_stopped_for_the_right_token_too(remote):
    answers = [remote.get(f"/guess-{number}/info/").status_code for number in range(30)]
    assert answers == [401] * 20 + [429] * 10
    response = remote.get(f"/{TOKEN}/info/")
    assert (response.status_code, response.json()["reason"]) == (429, "token-guesses")
    assert int(response.headers["retry-after"]) > 0


def test_passwords_count_as_guesses(remote):
    answers = [remote.post("/auth/token", data={"password": str(number)}).status_code for number in range(25)]
    assert answers == [401] * 20 + [429] * 5


def test_guesses_of_one_address_do_not_stop_another_and_memory_is_bounded():
    check = TokenCheck(TOKEN, guesses=2)
    for number in range(10_000):
        check.count_wrong(f"address {number}")
    assert len(check._wrong) <= 4096
    for _ in range(3):
        check.count_wrong("a")
    with pytest.raises(UsageError):
        check.check_address("a")
    check.check_address("b")


def test_every_address_but_this_machines_own_gets_a_token():
    assert ServerSettings().token is None
    assert ServerSettings(host="localhost").token is None
    one, other = ServerSettings(host="0.0.0.0"), ServerSettings(host="192.0.2.7")
    assert len(one.token) >= 32
    assert one.token != other.token
    assert other.url(8000) == f"http://192.0.2.7:8000/{other.token}"
    assert ServerSettings().url(8000) == "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    "token", ["", "short", "x" * 15, "with/slash/and/more", "with space and more text", "ä" * 20]
)
def test_weak_tokens_are_refused(token):
    with pytest.raises(UsageError) as refused:
        ServerSettings(token=token)
    assert refused.value.reason == "weak-token"


def test_a_websocket_is_closed(local):
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), local.websocket_connect("/info/"):
        pass


def test_output_lies_in_the_data_folder_or_beside_the_manifest(tmp_path: Path):
    folder = scans(tmp_path / "data")
    assert ServerSettings(data=folder).output_folder == folder / "medseg-serve"
    assert ServerSettings(data=folder / "cases.csv").output_folder == folder / "medseg-serve"
    assert ServerSettings(data=folder, output=tmp_path).output_folder == tmp_path
    assert ServerSettings().output_folder is None
