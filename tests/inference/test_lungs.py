"""Lungs divided: boxes counted by hand, and the phantom, whose sides are known."""

from __future__ import annotations

import numpy as np
import pytest

import medseg.inference.lung_exclusions
import medseg.inference.lungs
from medseg.images.grid import Grid
from medseg.images.run_length import Runs
from medseg.images.volume import Source, Volume
from medseg.inference.lungs import find_sides
from medseg.phantom.thorax import Thorax, default_grid, orientations

GRID = Grid.from_spacing((30, 20, 10), (2.0, 2.0, 3.0))  # RAS: index 29 of the first axis is right


def divide(lungs, grid, hu=None):
    return tuple(side.binary() for side in medseg.inference.lungs.split_left_right(Runs.of(lungs), grid, hu))


def with_air(lungs, hu):
    return medseg.inference.lung_exclusions.with_air(Runs.of(lungs), hu).binary()


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
    grid = Grid.from_spacing((121, 67, 31), (0.7, 0.8, 1.2))
    lungs = np.zeros(grid.shape, dtype=bool)
    lungs[17:56, 7:59, 4:27] = lungs[64:105, 7:59, 4:27] = True
    lungs[56:64, 7:12, 4:27] = True
    whole = np.where(lungs, -800, 40)
    whole[:12] = whole[110:] = -1000
    order, flips = grid.moves_to(codes)
    axes = [n for n, flip in enumerate(flips) if flip]
    turned, hu = (np.flip(array.transpose(order), axes) for array in (lungs, whole))
    back, mirrored = grid.oriented(codes).moves_to("RAS")
    right, left = (
        np.flip(side.transpose(back), [n for n, flip in enumerate(mirrored) if flip])
        for side in divide(turned, grid.oriented(codes), hu)
    )
    assert np.array_equal(right | left, lungs)
    assert not (right & left).any()
    # The boxes are 28 mm wide; the bridge, 6 mm long, is cut in its middle to the width of a coarse voxel.
    assert right[64:].sum() == lungs[64:].sum()
    assert left[:56].sum() == lungs[:56].sum()
    expected = divide(lungs, grid, whole)
    assert np.array_equal(right, expected[0])


def test_airless_parts_are_removed_from_the_lungs():
    lungs = np.zeros((60, 30, 40), dtype=bool)
    lungs[5:55, 5:25, 5:35] = True
    lungs[20:32, 10:20] = False
    hu = np.where(lungs, -850, -1000)
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


PHANTOM = default_grid((6.0, 7.0, 9.0))  # 65 x 43 x 37 voxels or so


@pytest.fixture(scope="module")
def phantom():
    """The HU of the phantom, its right and its left lung, all RAS."""
    grid = PHANTOM.oriented("RAS")
    truth = np.asarray(Thorax().truth(grid).array)
    return np.asarray(Thorax().scan(grid).array), np.isin(truth, (1, 3)), np.isin(truth, (2, 4))


def turned(arrays, codes):
    order, flips = PHANTOM.oriented("RAS").moves_to(codes)
    return [np.flip(a.transpose(order), [n for n, flip in enumerate(flips) if flip]) for a in arrays]


def ball(middle_mm, radius_mm):
    x, y, z = np.meshgrid(*map(np.arange, PHANTOM.oriented("RAS").shape), indexing="ij")
    world = PHANTOM.oriented("RAS").world(np.stack([x, y, z], axis=-1).reshape(-1, 3))
    return (((world - middle_mm) ** 2).sum(axis=1) <= radius_mm**2).reshape(x.shape)


def check_sides(hu, mask, right, left, codes, grid=None):
    """The sides found in a mask are those of the truth where it has any, and no lung is left out."""
    hu, mask, right, left = turned((hu, mask, right, left), codes)
    grid = (grid or PHANTOM).oriented(codes)
    found_right, found_left, _ = find_sides(Runs.of(mask), Volume(hu, grid))
    found_right, found_left = found_right.binary(), found_left.binary()
    assert not (found_right & left).any()
    assert not (found_left & right).any()
    assert ((found_right | found_left) & (right | left)).sum() == ((right | left) & mask).sum()
    return found_right, found_left


def lone(phantom, side, *, filled):
    """One lung alone in the mask; in the scan, soft tissue stands in the place of the other if asked."""
    hu, right, left = phantom
    kept, gone = (right, left) if side == "right" else (left, right)
    none = np.zeros_like(kept)
    hu = np.where(gone, 40, hu).astype(np.int16) if filled else hu
    return hu, kept, *((kept, none) if side == "right" else (none, kept))


@pytest.mark.parametrize("codes", orientations())
def test_no_mask_changes_sides_in_any_of_48_orientations(phantom, codes):
    """Whatever else is in the mask: a lone lung, a stray beside the body, one in the body; joined lungs."""
    hu, right, left = phantom
    check_sides(hu, right | left, right, left, codes)
    for side in ("right", "left"):
        for filled in (True, False):
            check_sides(*lone(phantom, side, filled=filled), codes)
    bridge = ball((0.0, 60.0, 20.0), 35.0)
    stray = ball((-185.0, 90.0, 30.0), 27.0)  # 86 ml, in front of the left arm's place
    assert (hu[stray] < -900).all()
    far_from_bridge = ~ball((0.0, 60.0, 20.0), 50.0)
    found = check_sides(
        hu, right | left | bridge | stray, right & far_from_bridge, left & far_from_bridge, codes
    )
    assert not (turned((stray,), codes)[0] & (found[0] | found[1])).any()


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_stray_in_the_body_does_not_change_the_side_of_a_lone_lung(phantom, side):
    for place in ((90.0, 20.0, -125.0), (-90.0, 20.0, -125.0)):
        gas = ball(place, 27.0)
        hu, mask, right, left = lone(phantom, side, filled=True)
        gas &= ~mask
        assert gas.any()
        check_sides(np.where(gas, -1000, hu).astype(np.int16), mask | gas, right, left, "LPS")


@pytest.mark.parametrize("slices", [1, 2, 3, 4])
def test_slabs_in_which_the_lungs_touch_have_both_sides(slices):
    """Two boxes of 40 mm and a bridge of 24 mm, through every slice: no end of the scan is a surface."""
    grid = Grid.from_spacing((60, 40, slices), (2.0, 2.0, 3.0))
    lungs, hu = np.zeros(grid.shape, dtype=bool), np.full(grid.shape, -1000, dtype=np.int16)
    hu[4:56, 4:36] = 40
    lungs[8:28, 8:32] = lungs[32:52, 8:32] = lungs[28:32, 20:32] = True
    hu[lungs] = -850
    right, left = divide(lungs, grid, hu)
    assert right[32:].sum() == lungs[32:].sum()
    assert left[:28].sum() == lungs[:28].sum()
    assert np.array_equal(right | left, lungs)


def test_lung_of_unknown_side_is_left_out_and_reported():
    """A field of view within the chest, without spine, of one lung: 10 x 12 x 8 voxels of 0.012 ml."""
    lungs, hu = np.zeros(GRID.shape, dtype=bool), np.full(GRID.shape, 40, dtype=np.int16)
    lungs[10:20, 4:16, 1:9], hu[10:20, 4:16, 1:9] = True, -850
    right, left, (notice,) = find_sides(Runs.of(lungs), Volume(hu, GRID, Source(path="chest.nii.gz")))
    assert not right.size
    assert not left.size
    assert notice.reason == "side-unknown"
    assert "12 ml of lung" in notice.text
    assert notice.path == "chest.nii.gz"


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SAL"])
@pytest.mark.parametrize("slices", [1, 2, 12])
def test_lung_between_two_estimates_of_the_midline_has_no_side(codes, slices):
    # A body of 305 mm whose outline has its middle at 200 mm, and a spine at 245 mm.
    hu = np.full((80, 60, slices), -1000, dtype=np.int16)
    hu[10:71, 10:50], hu[46:53, 20:29] = 40, 400
    lung = np.zeros(hu.shape, dtype=bool)
    lung[42:47, 32:45] = True
    hu[lung] = -850
    grid = Grid.from_spacing(hu.shape, (5.0, 5.0, 5.0))
    moves, flips = grid.moves_to(codes)
    axes = tuple(axis for axis, flip in enumerate(flips) if flip)
    arrays = [np.flip(array.transpose(moves), axes) for array in (lung, hu)]
    right, left = divide(arrays[0], grid.oriented(codes), arrays[1])
    assert not right.any()
    assert not left.any()
    # Beside both estimates its side is known.
    beside = np.roll(arrays[0], 12 if "R" in codes else -12, axis=moves.index(0))
    right, left = divide(beside, grid.oriented(codes), np.where(beside, -850, arrays[1]))
    assert np.array_equal(right, beside)


def test_air_around_the_patient_is_left_out_and_reported(phantom):
    hu, right, left = phantom
    stray = ball((-185.0, 90.0, 30.0), 27.0)
    grid = PHANTOM.oriented("RAS")
    *found, (notice,) = find_sides(Runs.of(right | left | stray), Volume(hu, grid))
    assert sum(side.size for side in found) == (right | left).sum()
    assert notice.reason == "outside-body"
    assert f"{stray.sum() * grid.voxel_ml:.0f} ml of air" in notice.text


def test_a_lung_as_dark_as_emphysema_that_the_field_of_view_cuts_is_not_air():
    """Half of it below -950 HU, with denser lung between, up to the edge of the scan."""
    lungs, hu = np.zeros(GRID.shape, dtype=bool), np.full(GRID.shape, 40, dtype=np.int16)
    lungs[:13, 4:16, 1:9] = True
    hu[lungs] = np.random.default_rng(0).choice([-880, -980], lungs.sum())
    hu[25:] = -1000
    stray = np.zeros_like(lungs)
    stray[26:30, 4:16, 1:9] = True
    found = medseg.inference.lung_exclusions.without_strays(Runs.of(lungs | stray), GRID, hu)
    assert np.array_equal(found.binary(), lungs)


def test_bone_taken_for_a_spine_in_half_a_chest_does_not_move_a_lung_to_the_other_side():
    # Half a body without its spine: a shoulder blade lies deep enough to be one, and the lung medial to it.
    hu = np.full((50, 60, 4), -1000, dtype=np.int16)
    hu[:40, 10:40] = 40
    hu[17:24, 13:22] = 500
    lung = np.zeros(hu.shape, dtype=bool)
    lung[2:15, 24:38] = True
    hu[lung] = -850
    for codes in ("RAS", "LPI"):
        grid = Grid.from_spacing(hu.shape, (5.0, 5.0, 5.0))
        axes = tuple(axis for axis, flip in enumerate(grid.moves_to(codes)[1]) if flip)
        right, left = divide(np.flip(lung, axes), grid.oriented(codes), np.flip(hu, axes))
        assert not left.any()
        assert not right.any()  # the air beside it says right, the bone left
    hu[17:24, 13:22] = 40  # without that bone it is the lateral side
    right, left = divide(lung, grid, hu)
    assert np.array_equal(right, lung)
    assert not left.any()


def half_chest(codes):
    """Half a body of 34 x 30 points of 5 mm, its lung, and a hollow table behind it, each cut by one face."""
    hu = np.full((40, 50, 24), -1000, dtype=np.int16)
    hu[:34, 16:46] = 40
    lung = np.zeros(hu.shape, dtype=bool)
    lung[:28, 20:42, 2:22] = True
    hu[lung] = -850
    table = np.zeros(hu.shape, dtype=bool)
    table[:, 6:12] = True  # 5 points of air lie between it and the body
    hu[table] = -900
    hu[:, [5, 12]] = -100
    grid = Grid.from_spacing(hu.shape, (5.0, 5.0, 5.0))
    moves, flips = grid.moves_to(codes)
    axes = tuple(axis for axis, flip in enumerate(flips) if flip)
    lung, table, hu = (np.flip(array.transpose(moves), axes) for array in (lung, table, hu))
    return lung, table, hu, grid.oriented(codes)


@pytest.mark.parametrize("codes", orientations())
def test_the_core_of_a_table_is_no_lung_beside_half_a_chest(codes):
    lung, table, hu, grid = half_chest(codes)
    right, left, notices = find_sides(Runs.of(lung | table), Volume(hu, grid))
    assert np.array_equal(right.binary(), lung)
    assert not left.size
    assert [each.reason for each in notices] == ["outside-body"]


@pytest.mark.parametrize("thick", [1, 2, 3])
def test_a_thin_plate_that_the_lattice_misses_closes_a_table(thick):
    lung, table, hu, _ = half_chest("RAS")
    # At voxels of 5 / 3 mm the plates are 1 to 3 voxels thick; every third voxel is a point of the lattice.
    lung, table, hu = (array.repeat(3, 0).repeat(3, 1) for array in (lung, table, hu))
    plates = hu == -100
    hu = np.where(plates, -1000, hu)
    hu[:, 38 : 38 - thick : -1] = hu[:, 15 : 15 + thick] = -100
    core = np.zeros_like(table)
    core[:, 15 + thick : 39 - thick] = True
    hu[core] = -900
    grid = Grid.from_spacing(hu.shape, (5 / 3, 5 / 3, 5.0))
    right, left, _ = find_sides(Runs.of(lung | core), Volume(hu, grid))
    assert np.array_equal(right.binary(), lung)
    assert not left.size


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAL"])
def test_two_parts_in_half_a_chest_have_no_side_if_both_may_be_lungs(codes):
    """A lung, and as much in front of the heart beyond it: the other lung, or a lobe of the same one?"""
    hu = np.full((60, 40, 20), -1000, dtype=np.int16)
    hu[:50] = 40
    lung, other = np.zeros(hu.shape, dtype=bool), np.zeros(hu.shape, dtype=bool)
    lung[24:46, 6:34, 2:18], other[2:20, 6:34, 2:18] = True, True
    grid = Grid.from_spacing(hu.shape, (4.0, 5.0, 5.0))
    moves, flips = grid.moves_to(codes)
    axes = tuple(axis for axis, flip in enumerate(flips) if flip)
    for mask, sizes in ((lung | other, (0, 0)), (lung, (lung.sum(), 0))):
        scan = np.where(mask, -850, hu)
        turned_mask, turned_hu = (np.flip(array.transpose(moves), axes) for array in (mask, scan))
        right, left, notices = find_sides(Runs.of(turned_mask), Volume(turned_hu, grid.oriented(codes)))
        assert (right.size, left.size) == sizes
        assert [each.reason for each in notices] == ([] if sum(sizes) else ["side-unknown"])
    # A smaller piece beyond the lung is left out, one beside it belongs to it.
    piece, lobe = np.zeros_like(lung), np.zeros_like(lung)
    piece[2:8, 6:20, 2:18], lobe[40:48, 6:34, 18:20], lung[40:48, 6:34, 16:18] = True, True, False
    mask = lung | piece | lobe
    turned_mask, turned_hu = (
        np.flip(array.transpose(moves), axes) for array in (mask, np.where(mask, -850, hu))
    )
    right, left, _ = find_sides(Runs.of(turned_mask), Volume(turned_hu, grid.oriented(codes)))
    assert right.size == lung.sum() + lobe.sum()
    assert not left.size


def test_two_lobes_in_a_view_that_cuts_the_body_on_both_sides_have_no_side():
    """A reconstruction of one lung: the order of its two lobes is no evidence for two lungs."""
    lungs, hu = np.zeros(GRID.shape, dtype=bool), np.full(GRID.shape, 40, dtype=np.int16)
    lungs[3:13, 4:16, 1:9] = lungs[15:27, 4:16, 1:9] = True
    hu[lungs] = -850
    large = Grid.from_spacing(GRID.shape, (6.0, 8.0, 9.0))
    right, left, (notice,) = find_sides(Runs.of(lungs), Volume(hu, large))
    assert not right.size
    assert not left.size
    assert notice.reason == "side-unknown"
