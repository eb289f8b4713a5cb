import os
import socket

import pytest

from medseg import io
from medseg.errors import InputRefused
from medseg.io import path_checks


def refusal(path, **options):
    with pytest.raises(InputRefused) as caught:
        io.read(path, **options)
    assert len(str(caught.value).splitlines()) <= 3
    return caught.value


def test_special_files_are_refused_without_opening_them(tmp_path):
    os.mkfifo(tmp_path / "a.nii.gz")  # opening it for reading would wait for a writer
    error = refusal(tmp_path / "a.nii.gz")
    assert (error.reason, error.problem) == ("not-a-file", "this is a named pipe, not a file or folder")
    assert "character device" in refusal("/dev/zero").problem
    (tmp_path / "b.nii").symlink_to(tmp_path / "a.nii.gz")
    assert refusal(tmp_path / "b.nii").reason == "not-a-file"


def test_a_socket_is_not_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path has at most 108 bytes
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("s.nii")
        assert "a socket" in refusal("s.nii").problem


def test_links(tmp_path):
    (tmp_path / "a.nii").symlink_to("gone.nii")
    error = refusal(tmp_path / "a.nii")
    assert (error.reason, error.problem) == ("not-found", "a link to gone.nii, which does not exist")
    (tmp_path / "loop").symlink_to("loop")
    assert refusal(tmp_path / "loop").reason == "not-found"


@pytest.mark.parametrize("name", ["missing.nii", "file/below.nii", "n" * 300, "null\0.nii"])
def test_a_missing_path(tmp_path, name):
    (tmp_path / "file").write_text("x")
    error = refusal(f"{tmp_path}/{name}")
    assert error.reason == "not-found"
    assert "\0" not in str(error)


def test_an_empty_file(tmp_path):
    (tmp_path / "a.nii").touch()
    assert refusal(tmp_path / "a.nii").reason == "empty"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_missing_permission_is_reported_as_such(tmp_path, monkeypatch, kind):
    path = tmp_path / "a.nii"
    path.mkdir() if kind == "folder" else path.write_text("x")
    # Tests may run as root, to whom everything is readable.
    monkeypatch.setattr(path_checks.os, "access", lambda *_: False)
    assert refusal(path).reason == "permission"


def test_a_folder_that_may_not_be_entered(tmp_path, monkeypatch):
    def forbid(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(path_checks.Path, "stat", forbid)
    with pytest.raises(InputRefused) as caught:
        path_checks.existing(tmp_path / "a.nii")
    assert caught.value.reason == "permission"


def test_permission_that_is_lost_while_reading(tmp_path, monkeypatch):
    (tmp_path / "a.nii").write_bytes(b"\x5c\1\0\0" + bytes(400))
    allowed = path_checks.Path.open

    def forbid(self, *args, **kwargs):
        if calls.append(1) or len(calls) > 2:
            raise PermissionError(13, "Permission denied", str(self))
        return allowed(self, *args, **kwargs)

    calls = []
    monkeypatch.setattr(path_checks.Path, "open", forbid)
    error = refusal(tmp_path / "a.nii")
    assert error.reason in ("permission", "no-geometry")


def test_a_folder_named_like_a_file(tmp_path):
    (tmp_path / "scan.nii.gz").mkdir()
    error = refusal(tmp_path / "scan.nii.gz")
    assert error.reason == "no-scan"
    assert error.problem.startswith("a folder, although its name ends in ")
    (tmp_path / "plain").mkdir()
    assert "though its name" not in refusal(tmp_path / "plain").problem


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.mnc", b"\x89HDF\r\n\x1a\n", "MINC"),
        ("a.mgz", b"\x1f\x8b\x08\0", "FreeSurfer"),
        ("a.par", b"# === DATA DESCRIPTION FILE ===", "Philips"),
        ("a.rec", b"\0\1\2\3", "Philips"),
        ("a.gif", b"GIF89a", "a GIF picture"),
        ("a.bmp", b"BM\x00\x00", "a BMP picture"),
        ("a.zip", b"PK\x03\x04", "a ZIP archive"),
        ("noname", b"PK\x03\x04", "a ZIP archive"),
        ("a.tar", b"x" * 257 + b"ustar\0" + bytes(200), "a TAR archive"),
        ("noname", b"x" * 257 + b"ustar\0" + bytes(200), "a TAR archive"),
        ("a.nii.zst", b"\x28\xb5\x2f\xfd", "Zstandard"),
        ("a.pt", b"PK\x03\x04", "PyTorch"),
        ("a.h5", b"\x89HDF\r\n\x1a\n", "HDF5"),
        ("a.npy", b"\x93NUMPY", "NumPy"),
        ("a.pkl", b"\x80\x04\x95", "pickle"),
        ("a.json", b'{"a": 1}', "JSON"),
        ("a.xml", b"<?xml version", "XML"),
        ("a.txt", b"some words\n", "a text file"),
        ("brain", b"NRRD0004\n", "NRRD"),
        ("brain", b"\x5c\1\0\0" + bytes(340) + b"n+1\0", "NIfTI"),
        ("brain", b"\0\0\2\x1cn+2\0" + bytes(540), "NIfTI"),
        ("noise", bytes([200, 1, 150, 7] * 40), "nor a known suffix"),
    ],
)
def test_other_formats_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    error = refusal(tmp_path / name)
    assert error.reason == "format"
    assert "format is not supported" in error.problem
    assert message in error.problem
    assert ".nii.gz" in error.remedy


@pytest.mark.parametrize("name", ["a.nii", "a.nrrd", "a.mha"])
def test_a_format_under_a_wrong_name_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04" + bytes(600))
    error = refusal(tmp_path / name)
    assert error.reason == "format"
    assert "ZIP" in error.problem
