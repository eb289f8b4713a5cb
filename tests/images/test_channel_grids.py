"""Channels on grids that differ as rounded headers do, and others."""

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medseg.errors import InputRefused
from medseg.images.channel_grids import on_first_grid
from medseg.images.grid import Grid
from medseg.images.volume import Volume
from medseg.io import read_channels
from medseg.system.notices import collect_notices

SHAPE = (5, 6, 7)


def volume(shift_mm=(0, 0, 0), spacing=(1.0, 1.0, 3.0), shape=SHAPE) -> Volume:
    grid = Grid.from_spacing(shape, spacing, origin_mm=shift_mm)
    return Volume(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), grid)


@pytest.mark.parametrize(
    ("shift", "told"),
    [((0.005, 0, 0), []), ((0.02, 0, 0), ["0.02 mm"]), ((0, 0, 0.45), ["0.45 mm"])],
)
def test_rounded_headers_are_the_same_grid_with_the_distance_in_a_notice(shift, told):
    with collect_notices() as notices:
        found = on_first_grid([volume(), volume(shift)])
    if told:
        assert found[1].grid == found[0].grid
    np.testing.assert_array_equal(found[1].array, found[0].array)
    assert [notice.reason for notice in notices] == ["grid-rounded"] * len(told)
    assert all(text in notice.text for text, notice in zip(told, notices, strict=True))
    assert all("channel 2" in notice.text for notice in notices)


@pytest.mark.parametrize(
    "other",
    [
        volume((0, 0, 0.55)),  # farther than headers are rounded
        volume((0.3, 0, 0), spacing=(0.5, 1.0, 3.0)),
        volume(shape=(5, 6, 8)),
    ],
)
def test_another_grid_is_refused(other):
    with pytest.raises(InputRefused) as caught:
        on_first_grid([volume(), volume(), other])
    assert caught.value.reason == "grid-mismatch"
    assert "channel 3 is not on the grid of the first" in caught.value.problem


def test_more_than_half_a_small_voxel_is_another_grid():
    small = {"spacing": (0.5, 1.0, 3.0)}
    with pytest.raises(InputRefused):
        on_first_grid([volume(**small), volume((0.3, 0, 0), **small)])
    with collect_notices() as notices:
        on_first_grid([volume(**small), volume((0.2, 0, 0), **small)])
    assert len(notices) == 1


def test_a_file_with_a_qform_alone_is_on_the_grid_of_one_with_an_sform(tmp_path):
    """A quaternion in single precision moves the corners of a large scan by hundredths of a millimetre."""
    affine = np.eye(4)
    # Nearly half a turn: the real part of the quaternion is the root of what rounding leaves.
    turn = Rotation.from_rotvec(np.array([0.6, 0.0, 0.8]) * np.radians(179.9)).as_matrix()
    affine[:3, :3] = turn * 1.5
    array = np.zeros((200, 200, 4), np.int16)
    for name, own in (("s", {"sform": 1, "qform": 0}), ("q", {"sform": 0, "qform": 1})):
        image = nib.Nifti1Image(array, affine)
        image.set_sform(affine, code=own["sform"])
        image.set_qform(affine, code=own["qform"])
        image.to_filename(tmp_path / f"{name}.nii.gz")
    with collect_notices():
        first, second = read_channels([tmp_path / "s.nii.gz", tmp_path / "q.nii.gz"], channels=2)
    assert first.grid.same_as(second.grid)
