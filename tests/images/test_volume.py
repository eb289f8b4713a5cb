from itertools import permutations, product

import nibabel
import numpy as np
import pytest

from medseg.errors import InputRefused, UsageError
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask, Source, Volume, check_labels, members, whole_numbers
from medseg.io.foreign_images import as_volume
from medseg.io.read_options import ReadOptions
from medseg.system.notices import collect_notices

AXCODES = ["".join(c) for p in permutations(("RL", "AP", "SI")) for c in product(*p)]
GRID = Grid.from_spacing((2, 3, 4), (1, 2, 5))
LUNG, LESION = Label(name="lung", values=(1, 2)), Label(name="lesion", values=(2,))


def a_mask(dtype=np.int64) -> Mask:
    array = np.zeros(GRID.shape, dtype)
    array[0, :, 0] = 1
    array[1, 0, 0] = 2
    return Mask(array, GRID, (LUNG, LESION))


def test_volume_keeps_dtype_and_does_not_copy_or_lock_the_callers_array():
    array = np.zeros(GRID.shape, np.int16)
    volume = Volume(array, GRID)
    assert volume.array.dtype == np.int16
    assert np.shares_memory(volume.array, array)
    assert volume.affine is GRID.affine
    assert volume.source == Source()
    with pytest.raises(ValueError, match="read-only"):
        volume.array[0, 0, 0] = 1
    array[0, 0, 0] = 1  # still the caller's


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 5), (1, 2, 3, 4)])
def test_refuses_arrays_that_do_not_fit_the_grid(shape):
    with pytest.raises(InputRefused, match="does not fit") as caught:
        Volume(np.zeros(shape), GRID)
    assert caught.value.reason == "shape"


@pytest.mark.parametrize("axcodes", AXCODES)
def test_reoriented_values_stay_at_their_world_position(axcodes):
    volume = Volume(np.arange(24, dtype=np.int16).reshape(GRID.shape), GRID)
    turned = volume.oriented(axcodes)
    oracle = nibabel.Nifti1Image(volume.array, GRID.affine).as_reoriented(
        nibabel.orientations.axcodes2ornt(axcodes).astype(int)[[0, 1, 2]]
        if axcodes == "RAS"
        else nibabel.orientations.ornt_transform(
            nibabel.io_orientation(GRID.affine), nibabel.orientations.axcodes2ornt(axcodes)
        )
    )
    assert np.array_equal(turned.array, oracle.get_fdata())
    assert np.allclose(turned.affine, oracle.affine)
    assert np.shares_memory(turned.array, volume.array)


def test_mask_is_stored_in_the_smallest_dtype():
    assert a_mask().array.dtype == np.uint8
    big = Label(name="big", values=(300,))
    assert Mask(np.zeros(GRID.shape, bool), GRID, (big,)).array.dtype == np.uint16
    array = np.full(GRID.shape, 256, np.int32)
    assert Mask(array, GRID, ()).array.dtype == np.uint16


def test_a_lesion_inside_a_lung_counts_for_both():
    mask = a_mask()
    assert mask.of("lung").sum() == 4  # three of value 1 and one of value 2
    assert mask.of("lesion").sum() == 1
    # A voxel has 1 x 2 x 5 mm = 10 mm3 = 0.01 ml.
    assert mask.volumes_ml() == pytest.approx({"lung": 0.04, "lesion": 0.01})


def test_an_absent_label_has_no_volume():
    empty = Mask(np.zeros(GRID.shape, np.uint8), GRID, (Label(name="x", values=(7, 7)),))
    assert empty.volumes_ml() == {"x": 0.0}
    assert not empty.of("x").any()


def test_volumes_do_not_depend_on_orientation():
    mask = a_mask()
    assert mask.oriented("PIL").volumes_ml() == pytest.approx(mask.volumes_ml())
    assert mask.oriented("PIL").labels == mask.labels
    assert mask.oriented("PIL").affine.shape == (4, 4)


def test_an_unknown_label_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="lung, lesion"):
        a_mask().of("liver")


def test_members_of_a_label_with_two_values():
    assert members(np.array([0, 1, 2, 3]), LUNG).tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("value", "dtype", "reason"),
    [(0.5, np.float32, "mask-dtype"), (-1, np.int16, "mask-range"), (70000, np.int32, "mask-range")],
)
def test_invalid_label_maps_are_refused(value, dtype, reason):
    with pytest.raises(InputRefused) as caught:
        Mask(np.full(GRID.shape, value, dtype), GRID, (LUNG,))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "twice",
    [(LUNG, Label(name="lung", values=(5,))), (LUNG, Label(name="other", values=(1,)))],
)
def test_labels_share_neither_name_nor_written_value(twice):
    with pytest.raises(UsageError, match="share"):
        check_labels(twice)
    with pytest.raises(UsageError, match="share"):
        Mask(np.zeros(GRID.shape, np.uint8), GRID, twice)


def test_save_writes_what_read_returns(tmp_path):
    volume = Volume(np.arange(24, dtype=np.int16).reshape(GRID.shape), GRID)
    assert volume.save(tmp_path / "v.nii") == tmp_path / "v.nii"
    assert nibabel.load(tmp_path / "v.nii").get_fdata().tolist() == volume.array.tolist()
    assert a_mask().save(tmp_path / "m.nii.gz") == tmp_path / "m.nii.gz"
    assert nibabel.load(tmp_path / "m.nii.gz").get_data_dtype() == np.uint8


def test_whole_numbers_become_integers_and_fractions_are_refused():
    integers = np.array([[0, 7]], np.uint8)
    assert whole_numbers(integers, "m") is integers
    found = whole_numbers(np.array([0.0, 3.0, -5.0, 1e30, np.inf]), "m")
    assert found.dtype == np.int32
    assert found.tolist() == [0, 3, -1, 2**20, 2**20]
    for odd in (0.5, np.nan):
        with pytest.raises(InputRefused, match="1 of 2 voxels are not whole numbers") as refused:
            whole_numbers(np.array([1.0, odd]), "m")
        assert (refused.value.reason, refused.value.where) == ("mask-dtype", "m")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_voxels_that_are_not_finite_are_refused_and_replaced_on_request(value, dtype):
    array = np.zeros((3, 4, 5), dtype)
    array[1, 2, 3] = array[2, 0, 0] = value
    with pytest.raises(InputRefused, match="2 of 60 voxels are NaN or infinite") as refused:
        Volume(array, Grid.from_spacing(array.shape))
    assert refused.value.reason == "not-finite"
    with collect_notices() as notices:
        volume = as_volume((array, np.eye(4)), ReadOptions(nonfinite=-1024))
    assert volume.array[1, 2, 3] == volume.array[2, 0, 0] == -1024
    assert [notice.reason for notice in notices] == ["not-finite-replaced"]


def test_opposite_infinities_and_very_large_numbers():
    array = np.zeros((3, 4, 5), np.float64)
    array[0, 0, 0], array[0, 0, 1] = np.inf, -np.inf
    with pytest.raises(InputRefused, match="2 of 60"):
        Volume(array, Grid.from_spacing(array.shape))
    array[0, 0] = 1e308  # their sum overflows, and each is finite
    assert Volume(array, Grid.from_spacing(array.shape)).array.max() == 1e308


def test_representations_name_type_labels_and_grid_but_no_voxels():
    grid = "Grid(2 x 3 x 4 voxels, 1 x 2 x 5 mm, RAS)"
    assert repr(Volume(np.zeros(GRID.shape, np.int16), GRID)) == f"Volume(int16, {grid})"
    assert repr(a_mask()) == f"Mask(lung=1/2, lesion=2, {grid})"
    assert repr(Mask(np.zeros(GRID.shape, np.uint8), GRID, ())) == f"Mask(no labels, {grid})"
