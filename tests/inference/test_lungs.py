"""Lungs divided: boxes counted by hand, and the phantom, whose sides are known."""

from __future__ import annotations

import numpy as np
import pytest

import medseg.inference.lungs
from medseg.images.grid import Grid
from medseg.images.run_length import Runs
from medseg.images.volume import Mask, Volume
from medseg.inference.lungs import qc_findings
from medseg.inference.threshold_segmenter import ThresholdSegmenter
from medseg.phantom.thorax import Thorax, default_grid, orientations

GRID = Grid.from_spacing((30, 20, 10), (2.0, 2.0, 3.0))  # RAS: index 29 of the first axis is right


def divide(lungs, grid, hu=None):
    return tuple(side.binary() for side in medseg.inference.lungs.split_left_right(Runs.of(lungs), grid, hu))


def with_air(lungs, hu):
    return medseg.inference.lungs.with_air(Runs.of(lungs), hu).binary()


def test_boxes_apart():
    lungs = np.zeros(GRID.shape, dtype=bool)
    lungs[2:12, 4:16, 1:9] = lungs[16:28, 4:16, 1:9] = True
    right, left = divide(lungs, GRID)
    assert np.array_equal(np.flatnonzero(right.any((1, 2))), np.arange(16, 28))
    assert np.array_equal(np.flatnonzero(left.any((1, 2))), np.arange(2, 12))


def test_boxes_that_touch_are_cut_at_the_bridge():
    lungs = np.zeros(GRID.shape, dtype=bool)
    lungs[2:13, 4:16, 1:9] = lungs[17:28, 4:16, 1:9] = True
    lungs[13:17, 4:6, 1:9] = True  # a bridge of 4 mm
    right, left = divide(lungs, GRID)
    assert np.array_equal(right | left, lungs)
    assert not (right & left).any()
    assert right[15:, :, :].sum() == right.sum()
    assert left[:15, :, :].sum() == left.sum()


@pytest.mark.parametrize(("place", "side"), [(slice(20, 28), 0), (slice(2, 9), 1)])
def test_one_part_is_the_side_it_lies_on(place, side):
    lungs = np.zeros(GRID.shape, dtype=bool)
    lungs[place, 4:16, 1:9] = True
    found = divide(lungs, GRID)
    assert np.array_equal(found[side], lungs)
    assert not found[1 - side].any()


@pytest.mark.parametrize("codes", ["RAS", "LIP", "SLA"])
@pytest.mark.parametrize(("heart", "side"), [(slice(0, 8), 0), (slice(22, 30), 1)])
def test_one_lung_in_view_lies_beside_the_heart(codes, heart, side):
    """In the middle of the scan: the dense tissue tells where the middle of the body is."""
    lungs, hu = np.zeros(GRID.shape, dtype=bool), np.full(GRID.shape, -1000, dtype=np.int16)
    lungs[10:20, 4:16, 1:9], hu[heart] = True, 40
    order, flips = GRID.moves_to(codes)
    turned = [
        np.flip(array.transpose(order), [n for n, flip in enumerate(flips) if flip]) for array in (lungs, hu)
    ]
    found = divide(turned[0], GRID.oriented(codes), turned[1])
    assert np.array_equal(found[side], turned[0])
    assert not found[1 - side].any()


@pytest.mark.parametrize("codes", ["RAS", "LPS"])
def test_half_a_chest_in_view_has_air_on_its_lateral_side(codes):
    """The right half of a chest: more tissue lies laterally than medially, but air only there."""
    lungs, hu = np.zeros(GRID.shape, dtype=bool), np.full(GRID.shape, 40, dtype=np.int16)
    lungs[3:13, 4:16, 1:9] = True
    hu[25:] = -1000
    order, flips = GRID.moves_to(codes)
    turned = [
        np.flip(array.transpose(order), [n for n, flip in enumerate(flips) if flip]) for array in (lungs, hu)
    ]
    right, left = divide(turned[0], GRID.oriented(codes), turned[1])
    assert np.array_equal(right, turned[0])
    assert not left.any()


def test_a_small_part_beside_a_lone_lung_does_not_exchange_its_side():
    lungs, hu = np.zeros(GRID.shape, dtype=bool), np.full(GRID.shape, 40, dtype=np.int16)
    lungs[3:19, 2:18, 1:9] = True
    lungs[22:24, 4:12, 1:9] = True  # 1.5 ml in the lateral wall
    hu[25:] = -1000
    fine = Grid.from_spacing(GRID.shape, (8.0, 8.0, 12.0))  # now 98 ml beside 1573 ml
    right, left = divide(lungs, fine, hu)
    assert np.array_equal(right, lungs)
    assert not left.any()


def test_nothing_has_no_sides():
    right, left = divide(np.zeros(GRID.shape, dtype=bool), GRID)
    assert not right.any()
    assert not left.any()


@pytest.mark.parametrize("codes", orientations()[::5])
def test_the_phantoms_sides_in_any_orientation(codes):
    truth = Thorax().truth(default_grid((6.0, 7.0, 9.0)).oriented(codes))
    right, left = (np.isin(truth.array, values) for values in ((1, 3), (2, 4)))
    found_right, found_left = divide(right | left, truth.grid)
    assert np.array_equal(found_right, right)
    assert np.array_equal(found_left, left)


@pytest.mark.parametrize("codes", orientations())
def test_voxels_that_are_passed_over_take_the_side_of_their_neighbour(codes):
    """Two boxes and a bridge of 0.7 x 0.8 x 1.2 mm voxels: every third, third and second one is seen."""
    grid = Grid.from_spacing((97, 67, 31), (0.7, 0.8, 1.2))
    lungs = np.zeros(grid.shape, dtype=bool)
    lungs[5:44, 7:59, 4:27] = lungs[52:93, 7:59, 4:27] = True
    lungs[44:52, 7:12, 4:27] = True
    order, flips = grid.moves_to(codes)
    turned = np.flip(lungs.transpose(order), [n for n, flip in enumerate(flips) if flip])
    hu = np.where(turned, -800, 40).astype(np.int16)
    back, mirrored = grid.oriented(codes).moves_to("RAS")
    right, left = (
        np.flip(side.transpose(back), [n for n, flip in enumerate(mirrored) if flip])
        for side in divide(turned, grid.oriented(codes), hu)
    )
    assert np.array_equal(right | left, lungs)
    assert not (right & left).any()
    # The boxes are 28 mm wide; the bridge, 6 mm long, is cut in its middle to the width of a coarse voxel.
    assert right[52:].sum() == lungs[52:].sum()
    assert left[:44].sum() == lungs[:44].sum()
    expected = divide(lungs, grid, np.where(lungs, -800, 40))
    assert np.array_equal(right, expected[0])


def chest(heart: slice, middle: int) -> tuple[Mask, Volume]:
    """Two lungs that meet at ``middle`` but for a heart between them; air lies around."""
    grid = Grid.from_spacing((60, 30, 40), (5.0, 5.0, 5.0))
    painted, hu = np.zeros(grid.shape, dtype=np.uint8), np.full(grid.shape, -1000, dtype=np.int16)
    painted[5:middle, 5:25, 5:35], painted[middle:55, 5:25, 5:35] = 2, 1
    hu[painted > 0] = -850
    painted[heart, 10:20], hu[heart, 10:20] = 0, 50
    return Mask(painted, grid, ThresholdSegmenter.labels), Volume(hu, grid)


def test_a_chest_whose_heart_lies_left_is_not_odd():
    mask, scan = chest(slice(20, 32), 28)
    assert qc_findings(mask, scan) == ()


@pytest.mark.parametrize("codes", ["RAS", "LPS", "IAR"])
def test_sides_that_look_exchanged_are_reported(codes):
    mask, scan = chest(slice(28, 40), 32)
    (found,) = qc_findings(mask.oriented(codes), scan.oriented(codes))
    # The heart's middle is voxel 33.5, the chest's 29.5: 4 voxels of 5 mm.
    assert "the heart lies 20 mm to the right" in found.text
    assert "exchanged" in str(found)


def test_soft_tissue_within_a_lung_is_reported():
    """A block of 8 x 9 x 12 voxels of 5 mm, of which all but the outermost layer counts: 6 x 7 x 10."""
    mask, scan = chest(slice(20, 32), 28)
    hu = np.array(scan.array)
    hu[42:50, 8:17, 10:22] = 50
    (found,) = qc_findings(mask, Volume(hu, scan.grid))
    # 420 voxels of 0.125 ml, of 27 x 20 x 30 - 4 x 10 x 30 of the right lung: 2.8 %.
    assert "52 ml of the right lung (3 %) are as dense as soft tissue" in found.text


def test_airless_parts_are_removed_from_the_lungs():
    mask, scan = chest(slice(20, 32), 28)
    lungs, hu = np.asarray(mask.array) > 0, np.asarray(scan.array)
    assert np.array_equal(with_air(lungs, hu), lungs)
    assert not with_air(np.zeros_like(lungs), hu).any()
    # A head: a box of dense tissue above the lungs, 10 x 10 x 3 of their 26,400 voxels.
    head = np.zeros_like(lungs)
    head[25:35, 10:20, 36:39] = True
    dense = np.where(head, 40, hu)
    assert np.array_equal(with_air(lungs | head, dense), lungs)
    # With air in one of its three slices it would be lung.
    dense[..., 36] = -800
    assert np.array_equal(with_air(lungs | head, dense), lungs | head)


def test_a_lung_without_air_is_lung_beside_one_that_has_some_but_not_alone():
    lungs = np.zeros(GRID.shape, dtype=bool)
    lungs[2:12, 4:16, 1:9] = lungs[16:28, 4:16, 1:9] = True
    hu = np.where(lungs, -800, 40)
    hu[:14] = 40
    assert np.array_equal(with_air(lungs, hu), lungs)
    assert not with_air(lungs, np.full_like(hu, 40)).any()
    # Nor beside a bubble of 2 x 2 x 2 voxels.
    bubble = np.zeros_like(lungs)
    bubble[13:15, 0:2, 0:2] = True
    assert np.array_equal(with_air(lungs | bubble, np.where(bubble, -900, 40)), bubble)


def test_no_lung_and_a_missing_side_are_told():
    mask, scan = chest(slice(20, 32), 28)
    one = Mask(np.where(mask.array == 2, 0, mask.array).astype(np.uint8), mask.grid, mask.labels)
    none = Mask(np.zeros(mask.grid.shape, dtype=np.uint8), mask.grid, mask.labels)
    assert "hardly any left lung" in qc_findings(one, scan)[0].text
    assert [each.reason for each in qc_findings(none, scan)] == ["no-lung"]
