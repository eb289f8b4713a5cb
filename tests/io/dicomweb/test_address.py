"""Addresses of DICOMweb: both forms of a path, and what is refused without quoting a password."""

import contextlib
from pathlib import Path

import pytest

from medseg.errors import MedsegError, UsageError
from medseg.inference.case_reading import CaseReading
from medseg.io.dicomweb.address import DicomwebAddress, is_address, written
from medseg.io.dicomweb.address_list import listed_series
from medseg.io.dicomweb.local_copies import LocalCopies
from medseg.io.path_checks import existing
from medseg.system.notices import collect_notices

SERIES = "studies/1.2.3/series/1.2.4"


@pytest.mark.parametrize(
    ("text", "service"),
    [
        (f"dicomweb://pacs.example/dicom-web/{SERIES}", "https://pacs.example/dicom-web"),
        (f"dicomweb+https://pacs.example:8443/{SERIES}", "https://pacs.example:8443"),
        (f"dicomweb+http://127.0.0.1:8042/dicom-web/{SERIES}/", "http://127.0.0.1:8042/dicom-web"),
        (f"DICOMWEB://h/a/b.c/d_e/{SERIES}", "https://h/a/b.c/d_e"),
        (f"dicomweb+http://[::1]:8042/{SERIES}", "http://[::1]:8042"),
    ],
)
def test_an_address_is_its_service_and_uids_also_as_a_path(text: str, service: str):
    for given in (text, Path(text)):
        assert is_address(given)
        address = DicomwebAddress.parse(given)
        assert (address.service, address.study, address.series) == (service, "1.2.3", "1.2.4")
        assert DicomwebAddress.parse(Path(str(address))) == address
    assert written(Path(str(address))) == str(address)


def test_a_study_is_an_address_without_a_series():
    address = DicomwebAddress.parse("dicomweb://h/studies/1.2.3")
    assert (address.study, address.series, str(address)) == ("1.2.3", "", "dicomweb://h/studies/1.2.3")


@pytest.mark.parametrize("text", ["scan.nii.gz", "/dicomweb/x", "https://h/studies/1", "dicomweb", "a:/b"])
def test_other_paths_are_no_addresses(text: str):
    assert not is_address(text)
    assert written(Path(text)) == str(Path(text))


@pytest.mark.parametrize(
    "text",
    [
        "dicomweb://h/dicom-web",
        "dicomweb://h/studies/1.2.3/series",
        "dicomweb://h/studies/1.2.3/series/1.2.4/instances/1.2.5",
        "dicomweb://h/studies/1.02/series/1.2",
        f"dicomweb://h/studies/1.2/series/1.{'2' * 63}",
        "dicomweb://h/../studies/1.2/series/1.3",
        "dicomweb://h:99999/studies/1.2/series/1.3",
        "dicomweb://h h/studies/1.2/series/1.3",
        "dicomweb://h/studies/1.2/series/1.3?token=canary",
        "dicomweb://h/studies/1.2/series/1.3#canary",
        "dicomweb://h/dicom%2fweb/studies/1.2/series/1.3",
    ],
)
def test_malformed_addresses_are_refused(text: str):
    for given in (text, Path(text)):
        with pytest.raises(UsageError) as caught:
            DicomwebAddress.parse(given)
        assert caught.value.reason == "dicomweb-address"
        assert "dicomweb://HOST" in str(caught.value)
        assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "user", ["reader:canary@", "canary@", "reader:can/ary@", "reader:canary@x@", "a:canary%40@"]
)
def test_a_password_in_an_address_is_refused_and_not_quoted(user: str):
    text = f"dicomweb://{user}h/{SERIES}"
    for given in (text, Path(text)):
        with pytest.raises(UsageError) as caught:
            DicomwebAddress.parse(given)
        assert caught.value.reason == "dicomweb-credentials"
        assert "MEDSEG_DICOMWEB_PASSWORD" in str(caught.value)
        assert "canary" not in f"{caught.value} {caught.value.where}"
        assert "reader" not in f"{caught.value} {caught.value.where}"


@pytest.mark.parametrize(
    "text", ["https://reader:canary@h/x", "http://h/x?token=canary", "dicomweb://a:canary@h/x"]
)
def test_commands_that_read_files_alone_do_not_quote_passwords_of_addresses(text: str):
    with pytest.raises(Exception, match="address") as caught:
        existing(Path(text))
    assert "canary" not in f"{caught.value} {caught.value.where}"


@pytest.mark.parametrize(
    ("text", "readable"),
    [
        ("dicomweb+http://pacs.example/dicom-web", True),
        ("dicomweb+http://192.0.2.7:8042/dicom-web", True),
        ("dicomweb+http://[2001:db8::1]:8042/dicom-web", True),
        ("dicomweb+http://localhost.pacs.example", True),
        ("dicomweb+http://127.0.0.1:8042/dicom-web", False),
        ("dicomweb+http://127.8.8.8", False),
        ("dicomweb+http://[::1]:8042", False),
        ("dicomweb+http://localhost:8042", False),
        ("dicomweb://pacs.example/dicom-web", False),
    ],
)
def test_what_leaves_this_machine_unencrypted_is_mentioned(tmp_path, monkeypatch, text, readable):
    """Once for a batch, and for each scan of ``segment``."""
    monkeypatch.setattr(LocalCopies, "fetch", lambda self, paths: [])
    (tmp_path / "series.txt").write_text(f"{text}/{SERIES}\n{text}/studies/1.2.3/series/1.2.5\n")
    with collect_notices() as batch:
        assert len(listed_series(tmp_path / "series.txt")) == 2
    with collect_notices() as single, contextlib.suppress(MedsegError):
        CaseReading([f"{text}/{SERIES}"]).volumes(1)
    for notices in (batch, single):
        assert [each.reason for each in notices] == ["unencrypted"] * readable
