"""Storing a mask on a DICOMweb server: what it does not take is an error."""

import pydicom
import pytest
from support.dicom_masks import a_mask, a_scan
from support.dicomweb_server import served

import medseg
from medseg.errors import MedsegError
from medseg.io.dicomweb.storage import store


@pytest.fixture
def mask(tmp_path):
    return medseg.write(a_mask(a_scan(tmp_path)), tmp_path / "mask.dcm", format="rtstruct")


@pytest.fixture
def server(tmp_path, mask, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with served(tmp_path / "series") as fake:
        yield fake


def failed(server, mask) -> MedsegError:
    with pytest.raises(MedsegError) as caught:
        store(mask, server.address)
    assert caught.value.where == str(server.address)
    return caught.value


def test_a_mask_is_sent_to_the_study_of_its_scan(server, mask):
    place = store(mask, server.address)
    assert place.study == server.study
    assert place.series != server.uid
    assert place.series.encode() in server.posted[0]


def test_what_the_server_does_not_take_is_an_error(server, mask):
    reference = {"vr": "UI", "Value": ["1.2.3"]}
    item = {"00081155": reference, "00081197": {"vr": "US", "Value": [0x0110]}}
    server.stored = 200, {"00081198": {"vr": "SQ", "Value": [item]}}
    assert failed(server, mask).reason == "dicomweb-store"
    assert "0x0110" in str(failed(server, mask))
    server.stored = 200, {"00081199": {"vr": "SQ", "Value": [{"00081155": reference}]}}
    assert failed(server, mask).reason == "dicomweb-store"
    for status in (404, 409, 500):
        server.stored = status, {}
        assert failed(server, mask).reason == "dicomweb-store"


DUPLICATE = {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [0x0111]}}]}}


@pytest.mark.parametrize("answer", [(409, {}), (409, DUPLICATE), (202, DUPLICATE), (200, DUPLICATE)])
def test_a_mask_that_is_there_already_counts_as_stored(server, mask, answer):
    server.stored = answer
    assert failed(server, mask).reason == "dicomweb-store"
    server.masks.append(str(pydicom.dcmread(mask).SOPInstanceUID))
    assert store(mask, server.address).study == server.study
    server.status = 500  # of the question whether it is there
    assert failed(server, mask).reason == "dicomweb-store"


def test_other_errors_keep_their_reasons(server, mask):
    server.stored = 401, {}
    assert failed(server, mask).reason == "dicomweb-unauthorized"
