from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.intensity.dictionary import (
    NormalizeIntensityd,
    ScaleIntensityRanged,
    ScaleIntensityRangePercentilesd,
)
from support.worlds import tiny

from medseg.errors import InputRefused, ResourceError
from medseg.images.grid import Grid
from medseg.images.volume import Mask, Volume
from medseg.phantom.thorax import Thorax, default_grid, orientations
from medseg.preprocessing.preparation import Normalise, prepare
from medseg.recipe.preprocessing import Percentile, Window, ZScore

COARSE = (6.0, 7.0, 9.0)


def cube(value: float = 300.0, *, n: int = 20, spacing: float = 2.0) -> Volume:
    """Air with one bright block; its geometry can be done in the head."""
    array = np.full((n, n, n), -1000, np.int16)
    array[4:8, 6:12, 10:18] = value
    return Volume(array, Grid.from_spacing((n, n, n), (spacing,) * 3, origin_mm=(5, 6, 7)))


def test_window_maps_hu_to_zero_one_and_clips():
    recipe = tiny(
        prepare={
            "spacing_mm": [2, 2, 2],
            "crop": None,
            "intensity": {"kind": "window", "low_hu": -1000, "high_hu": 1000},
        }
    )
    for hu, expected in ((-3024, 0.0), (-1000, 0.0), (0, 0.5), (500, 0.75), (3000, 1.0)):
        image = prepare(recipe, [cube(hu)]).image
        assert float(image[0, 5, 8, 13]) == pytest.approx(expected, abs=1e-6)


def test_the_window_equals_monais_to_the_bit():
    values = np.random.default_rng(0).normal(0, 900, (1, 9, 8, 7)).astype(np.float32)
    theirs = ScaleIntensityRanged("image", -1024, 276, 0.0, 1.0, clip=True)(
        {"image": MetaTensor(torch.from_numpy(values.copy()))}
    )
    normalise = Normalise(Window(low_hu=-1024, high_hu=276))
    ours, _ = normalise({"image": values}, Grid.from_spacing((9, 8, 7)))
    np.testing.assert_array_equal(ours["image"], theirs["image"].numpy())


@pytest.mark.parametrize("nonzero", [True, False])
def test_zscore_agrees_with_monai(nonzero):
    values = np.random.default_rng(0).normal(300, 90, (2, 9, 8, 7)).astype(np.float32)
    values[0, 2:4] = 0
    values[1] = 5  # a constant channel is only shifted
    theirs = NormalizeIntensityd("image", nonzero=nonzero, channel_wise=True)(
        {"image": MetaTensor(torch.from_numpy(values.copy()))}
    )
    ours, _ = Normalise(ZScore(nonzero=nonzero))({"image": values}, Grid.from_spacing((9, 8, 7)))
    np.testing.assert_allclose(ours["image"], theirs["image"].numpy(), atol=1e-5)
    if nonzero:
        assert not ours["image"][0, 2:4].any()


@pytest.mark.parametrize("high", [99.5, 100])
def test_percentiles_agree_with_monai(high):
    values = np.random.default_rng(0).gamma(2, 100, (2, 9, 8, 7)).astype(np.float32)
    values[1] = 5
    theirs = ScaleIntensityRangePercentilesd("image", 0.5, high, 0.0, 1.0, clip=True, channel_wise=True)(
        {"image": MetaTensor(torch.from_numpy(values.copy()))}
    )
    ours, _ = Normalise(Percentile(low=0.5, high=high))({"image": values}, Grid.from_spacing((9, 8, 7)))
    np.testing.assert_allclose(ours["image"], theirs["image"].numpy(), atol=1e-6)


def test_zscore_and_percentile_by_an_independent_formula():
    rng = np.random.default_rng(0)
    scan = Volume(rng.gamma(2, 100, (12, 12, 12)).astype(np.float32), Grid.from_spacing((12, 12, 12)))
    base = {"modality": "MR", "labels": [{"name": "x", "values": [1]}]}
    steps = {"spacing_mm": [1, 1, 1], "crop": None}
    z = prepare(
        tiny(**base, prepare=steps | {"intensity": {"kind": "zscore", "nonzero": False}}), [scan]
    ).image[0]
    np.testing.assert_allclose(z, (scan.array - scan.array.mean()) / scan.array.std(), atol=1e-4)
    p = prepare(
        tiny(**base, prepare=steps | {"intensity": {"kind": "percentile", "low": 5, "high": 95}}), [scan]
    ).image[0]
    low, high = np.percentile(scan.array, (5, 95))
    np.testing.assert_allclose(p, ((scan.array - low) / (high - low)).clip(0, 1), atol=1e-4)


def test_crop_is_the_foreground_box_plus_the_margin():
    recipe = tiny(prepare={"spacing_mm": [2, 2, 2], "crop": {"above": -500, "margin_mm": 4}})
    done = prepare(recipe, [cube()])
    # Block 4:8, 6:12, 10:18 widened by two voxels of 2 mm on each side.
    assert done.grid.shape == (8, 10, 12)
    np.testing.assert_allclose(done.grid.affine[:3, 3], (5 + 2 * 2, 6 + 4 * 2, 7 + 8 * 2))


def test_a_crop_ends_at_the_scan():
    recipe = tiny(prepare={"spacing_mm": [2, 2, 2], "crop": {"above": -500, "margin_mm": 500}})
    assert prepare(recipe, [cube()]).grid.shape == (20, 20, 20)


def test_a_scan_without_foreground_stays_whole():
    assert prepare(tiny(prepare={"spacing_mm": [2, 2, 2]}), [cube(-1000)]).grid.shape == (20, 20, 20)


def test_labels_overlap_and_follow_the_image():
    labels = [{"name": "lung", "values": [1, 2]}, {"name": "lesion", "values": [2]}]
    recipe = tiny(labels=labels, prepare={"spacing_mm": [1, 1, 1], "crop": {"above": -500, "margin_mm": 0}})
    scan = cube()
    truth = np.zeros(scan.grid.shape, np.uint8)
    truth[4:8, 6:12, 10:18] = 1
    truth[4:6, 6:12, 10:18] = 2
    done = prepare(recipe, [scan], Mask(truth, scan.grid, recipe.labels))
    assert done.label is not None
    assert done.label.dtype == np.int8
    assert done.label.shape[1:] == done.image.shape[1:]
    # In world space: the lung is the bright block, the lesion its half with x below 5 + 5.5 * 2 = 16 mm.
    bright = done.image[0] > 0.5
    assert (done.label[0] == bright).mean() > 0.9
    x = done.grid.world(np.argwhere(done.label[1]))[:, 0]
    assert x.max() < 16
    assert int(done.label[1].sum()) * 2 == pytest.approx(int(done.label[0].sum()), rel=0.15)


def test_prepared_voxels_made_of_ignored_ones_are_unknown():
    recipe = tiny(
        labels=[{"name": "lung", "values": [1]}],
        ignore_value=255,
        prepare={"spacing_mm": [4, 2, 2], "crop": None},
    )
    scan = cube()  # 2 mm voxels: each prepared voxel is made of two and a little of their neighbours
    truth = np.zeros(scan.grid.shape, np.uint8)
    truth[4:8] = 1
    truth[12] = 255
    done = prepare(recipe, [scan], Mask(truth, scan.grid, recipe.labels))
    assert done.label is not None
    assert set(np.unique(done.label).tolist()) == {-1, 0, 1}
    # Voxel 12 lies 24 mm from the first: prepared voxels, centred at 1, 5, ... 21, 25 mm, up to 4 mm away.
    assert (done.label[0, 6] == -1).all()
    assert (done.label[0, [2, 3]] == 1).all()
    assert (done.label[0, 8:] == 0).all()


@pytest.mark.parametrize("axcodes", orientations())
def test_all_48_orientations_are_prepared_to_the_same_bits(axcodes):
    grid = default_grid(COARSE)
    scan, truth = Thorax().scan(grid), Thorax().truth(grid)
    recipe = tiny()
    one = prepare(recipe, [scan], truth)
    other = prepare(recipe, [scan.oriented(axcodes)], truth.oriented(axcodes))
    assert np.array_equal(one.image, other.image)
    assert one.label is not None
    assert other.label is not None
    assert np.array_equal(one.label, other.label)
    assert one.grid.distance_mm(other.grid) < 1e-9


def test_the_prepared_grid_has_the_wanted_spacing_and_orientation():
    done = prepare(tiny(), [Thorax().scan(default_grid(COARSE, "LIP"))])
    assert done.grid.axcodes == "RAS"
    assert done.grid.spacing_mm == pytest.approx((8, 8, 10))
    assert done.image.dtype == np.float32
    assert done.image.flags.c_contiguous


def test_another_number_of_channels_is_refused():
    volume = Volume(np.zeros((4, 4, 4), np.int16), Grid.from_spacing((4, 4, 4)))
    with pytest.raises(InputRefused, match="2 channel") as refused:
        prepare(tiny(), [volume, volume])
    assert refused.value.reason == "channel-count"


def test_channels_are_not_mixed():
    recipe = tiny(channels=["CT", "PET-like"], prepare={"spacing_mm": [2, 2, 2], "crop": None})
    done = prepare(recipe, [cube(276), cube(-374)])
    assert done.image[:, 5, 8, 13].tolist() == pytest.approx([1.0, 0.5])
    with pytest.raises(InputRefused, match="1 channel"):
        prepare(recipe, [cube()])


def test_a_truth_on_another_grid_is_refused_with_the_distance():
    scan = cube()
    moved = Grid.from_spacing(scan.grid.shape, (2, 2, 2), origin_mm=(5, 6, 10))
    with pytest.raises(InputRefused, match="3 mm apart"):
        prepare(tiny(), [scan], Mask(np.zeros(moved.shape, np.uint8), moved, tiny().labels))


def test_the_order_of_the_truths_axes_does_not_matter():
    grid = default_grid(COARSE)
    scan, truth = Thorax().scan(grid), Thorax().truth(grid)
    same, turned = (prepare(tiny(), [scan], t).label for t in (truth, truth.oriented("SPL")))
    assert same is not None
    assert turned is not None
    assert np.array_equal(same, turned)


def test_inputs_are_never_changed():
    scan = cube()
    before = scan.array.copy()
    prepare(tiny(), [scan])
    np.testing.assert_array_equal(scan.array, before)


def test_a_spacing_that_needs_too_much_memory_is_refused_in_advance():
    # 40 mm at 0.01 mm are 4000 voxels an axis: 4000 ** 3 * 8 bytes are 477 GiB.
    with pytest.raises(ResourceError, match=r"4000 x 4000 x 4000 voxels: 476\.8 GiB") as caught:
        prepare(tiny(prepare={"spacing_mm": [0.01] * 3, "crop": None}), [cube()])
    assert caught.value.reason == "memory"


def test_a_window_with_mean_and_deviation_gives_z_scores_as_nnunet_does():
    # Clipped to -100..200: -100, 0, 200; minus 50, divided by 100: -1.5, -0.5, 1.5.
    window = Window(low_hu=-100, high_hu=200, mean_hu=50, sd_hu=100)
    values = np.array([-1000, 0, 900], np.float32).reshape(1, 3, 1, 1)
    done, _ = Normalise(window)({"image": values}, Grid((3, 1, 1), np.eye(4)))
    assert done["image"].ravel().tolist() == [-1.5, -0.5, 1.5]
