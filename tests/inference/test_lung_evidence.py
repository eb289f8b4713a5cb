"""Which voxels are lung, on two boxes with numbers that can be checked on paper."""

from dataclasses import replace

import numpy as np
import pytest

from medseg.images.grid import Grid
from medseg.inference.lung_evidence import Evidence, combine_evidence

SHAPE = (40, 24, 34)
GRID = Grid(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0]))
RIGHT, LEFT = np.s_[24:36, 4:20, 4:20], np.s_[4:16, 4:20, 4:20]  # 12 x 16 x 16 voxels of 8 ul: 24.6 ml each
BESIDE = np.s_[24:36, 4:20, 20:30]  # 12 x 16 x 10 voxels above the right lung: 15.4 ml


@pytest.fixture
def chest():
    """The evidence on two aerated lungs that everything agrees about."""
    hu = np.full(SHAPE, 40, dtype=np.float32)
    dark = np.zeros(SHAPE, dtype=bool), np.zeros(SHAPE, dtype=bool)
    probable = np.zeros(SHAPE, dtype=np.float32)
    for side, place in zip(dark, (RIGHT, LEFT), strict=True):
        hu[place] = -850
        side[place] = True
        probable[place] = 0.9
    return Evidence(hu, dark, probable, probable.copy(), probable.copy(), GRID)


def found(evidence):
    return combine_evidence(evidence) > 0.5


def test_aerated_lung_needs_thresholds_and_the_coarse_network_only(chest):
    chest.fine[:] = 0.2  # the fine network alone would find nothing
    assert np.array_equal(found(chest), chest.dark[0] | chest.dark[1])


def test_a_dark_region_that_the_coarse_network_rejects_is_not_lung(chest):
    chest.coarse[LEFT] = chest.slices[LEFT] = 0.0
    lungs = found(chest)
    assert lungs[RIGHT].all()
    assert not lungs[LEFT].any()


@pytest.mark.parametrize(
    ("hu", "probability", "lung"),
    [
        (40, 0.9, True),  # consolidation on which both networks agree
        (40, 0.55, False),  # soft tissue needs a higher probability
        (-90, 0.9, False),  # fat
        (-90, 0.99, True),
        (-990, 0.9, False),  # bowel: air away from the threshold masks
    ],
)
def test_voxels_outside_the_threshold_masks(chest, hu, probability, lung):
    # A layer of 8 mm beside the right lung; the tested voxel is 6 mm away from the lung.
    layer = np.s_[24:36, 4:20, 20:24]
    chest.hu[layer] = hu
    chest.coarse[layer] = chest.fine[layer] = probability
    assert found(chest)[30, 12, 22] == lung


@pytest.mark.parametrize(("slices", "lung"), [(0.9, True), (0.1, False)])
def test_air_beside_the_threshold_masks_is_lung_if_the_slice_network_agrees(chest, slices, lung):
    layer = np.s_[24:36, 4:20, 20:22]
    chest.hu[layer] = -700
    chest.coarse[layer] = chest.fine[layer] = 0.9
    chest.slices[layer] = slices
    assert found(chest)[30, 12, 20] == lung


@pytest.mark.parametrize(("layers", "lung"), [(2, False), (3, True)])
def test_a_thin_dense_layer_at_the_surface_is_chest_wall(chest, layers, lung):
    layer = np.s_[24:36, 4:20, 20 : 20 + layers]
    chest.coarse[layer] = chest.fine[layer] = 0.9
    assert found(chest)[30, 12, 20] == lung


def test_a_lung_missed_by_thresholds_is_found_if_both_networks_are_sure():
    shape = (40, 30, 30)
    grid, place = Grid(shape, np.diag([2.0, 2.0, 2.0, 1.0])), np.s_[20:38, 4:26, 4:26]  # 8712 voxels: 70 ml
    hu, none = np.full(shape, 40, dtype=np.float32), np.zeros(shape, dtype=bool)
    hu[place] = -850
    probable = np.zeros(shape, dtype=np.float32)
    probable[place] = 0.95
    assert np.count_nonzero(found(Evidence(hu, (none, none), probable, probable, probable, grid))) == 8712


@pytest.mark.parametrize(("hu", "lung"), [(-950, False), (-850, True)])
def test_gas_below_a_lung_is_not_lung_though_all_networks_are_sure(hu, lung):
    shape = (40, 60, 40)  # of 3 mm: 24 x 40 x 12 voxels of 27 ul are 311 ml
    grid = Grid(shape, np.diag([3.0, 3.0, 3.0, 1.0]))
    above, below = np.s_[8:32, 10:50, 24:36], np.s_[8:32, 10:50, 6:18]
    values, dark = np.full(shape, 40, dtype=np.float32), np.zeros(shape, dtype=bool)
    probable = np.zeros(shape, dtype=np.float32)
    for place, density in ((above, -850), (below, hu)):
        values[place], probable[place] = density, 0.95
    dark[above] = True
    # The guard compares without the gas: with it, the Dice would be 2 / 3, and the slice network would
    # decide.
    lungs = found(Evidence(values, (dark, np.zeros_like(dark)), probable, probable, probable, grid))
    assert lungs[above].all()
    assert lungs[below].all() == lungs[below].any() == lung


@pytest.mark.parametrize(
    ("coarse", "mm", "lung"),
    [
        (0.1, 3.0, True),  # 1920 voxels of 27 ul: 52 ml
        (0.07, 3.0, False),  # the coarse network rules it out
        (0.1, 2.0, False),  # 15 ml: too little
    ],
)
def test_airless_lung_of_the_slice_network_needs_volume_and_the_coarse_network(chest, coarse, mm, lung):
    chest.slices[BESIDE], chest.coarse[BESIDE] = 0.9, coarse
    larger = replace(chest, grid=Grid(SHAPE, np.diag([mm, mm, mm, 1.0])))
    assert found(larger)[BESIDE].all() == lung
    assert found(larger)[BESIDE].any() == lung


def test_airless_tissue_away_from_the_lungs_is_not_lung(chest):
    away = np.s_[24:36, 4:20, 23:34]
    chest.slices[away], chest.coarse[away] = 0.9, 0.1
    larger = replace(chest, grid=Grid(SHAPE, np.diag([3.0, 3.0, 3.0, 1.0])))
    assert not found(larger)[away].any()


def test_other_aerated_lungs_of_the_slice_network_are_its_own_decision(chest):
    # Dice of one lung with both: 2 * 1 / (1 + 2) = 0.67
    chest.slices[LEFT] = 0.0
    assert combine_evidence(chest) is None


def test_without_thresholds_the_slice_network_decides(chest):
    none = np.zeros(SHAPE, dtype=bool)
    assert combine_evidence(replace(chest, dark=(none, none), coarse=chest.coarse * 0)) is None


@pytest.mark.parametrize("name", ["slices", "coarse", "fine", None])
def test_a_trachea_in_a_threshold_mask_is_not_lung_if_no_network_says_so(chest, name):
    trachea = np.s_[19:25, 8:16, 4:31]  # 6 x 8 x 27 voxels: 10.4 ml
    chest.dark[0][trachea], chest.hu[trachea] = True, -980
    for each in ("coarse", "fine", "slices"):
        getattr(chest, each)[trachea] = 0.9 if each == name else 0.0
    lungs = found(chest)
    assert lungs[21, 12, 12] == (name is not None)
    assert lungs[30, 12, 12]


@pytest.mark.parametrize(
    ("hu", "fine", "slices", "lung"),
    [
        (40, 0.55, 0.0, True),
        (40, 0.45, 0.0, False),
        (40, 0.25, 0.9, True),  # a vessel on which the slice network agrees
        (40, 0.15, 0.9, False),
        (-90, 0.25, 0.9, False),  # fat
    ],
)
def test_dense_voxels_in_a_threshold_mask(chest, hu, fine, slices, lung):
    vessel = np.s_[28:32, 10:14, 10:14]
    chest.hu[vessel], chest.fine[vessel], chest.slices[vessel] = hu, fine, slices
    assert found(chest)[29:31, 11:13, 11:13].all() == lung
    assert found(chest)[29:31, 11:13, 11:13].any() == lung


def test_an_airless_component_is_not_lung(chest):
    chest.hu[LEFT] = 40
    chest.dark[1][:] = False
    lungs = found(chest)
    assert lungs[RIGHT].all()
    assert not lungs[LEFT].any()


def test_without_air_there_is_no_lung(chest):
    none = np.zeros(SHAPE, dtype=bool)
    airless = replace(chest, hu=np.full_like(chest.hu, 40), dark=(none, none))
    assert combine_evidence(airless).max() < 0.5


def test_the_surface_of_aerated_lung_lies_between_voxels_as_their_hu_say(chest):
    # -850 is 450 below -400 of 600: 0.5 + 0.5 (at most); fine 0.9 + 0.5 - 0.5 = 0.9: the larger is 1.
    probable = combine_evidence(chest)
    assert probable[30, 12, 12] == 1
    # Soft tissue of probability 0: 0.5 + 0 - (0.5 + 0.1 + 0.3) = -0.4, and not below 0.
    assert probable[30, 12, 21] == 0


def test_the_surface_of_aerated_lung_follows_the_hu_beyond_the_mask(chest):
    # -370 is 30 above -400 of 600: 0.5 - 30 / 600 = 0.45; the fine network alone would give 0.
    chest.hu[30, 12, 20], chest.hu[30, 12, 22] = -370, -370
    probable = combine_evidence(chest)
    assert probable[30, 12, 20] == pytest.approx(0.45)
    assert probable[30, 12, 22] == 0  # no lung beside it


def test_air_beside_the_mask_does_not_move_its_surface(chest):
    chest.hu[30, 12, 20] = -990  # airway
    assert combine_evidence(chest)[30, 12, 20] == 0


def test_a_bronchus_that_only_the_slice_network_denies_has_its_probability(chest):
    # Without the slice network it would be 0.48, just below lung, and lung between it and the next voxel.
    chest.hu[30, 12, 20], chest.fine[30, 12, 20], chest.coarse[30, 12, 20] = -990, 0.9, 0.9
    chest.slices[30, 12, 20] = 0.1
    assert combine_evidence(chest)[30, 12, 20] == pytest.approx(0.1)
