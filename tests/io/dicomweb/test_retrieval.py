"""Series of a DICOMweb server: copied byte by byte, or refused with the reason; nothing is left behind."""

import base64
import shutil
import threading

import numpy as np
import pytest
from support.dicomweb_server import multipart, served
from support.series import a_volume, edit, put

import medseg
from medseg.errors import MedsegError
from medseg.io.dicomweb import connection, retrieval
from medseg.io.dicomweb.address import DicomwebAddress
from medseg.io.dicomweb.local_copies import LocalCopies
from medseg.io.dicomweb.retrieval import fetch_series, list_study

VARIABLES = ("USER", "PASSWORD", "TOKEN")


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch, tmp_path):
    for name in VARIABLES:
        monkeypatch.delenv(f"MEDSEG_DICOMWEB_{name}", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server(tmp_path):
    medseg.write_dicom_series(a_volume(), tmp_path / "series")
    with served(tmp_path / "series") as fake:
        yield fake


@pytest.fixture
def copies(tmp_path):
    return LocalCopies(tmp_path / "copies")


def refusal(server, copies, address=None) -> MedsegError:
    with pytest.raises(MedsegError) as caught:
        copies.fetch([str(address or server.address)])
    assert caught.value.where == str(address or server.address)
    assert caught.value.remedy
    assert len(str(caught.value).splitlines()) <= 3
    assert not list(copies._parent.iterdir())  # nothing is left
    return caught.value


def test_a_series_is_copied_byte_by_byte_and_read_as_from_its_folder(server, copies):
    (folder,) = copies.fetch([str(server.address)])
    copied = sorted(path.read_bytes() for path in folder.iterdir())
    assert copied == sorted(path.read_bytes() for path in server.series.iterdir())
    scan, original = medseg.read(folder), medseg.read(server.series)
    np.testing.assert_array_equal(scan.array, original.array)
    assert scan.grid == original.grid
    (named,) = copies.named_sources([scan])
    assert "copies" not in str(named.source.path)
    copies.close()
    assert not folder.exists()


def test_a_study_with_one_series_stands_for_it(server, copies, tmp_path):
    study = DicomwebAddress("http", server.address.host, "/dicom-web", server.study)
    assert list_study(study) == (server.address,)
    folder = tmp_path / "copy"
    folder.mkdir()
    assert len(list(fetch_series(study, folder).iterdir())) == 5


@pytest.mark.parametrize("page", [1, 2, 3, 7, 8, None])
def test_the_series_of_a_study_are_listed_however_few_the_server_names_at_a_time(server, page):
    (one,) = server.listing()
    uids = [f"1.2.{number}" for number in range(1, 8)]
    listing = [{**one, "0020000E": {"vr": "UI", "Value": [uid]}} for uid in uids]
    listing[3]["00080060"] = {"vr": "CS", "Value": ["SEG"]}
    server.listing, server.page = lambda: listing, page
    study = DicomwebAddress("http", server.address.host, "/dicom-web", server.study)
    assert [each.series for each in list_study(study)] == [*uids[:3], *uids[4:]]


def test_series_that_a_server_does_not_list_are_missed(server):
    """As Orthanc's LimitFindResults leaves them out, whatever the offset."""
    study = DicomwebAddress("http", server.address.host, "/dicom-web", server.study)
    server.series_of_study = 1
    assert len(list_study(study)) == 1
    server.series_of_study = 2
    with pytest.raises(MedsegError, match="1 of the 2 series") as caught:
        list_study(study)
    assert caught.value.reason == "dicomweb-incomplete"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500, 501])
def test_a_server_without_a_search_for_studies_does_not_say_how_many_series_there_are(server, status):
    study = DicomwebAddress("http", server.address.host, "/dicom-web", server.study)
    server.studies_status = status
    assert list_study(study) == (server.address,)


@pytest.mark.parametrize("counts", [["many"], [{}], "no list"])
def test_a_number_of_series_that_is_none_is_not_said(server, counts):
    study = DicomwebAddress("http", server.address.host, "/dicom-web", server.study)
    server.series_of_study = counts
    assert list_study(study) == (server.address,)


def test_a_connection_that_is_lost_at_the_number_of_series_is_an_error(server, monkeypatch):
    from dicomweb_client.web import DICOMwebClient
    from requests.exceptions import ConnectionError as Lost

    def lost(*args, **query):
        raise Lost

    monkeypatch.setattr(DICOMwebClient, "search_for_studies", lost)
    with pytest.raises(MedsegError) as caught:
        list_study(DicomwebAddress("http", server.address.host, "/dicom-web", server.study))
    assert caught.value.reason == "dicomweb-unreachable"


@pytest.mark.parametrize("page", [1, 2, None])
@pytest.mark.parametrize("status", [204, 404])
def test_an_offset_past_the_last_series_may_be_answered_as_not_found(server, page, status):
    (one,) = server.listing()
    listing = [{**one, "0020000E": {"vr": "UI", "Value": [uid]}} for uid in ("1.2.1", "1.2.2")]
    server.listing, server.page, server.past_end = lambda: listing, page, status
    study = DicomwebAddress("http", server.address.host, "/dicom-web", server.study)
    assert [each.series for each in list_study(study)] == ["1.2.1", "1.2.2"]
    server.listing = list  # no series at all: the first page is what does not exist
    with pytest.raises(MedsegError) as caught:
        list_study(study)
    assert caught.value.reason == "dicomweb-not-found"


def test_an_error_at_a_later_page_is_not_the_end(server):
    server.past_end = 500
    with pytest.raises(MedsegError) as caught:
        list_study(DicomwebAddress("http", server.address.host, "/dicom-web", server.study))
    assert caught.value.reason == "dicomweb-answer"


def test_a_server_that_lists_series_without_end_is_given_up(server, monkeypatch):
    monkeypatch.setattr(retrieval, "MOST_SERIES", 5)
    (one,) = server.listing()
    listing = [{**one, "0020000E": {"vr": "UI", "Value": [f"1.2.{number}"]}} for number in range(1, 8)]
    server.listing, server.page = lambda: listing, 1
    with pytest.raises(MedsegError) as caught:
        list_study(DicomwebAddress("http", server.address.host, "/dicom-web", server.study))
    assert caught.value.reason == "dicomweb-size"


def test_a_single_object_without_an_envelope_is_taken(server, copies):
    server.kind, server.listed = "application/dicom", 1
    server.body = next(server.series.iterdir()).read_bytes()
    (folder,) = copies.fetch([str(server.address)])
    assert [path.read_bytes() for path in folder.iterdir()] == [server.body]


def test_unknown_uids_are_not_found(server, copies):
    for study, series in ((server.study, "1.2.3"), ("1.2.3", server.uid), ("1.2.3", "")):
        address = DicomwebAddress("http", server.address.host, "/dicom-web", study, series)
        assert refusal(server, copies, address).reason == "dicomweb-not-found"
    server.status = 404
    assert refusal(server, copies).reason == "dicomweb-not-found"


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "unauthorized"), (403, "unauthorized"), (500, "answer")]
)
def test_refusals_of_the_server_have_reasons(server, copies, status, reason):
    server.status = status
    error = refusal(server, copies)
    assert (error.reason, error.exit_code) == (f"dicomweb-{reason}", 5)
    assert str(status) in str(error)


def test_answers_that_are_no_dicomweb_are_refused(server, copies):
    for kind, body in (("text/html", b"<html>"), ("multipart/related", b"x"), (server.kind, b"<html>")):
        server.kind, server.body = kind, body
        assert refusal(server, copies).reason == "dicomweb-answer"
    server.listing = lambda: [["no", "object"]]
    assert refusal(server, copies).reason == "dicomweb-answer"


def test_a_server_that_is_not_there_cannot_be_reached(server, copies, caplog):
    address = DicomwebAddress("http", "127.0.0.1:9", "/dicom-web", "1.2", "1.3")
    error = refusal(server, copies, address)
    assert (error.reason, error.exit_code) == ("dicomweb-unreachable", 5)
    assert not caplog.records  # of the libraries beneath


def test_a_connection_that_ends_early_is_interrupted(server, copies):
    for cut in (0, 40, len(server.body) // 2, len(server.body) - 8):
        server.cut = cut
        assert refusal(server, copies).reason == "dicomweb-interrupted"


def test_a_body_without_its_last_boundary_is_interrupted(server, copies):
    server.body = server.body[: len(server.body) // 2]  # of the announced length
    assert refusal(server, copies).reason == "dicomweb-interrupted"


def test_a_silent_server_is_given_up(server, copies, monkeypatch):
    monkeypatch.setattr(retrieval, "READ_SECONDS", 0.2)
    server.silent = threading.Event()
    assert refusal(server, copies).reason == "dicomweb-timeout"


def test_an_answer_that_trickles_is_given_up(server, copies, monkeypatch):
    monkeypatch.setattr(connection, "_GRACE_SECONDS", -1.0)
    monkeypatch.setattr(connection, "_LEAST_BYTES_PER_SECOND", 1 << 50)
    assert refusal(server, copies).reason == "dicomweb-timeout"


def test_a_server_without_tls_has_no_trusted_certificate(server, copies):
    address = DicomwebAddress("https", server.address.host, "/dicom-web", server.study, server.uid)
    assert refusal(server, copies, address).reason == "dicomweb-certificate"


def test_half_a_series_is_refused(server, copies):
    server.body = multipart([path.read_bytes() for path in sorted(server.series.iterdir())[:3]])
    error = refusal(server, copies)
    assert (error.reason, error.exit_code) == ("dicomweb-incomplete", 3)
    assert "3 of the 5" in str(error)
    server.body = multipart([next(server.series.iterdir()).read_bytes()] * 5)  # one object five times
    assert "1 of the 5" in str(refusal(server, copies))


def test_a_server_that_gives_no_number_is_believed(server, copies):
    server.listed = None
    (folder,) = copies.fetch([str(server.address)])
    assert len(list(folder.iterdir())) == 5


def test_objects_of_another_series_are_refused(server, copies, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(server.series, other)
    edit(other, put(SeriesInstanceUID="1.2.3.4"), slice(2, 3))
    server.body = multipart([path.read_bytes() for path in sorted(other.iterdir())])
    assert refusal(server, copies).reason == "dicomweb-mismatch"


def test_too_many_bytes_or_objects_end_the_transfer(server, copies, monkeypatch):
    monkeypatch.setattr(retrieval, "MOST_FILES", 4)
    assert refusal(server, copies).reason == "dicomweb-size"
    monkeypatch.setattr(connection, "MOST_BYTES", 2000)
    assert "MB" in str(refusal(server, copies))
    monkeypatch.setattr(connection, "_MOST_JSON_BYTES", 10)
    assert refusal(server, copies).reason == "dicomweb-size"


def test_user_and_password_are_those_of_the_environment(server, copies, monkeypatch):
    monkeypatch.setenv("MEDSEG_DICOMWEB_USER", "reader")
    with pytest.raises(MedsegError) as caught:
        copies.fetch([str(server.address)])
    error = caught.value
    assert error.reason == "dicomweb-credentials"
    monkeypatch.setenv("MEDSEG_DICOMWEB_PASSWORD", "cänary")
    copies.fetch([str(server.address)])
    sent = base64.b64encode("reader:cänary".encode()).decode()
    assert set(server.authorizations) == {f"Basic {sent}"}
    monkeypatch.setenv("MEDSEG_DICOMWEB_TOKEN", "t0ken")
    copies.fetch([str(server.address)])
    assert server.authorizations[-1] == "Bearer t0ken"


def test_a_netrc_is_used_without_them(server, copies, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login reader password canary\n")
    monkeypatch.setenv("NETRC", str(netrc))
    copies.fetch([str(server.address)])
    sent = base64.b64encode(b"reader:canary").decode()
    assert set(server.authorizations) == {f"Basic {sent}"}


def test_copies_closed_while_another_thread_fetches_are_removed(server, copies, monkeypatch):
    """As when the model of a command cannot be loaded while the scan of its first case arrives."""
    begun, go = threading.Event(), threading.Event()

    def slow(address, folder):
        begun.set()
        go.wait(30)
        (folder / "late.dcm").write_bytes(b"x")  # fails: its folder is gone
        return folder

    monkeypatch.setattr(retrieval, "fetch_series", slow)
    failed = []

    def fetch():
        try:
            copies.fetch([str(server.address)])
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=fetch)
    thread.start()
    assert begun.wait(30)
    copies.close()
    go.set()
    thread.join(30)
    assert len(failed) == 1
    assert list(copies._parent.iterdir()) == []
    with pytest.raises(RuntimeError):
        copies.fetch([str(server.address)])
    assert list(copies._parent.iterdir()) == []
