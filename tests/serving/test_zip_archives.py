"""Zip archives of clients: their scan and nothing else, within the limits, and no name of theirs is used."""

import io
import zipfile

import pytest
from support.series import a_volume

import medseg
from medseg.errors import MedsegError
from medseg.serving.limits import Limits
from medseg.serving.zip_archives import unpack

LIMITS = Limits()


def packed(folder, entries, limits=LIMITS):
    folder.mkdir(exist_ok=True)
    archive = folder / "archive.dcm"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as content:
        for name, data in entries:
            content.writestr(name, data)
    return unpack(archive, folder, limits)


@pytest.fixture
def series(tmp_path):
    return medseg.write_dicom_series(a_volume(), tmp_path / "series")


def test_a_series_is_unpacked_without_what_does_not_belong_to_it(series, tmp_path):
    entries = [(f"study/sub/{path.name}", path.read_bytes()) for path in series.iterdir()]
    entries += [
        ("study/README.txt", b"text"),
        ("__MACOSX/._x", b"x"),
        (".hidden/x.dcm", b"x"),
        ("study/", b""),
    ]
    folder = packed(tmp_path / "own", entries)
    assert folder == tmp_path / "own"
    assert len(list(folder.iterdir())) == len(list(series.iterdir()))
    assert (medseg.read(folder).array == medseg.read(series).array).all()


def test_names_that_lead_elsewhere_are_not_used(series, tmp_path):
    one = next(series.iterdir()).read_bytes()
    (tmp_path / "a").mkdir()
    folder = packed(tmp_path / "a" / "own", [("a/../../evil.dcm", one), ("/evil.dcm", one)])
    assert not list(tmp_path.rglob("evil*"))
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["own"]
    assert all(path.parent == folder for path in folder.iterdir())


def test_an_image_file_is_the_scan(tmp_path):
    data = a_volume().save(tmp_path / "scan.nii.gz").read_bytes()
    path = packed(tmp_path / "own", [("scan.nii.gz", data), ("notes.txt", b"x")])
    assert path.name.endswith(".nii.gz")
    assert path.read_bytes() == data
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "entries", [[], [("a.txt", b"x")], [("a.nii", b"x"), ("b.nii", b"y")]], ids=["nothing", "text", "two"]
)
def test_archives_without_one_scan_are_refused(tmp_path, entries):
    with pytest.raises(MedsegError) as caught:
        packed(tmp_path / "own", entries)
    assert caught.value.reason == "upload-format"


def test_damaged_archives_are_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as content:
        content.writestr("a.nii", b"x" * 5000)
    whole = buffer.getvalue()
    damaged = bytearray(whole)
    damaged[45:50] = b"\xff" * 5
    encrypted = bytearray(whole)
    encrypted[6] |= 1
    encrypted[whole.rindex(b"PK\x01\x02") + 8] |= 1
    for number, data in enumerate((b"no zip", whole[:-9], bytes(damaged), bytes(encrypted))):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "x.dcm").write_bytes(data)
        with pytest.raises(MedsegError) as caught:
            unpack(folder / "x.dcm", folder, LIMITS)
        assert caught.value.reason == "upload-format"
        assert not (folder / "x.dcm").exists()


def test_a_bomb_ends_when_it_has_grown_too_large(tmp_path):
    limits = Limits(upload_bytes=3 << 20)
    with pytest.raises(MedsegError) as caught:
        packed(tmp_path / "own", [("a.nii", b"\0" * (64 << 20))], limits)
    assert caught.value.reason == "upload-size"
    assert sum(path.stat().st_size for path in (tmp_path / "own").iterdir()) <= limits.upload_bytes
    with pytest.raises(MedsegError) as caught:
        packed(tmp_path / "more", [(f"{n}.dcm", b"") for n in range(9)], Limits(files=8))
    assert caught.value.reason == "upload-size"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_are_unpacked_whole_are_refused_unread(tmp_path, method):
    """A few hundred bytes may stand for gigabytes, all of which zipfile would hold in memory."""
    archive = tmp_path / "archive.dcm"
    with zipfile.ZipFile(archive, "w", method) as content:
        content.writestr("a.nii", b"\0" * (1 << 20))
    with pytest.raises(MedsegError) as caught:
        unpack(archive, tmp_path, LIMITS)
    assert caught.value.reason == "upload-format"
    assert f"method {method}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
