"""NRRD and MetaImage files of one volume in four or more dimensions, and sizes in unusual fields."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import SimpleITK as sitk

from medseg import io
from medseg.errors import InputRefused
from medseg.system.notices import collect_notices

# Sizes 2 x 3 x 4, the first axis fastest; every voxel another number.
ARRAY = np.arange(24, dtype=np.uint8).reshape(4, 3, 2).T
NRRD = """NRRD0004
type: uchar
dimension: 4
space: {space}
sizes: {sizes}
space directions: {directions}
kinds: {kinds}
encoding: {encoding}
space origin: (10,20,30)

"""
SPACE = "(2,0,0) (0,3,0) (0,0,4)"


def nrrd(path, sizes, directions, kinds, *, packed=False, space="left-posterior-superior"):
    head = NRRD.format(
        sizes=sizes, directions=directions, kinds=kinds, space=space, encoding="gzip" if packed else "raw"
    )
    data = ARRAY.T.tobytes()
    path.write_bytes(head.encode() + (gzip.compress(data) if packed else data))
    return path


def check(volume):
    assert np.array_equal(volume.array, ARRAY)
    assert volume.grid.spacing_mm == pytest.approx((2, 3, 4))
    assert volume.grid.world((1, 1, 1)) == pytest.approx((-12, -23, 34))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["list", "vector"])
@pytest.mark.parametrize("last", [False, True])
def test_an_nrrd_axis_of_one_channel_may_be_the_first_or_the_last(tmp_path, kind, last, packed):
    space = "domain domain domain"
    if last:
        path = nrrd(tmp_path / "a.nrrd", "2 3 4 1", f"{SPACE} none", f"{space} {kind}", packed=packed)
    else:
        path = nrrd(tmp_path / "a.nrrd", "1 2 3 4", f"none {SPACE}", f"{kind} {space}", packed=packed)
    check(io.read(path))
    check(io.read(path, volume=1))
    with pytest.raises(InputRefused) as caught:
        io.read(path, volume=2)
    assert caught.value.reason == "no-volume"


@pytest.mark.parametrize(
    ("sizes", "kinds"), [("2 3 2 2", "domain domain domain list"), ("2 3 4 1", "domain " * 3)]
)
def test_other_nrrd_axes_are_refused(tmp_path, sizes, kinds):
    path = nrrd(tmp_path / "a.nrrd", sizes, f"{SPACE} none", kinds)
    with pytest.raises(InputRefused) as caught:
        io.read(path)
    assert caught.value.reason in ("several-channels", "unreadable")


def image(size=(2, 3, 4, 1)):
    """An ITK image of more dimensions whose space is turned, so that rows and columns cannot be exchanged."""
    count = len(size)
    made = sitk.GetImageFromArray(ARRAY.T)
    for _ in range(3, count):
        made = sitk.JoinSeries([made] * size[3])
    direction = np.eye(count)
    direction[:3, :3] = [[0, 1, 0], [0, 0, -1], [-1, 0, 0]]
    made.SetSpacing((2, 3, 4, *[7] * (count - 3)))
    made.SetOrigin((10, 20, 30, *[5] * (count - 3)))
    made.SetDirection(direction.ravel().tolist())
    return made


@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
@pytest.mark.parametrize("size", [(2, 3, 4, 1), (2, 3, 4, 1, 1)])
@pytest.mark.parametrize("packed", [False, True])
def test_a_metaimage_of_one_volume_in_more_dimensions(tmp_path, suffix, size, packed):
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(image(size), str(path), packed)
    volume = io.read(path)
    assert np.array_equal(volume.array, ARRAY)
    # LPS by hand: index (1, 1, 1) is (10, 20, 30) + 2 (0, 0, -1) + 3 (1, 0, 0) + 4 (0, -1, 0) = (13, 16, 28).
    assert volume.grid.world((1, 1, 1)) == pytest.approx((-13, -16, 28))


def test_a_metaimage_of_two_volumes_or_of_an_oblique_time_is_refused(tmp_path):
    path = tmp_path / "a.mha"
    sitk.WriteImage(image((2, 3, 4, 2)), str(path))
    with pytest.raises(InputRefused) as caught:
        io.read(path)
    assert caught.value.reason == "several-channels"
    sitk.WriteImage(image(), str(path))
    raw = path.read_bytes()
    line = next(one for one in raw.split(b"\n") if one.startswith(b"TransformMatrix"))
    path.write_bytes(raw.replace(line, b"TransformMatrix = 1 0 0 0 0 1 0 0 0 0 0.8 0.6 0 0 -0.6 0.8"))
    with pytest.raises(InputRefused) as caught:
        io.read(path)
    assert caught.value.reason == "geometry"


# --- ElementSize -------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["2 3 4", "0.5 0.5 1.25"])
def test_the_size_of_an_element_is_its_spacing_where_no_spacing_is_given(tmp_path, size):
    path = tmp_path / "a.mha"
    sitk.WriteImage(sitk.GetImageFromArray(ARRAY.T), str(path))
    path.write_bytes(path.read_bytes().replace(b"ElementSpacing = 1 1 1", f"ElementSize = {size}".encode()))
    with collect_notices() as notices:
        volume = io.read(path)
    assert volume.grid.spacing_mm == pytest.approx([float(n) for n in size.split()])
    assert [notice.reason for notice in notices] == ["element-size"]
    assert sitk.ReadImage(str(path)).GetSpacing() == pytest.approx(volume.grid.spacing_mm)


@pytest.mark.parametrize("size", ["2 3", "2 0 4", "2 -3 4", "2 nan 4"])
def test_an_impossible_size_of_an_element_is_refused(tmp_path, size):
    path = tmp_path / "a.mha"
    sitk.WriteImage(sitk.GetImageFromArray(ARRAY.T), str(path))
    path.write_bytes(path.read_bytes().replace(b"ElementSpacing = 1 1 1", f"ElementSize = {size}".encode()))
    with pytest.raises(InputRefused) as caught:
        io.read(path)
    assert caught.value.reason == "geometry"


def test_the_spacing_counts_where_both_are_given(tmp_path):
    path = tmp_path / "a.mha"
    sitk.WriteImage(sitk.GetImageFromArray(ARRAY.T), str(path))
    both = b"ElementSize = 9 9 9\nElementSpacing = 2 3 4"
    path.write_bytes(path.read_bytes().replace(b"ElementSpacing = 1 1 1", both))
    assert io.read(path).grid.spacing_mm == pytest.approx((2, 3, 4))
