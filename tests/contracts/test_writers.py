"""The contract of every format: medseg and an independent reader find each voxel where it was."""

import gzip
from io import BytesIO
from itertools import permutations, product

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.fileholders import FileHolder
from scipy.spatial.transform import Rotation

from medseg import io
from medseg.errors import InputRefused, ResourceError, UsageError
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask, Volume
from medseg.io import formats

SUFFIXES = list(io.FORMATS)
LABELS = (Label(name="a", values=(1,)), Label(name="b", values=(2,)))
TURN = Rotation.from_euler("xyz", (11, -17, 23), degrees=True).as_matrix()
TO_LPS = np.array([-1.0, -1.0, 1.0])


def orientations():
    """The 48 signed permutation matrices."""
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        yield np.eye(3)[:, order] * signs


def a_volume(direction, dtype=np.int16) -> Volume:
    grid = Grid.from_spacing((3, 4, 5), (0.8, 1.1, 2.5), origin_mm=(-12.3, 45.6, -7.8), direction=direction)
    return Volume(np.arange(60).reshape(grid.shape).astype(dtype), grid)


def a_mask(volume: Volume) -> Mask:
    return Mask(volume.array.astype(np.int64) % 3, volume.grid, LABELS)


def opened(path):
    content = path.read_bytes()
    return BytesIO(gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content)


def by_nibabel(path):
    """Array and RAS+ affine of a NIfTI file under any suffix."""
    files = sorted({path, formats.partner(path) or path}, key=lambda each: formats.ending(each) or "")
    # Unpacked by content: nibabel goes by the names that it knows.
    holders = {"header": FileHolder(fileobj=opened(files[0])), "image": FileHolder(fileobj=opened(files[-1]))}
    nifti = (nibabel.Nifti1Image if len(files) == 1 else nibabel.Nifti1Pair).from_file_map(holders)
    assert np.array_equal(nifti.header.get_sform(), nifti.affine)
    return np.asanyarray(nifti.dataobj), nifti.affine


def by_itk(io_class):
    """A function that returns array and RAS+ affine of a file under any suffix."""

    def read(path):
        reader = sitk.ImageFileReader()
        reader.SetImageIO(io_class)
        reader.SetFileName(str(path))
        image = reader.Execute()
        origin = np.multiply(TO_LPS, image.TransformIndexToPhysicalPoint((0, 0, 0)))
        columns = [
            np.multiply(TO_LPS, image.TransformIndexToPhysicalPoint(index)) - origin
            for index in ((1, 0, 0), (0, 1, 0), (0, 0, 1))
        ]
        affine = np.eye(4)
        affine[:3] = np.column_stack([*columns, origin])
        return sitk.GetArrayFromImage(image).T, affine

    return read


INDEPENDENT = {
    "nifti": (by_nibabel, 0),
    "nrrd": (by_itk("NrrdImageIO"), 1e-5),
    "mha": (by_itk("MetaImageIO"), 1e-5),
}
"""For each format another library's reader, and how far its affine may be from the float32 one."""


def assert_read_alike_by_another_library(path, image):
    reader, tolerance = INDEPENDENT[formats.SUFFIXES[formats.ending(path)].format.name]
    array, affine = reader(path)
    assert np.abs(affine - image.affine.astype(np.float32)).max() <= tolerance
    assert np.array_equal(array, image.array)
    assert array.dtype == image.array.dtype


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_orientation_survives(tmp_path, suffix):
    for number, axes in enumerate(orientations()):
        volume = a_volume(TURN @ axes)
        for name, image in (("v", volume), ("m", a_mask(volume))):
            path = io.write(image, tmp_path / f"{name}{number}{suffix}")
            back = io.read(path)
            assert back.grid.distance_mm(image.grid) < 1e-4
            assert np.array_equal(back.array, image.array)
            assert back.array.dtype == image.array.dtype
            assert_read_alike_by_another_library(path, image)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_shear_is_written_as_it_is_and_not_read_back(tmp_path, suffix):
    shear = np.array([[1, 0, 0.2], [0, 1, 0.1], [0, 0, 1]])
    volume = a_volume(TURN @ shear / np.linalg.norm(shear, axis=0))
    path = io.write(volume, tmp_path / f"v{suffix}")
    assert_read_alike_by_another_library(path, volume)
    with pytest.raises(InputRefused, match="shear"):
        io.read(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("dtype", "read_as"),
    [
        (bool, "uint8"),
        ("int8", "int8"),
        ("uint16", "uint16"),
        ("int32", "int16"),  # 0..59 needs no more
        ("int64", "int16"),
        ("float16", "float32"),
        ("float32", "float32"),
        ("float64", "float32"),
    ],
)
def test_values_survive_in_every_dtype(tmp_path, suffix, dtype, read_as):
    volume = a_volume(TURN, dtype)
    back = io.read(io.write(volume, tmp_path / f"v{suffix}"))
    assert np.array_equal(back.array, volume.array)
    assert back.array.dtype == read_as


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_mask_keeps_its_labels_values(tmp_path, suffix):
    mask = a_mask(a_volume(TURN))
    back = io.read_mask(io.write(mask, tmp_path / f"m{suffix}"), LABELS)
    assert np.array_equal(back.array, mask.array)
    assert back.array.dtype == np.uint8
    assert back.volumes_ml() == pytest.approx(mask.volumes_ml())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_single_voxel_survives(tmp_path, suffix):
    grid = Grid.from_spacing((1, 1, 1), (0.5, 0.6, 0.7), origin_mm=(1, 2, 3))
    back = io.read(io.write(Volume(np.array([[[7]]], np.int16), grid), tmp_path / f"v{suffix}"))
    assert back.grid.distance_mm(grid) < 1e-5
    assert back.array.tolist() == [[[7]]]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_equal_images_give_equal_bytes(tmp_path, suffix):
    contents = []
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        io.write(a_mask(a_volume(TURN)), tmp_path / folder / f"m{suffix}")
        contents.append({f.name: f.read_bytes() for f in (tmp_path / folder).iterdir()})
    assert contents[0] == contents[1]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_suffixes_in_capitals(tmp_path, suffix):
    volume = a_volume(TURN)
    path = io.write(volume, tmp_path / f"V{suffix.upper()}")
    assert path.is_file()
    assert np.array_equal(io.read(path).array, volume.array)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, suffix, monkeypatch):
    path = io.write(a_volume(TURN), tmp_path / f"v{suffix}")
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}

    def full(image, fresh):
        fresh.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(io.FORMATS, suffix, io.Format("full", io.read, full))
    with pytest.raises(ResourceError, match="No space left"):
        io.write(a_volume(np.eye(3)), path)
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before


def test_an_unforeseen_error_is_not_hidden_and_leaves_nothing(tmp_path, monkeypatch):
    def broken(image, fresh):
        fresh.write_bytes(b"half")
        raise KeyError("bug")

    monkeypatch.setitem(io.FORMATS, ".nii", io.Format("broken", io.read, broken))
    with pytest.raises(KeyError):
        io.write(a_volume(TURN), tmp_path / "v.nii")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [("v.png", "format"), ("v", "format"), ("missing/v.nii", "no-folder"), ("folder.nii", "is-folder")],
)
def test_a_path_that_cannot_be_written_is_a_usage_error(tmp_path, name, reason):
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(UsageError) as caught:
        io.write(a_volume(TURN), tmp_path / name)
    assert caught.value.reason == reason
    assert caught.value.remedy
