from pathlib import Path

import numpy as np
import pytest

from medseg import Grid, Volume, io
from medseg.batch_processing.case_discovery import items
from medseg.datasets.layouts.case_naming import images
from medseg.errors import UsageError
from medseg.io import formats
from medseg.io.dicom.signature import is_dicom


def a_volume() -> Volume:
    return Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), Grid.from_spacing((3, 4, 5)))


def added(monkeypatch: pytest.MonkeyPatch, suffix: str, format: formats.Format) -> None:
    """One more row, for a new suffix of a format."""
    monkeypatch.setitem(formats.SUFFIXES, suffix, formats.Suffix(format))
    monkeypatch.setitem(formats.FORMATS, suffix, format)


@pytest.mark.parametrize("format", [formats.NIFTI, formats.NRRD, formats.METAIMAGE])
def test_one_row_makes_a_suffix_known_everywhere(tmp_path, monkeypatch, format):
    added(monkeypatch, ".other", format)
    path = io.write(a_volume(), tmp_path / "a.other")
    assert [each.name for each in tmp_path.iterdir()] == ["a.other"]
    assert np.array_equal(io.read(path).array, a_volume().array)
    assert [(item.id, item.images) for item in items(tmp_path)] == [("a", (path,))]
    assert images(tmp_path) == [path]


@pytest.mark.parametrize("packed", [True, False])
def test_one_row_says_whether_files_of_a_suffix_are_compressed(tmp_path, monkeypatch, packed):
    monkeypatch.setitem(formats.SUFFIXES, ".other", formats.Suffix(formats.NIFTI, packed=packed))
    monkeypatch.setitem(formats.FORMATS, ".other", formats.NIFTI)
    path = io.write(a_volume(), tmp_path / "a.other")
    assert path.read_bytes().startswith(b"\x1f\x8b") == packed  # RFC 1952
    assert np.array_equal(io.read(path).array, a_volume().array)


@pytest.mark.parametrize("suffix", list(formats.SUFFIXES))
def test_every_suffix_is_found_by_batches_and_layouts(tmp_path, suffix):
    path = tmp_path / f"a.b{suffix.upper()}"
    path.write_bytes(b"\2\0\0\0UL\4\0" + bytes(200))  # voxels that could begin a data set without preamble
    assert formats.ending(path) == suffix
    assert formats.stem(path) == "a.b"
    assert not is_dicom(path)
    assert images(tmp_path) == [path]
    assert [item.images for item in items(tmp_path)] == [(path,)]


@pytest.mark.parametrize(
    ("header", "voxels"),
    [("a.hdr", "a.img"), ("a.HDR", "a.IMG"), ("a.hdr.gz", "a.img.gz"), ("a.hdr", "a.img.gz")],
)
def test_a_pair_is_one_image(tmp_path, header, voxels):
    for name in (header, voxels, "b.img"):
        (tmp_path / name).write_bytes(b"1")
    assert formats.partner(tmp_path / header) == tmp_path / voxels
    assert formats.partner(tmp_path / voxels) == tmp_path / header
    assert formats.partner(tmp_path / "b.img") is None
    # Voxels that have lost their header are an image: its reader will tell what is missing.
    assert images(tmp_path) == [tmp_path / header, tmp_path / "b.img"]
    assert [item.images[0].name for item in items(tmp_path)] == [header, "b.img"]


def test_files_with_voxels_elsewhere_are_split():
    assert {each for each in formats.SUFFIXES if formats.is_split(Path(f"a{each}"))} == {
        ".hdr",
        ".img",
        ".hdr.gz",
        ".img.gz",
        ".nhdr",
        ".mhd",
    }


def test_names_without_a_known_suffix():
    for name in ("a", "nii.gz", "a.nii.gz.txt", "a.dcm", "a.gz"):
        assert formats.ending(Path(name)) is None
    assert formats.stem(Path("a.dcm")) == "a"
    assert formats.is_dicom_output(Path("A.DCM"))
    assert not formats.is_dicom_output(Path("a.ima"))


def test_packed_pairs_are_read_and_not_written(tmp_path):
    with pytest.raises(UsageError, match="no format has the suffix"):
        io.write(a_volume(), tmp_path / "a.hdr.gz")
