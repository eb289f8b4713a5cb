"""The input of an nnU-Net from a scan, on paper."""

import numpy as np
import pytest

from medseg.errors import InputRefused
from medseg.images.grid import Grid
from medseg.images.volume import Volume
from medseg.preprocessing.nnunet import frame, network_input, nonzero_mask
from medseg.recipe.pipeline import Configuration

CT = {"kind": "ct", "low_hu": -1000, "high_hu": 400, "mean_hu": -300, "sd_hu": 350}


def volume(array: np.ndarray, spacing_mm: tuple[float, float, float] = (1, 1, 1)) -> Volume:
    return Volume(array, Grid.from_spacing(array.shape, spacing_mm))


def rules(*intensity: dict, **fields: object) -> Configuration:
    return Configuration.model_validate({"spacing_mm": [1, 1, 1], "intensity": intensity or (CT,), **fields})


def prepared(scan: Volume, settings: Configuration) -> np.ndarray:
    return network_input([scan], settings, frame([scan], settings))[0]


def test_axes_are_reversed_and_then_transposed():
    scan = volume(np.ones((4, 5, 6), dtype=np.int16), (0.7, 0.8, 2))
    assert frame([scan], rules()).cropped == (6, 5, 4)
    moved = frame([scan], rules(transpose=[1, 0, 2]))
    assert (moved.cropped, moved.stored_mm) == ((5, 6, 4), (0.8, 2, 0.7))
    assert moved.shape == (4, 12, 3)  # 5 * 0.8 = 4, 6 * 2 = 12, 4 * 0.7 = 2.8


def test_a_network_of_slices_keeps_their_distance():
    scan = volume(np.ones((4, 5, 6), dtype=np.int16), (0.5, 1, 7))
    assert frame([scan], rules(spacing_mm=[1, 1])).shape == (6, 5, 2)


def test_only_non_zero_voxels_are_kept():
    array = np.zeros((6, 7, 8), dtype=np.int16)
    array[1, 2, 3], array[4, 5, 6] = -5, 9
    place = frame([volume(array)], rules())
    assert place.box == (slice(3, 7), slice(2, 6), slice(1, 5))
    assert prepared(volume(array), rules({"kind": "none"})).shape == (4, 4, 4)


def test_an_empty_scan_is_kept_whole():
    place = frame([volume(np.zeros((6, 7, 8), dtype=np.int16))], rules())
    assert place.cropped == (8, 7, 6)


def test_ct_is_clipped_and_standardised():
    array = np.array([-2000, -1000, 50, 400, 3000], dtype=np.int16).reshape(1, 1, 5)
    # (-1000 + 300) / 350 = -2, (50 + 300) / 350 = 1, (400 + 300) / 350 = 2
    assert prepared(volume(array), rules()).ravel().tolist() == [-2, -2, 1, 2, 2]


def test_z_scores_may_leave_the_outside_unchanged():
    array = np.array([1, 3, 0, 0, 3, 1], dtype=np.int16).reshape(1, 1, 6)
    # All: mean 4/3. Inside: mean 2 and standard deviation 1. The zeros are open to neither side: no hole
    # in this row of voxels, which lies on the faces of the box.
    inside = prepared(volume(array), rules({"kind": "zscore", "inside": True}))
    assert inside.ravel().tolist() == [-1, 1, 0, 0, 1, -1]
    whole = prepared(volume(array), rules({"kind": "zscore"}))
    assert whole.mean() == pytest.approx(0, abs=1e-6)
    assert whole.std() == pytest.approx(1)


def test_holes_are_inside():
    array = np.ones((5, 5, 5), dtype=np.int16)
    array[2, 2, 2] = 0
    array[0, 0, 0] = 0
    mask = nonzero_mask([volume(array)], frame([volume(array)], rules()))
    assert (mask[2, 2, 2], mask[0, 0, 0]) == (True, False)


def test_other_normalisations():
    array = np.array([51, 102, 255], dtype=np.int16).reshape(1, 1, 3)
    assert prepared(volume(array), rules({"kind": "none"})).ravel().tolist() == [51, 102, 255]
    scaled = prepared(volume(array), rules({"kind": "rescale_0_1"})).ravel()
    assert scaled.tolist() == [0, 0.25, 1]
    colours = prepared(volume(array), rules({"kind": "rgb_0_1"})).ravel()
    np.testing.assert_allclose(colours, [0.2, 0.4, 1], rtol=1e-7)


def test_colours_out_of_range_are_refused():
    with pytest.raises(InputRefused, match="colours") as refusal:
        prepared(volume(np.array([[[1, 256]]], dtype=np.int16)), rules({"kind": "rgb_0_1"}))
    assert refusal.value.reason == "not-rgb"


def test_a_scan_that_would_lose_an_axis_is_refused():
    with pytest.raises(InputRefused) as refusal:
        frame([volume(np.ones((8, 8, 1), dtype=np.int16))], rules(spacing_mm=[3, 1, 1]))
    assert refusal.value.reason == "too-thin"


def test_canonical_orientation_turns_the_scan_and_back():
    array = np.arange(1, 61, dtype=np.int16).reshape(3, 4, 5)
    flipped = Grid.from_spacing((3, 4, 5), direction=np.diag([-1.0, 1.0, -1.0]))
    place = frame([Volume(array, flipped)], rules(), orientation="RAS")
    np.testing.assert_array_equal(place.view(array), array[::-1, :, ::-1].transpose(2, 1, 0))
