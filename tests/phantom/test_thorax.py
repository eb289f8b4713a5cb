from __future__ import annotations

import math

import numpy as np
import pytest

from medseg.errors import UsageError
from medseg.images.grid import Grid
from medseg.images.volume import Mask
from medseg.phantom.thorax import LABELS, Nodule, Thorax, default_grid, orientations, rotated

COARSE = default_grid((6.0, 7.0, 8.0))


def centroid(mask: Mask, name: str) -> np.ndarray:
    return mask.grid.world(np.argwhere(mask.of(name))).mean(axis=0)


def test_sides_are_the_patients():
    # RAS+: +x is the patient's right, +y the front, +z the head.
    truth = Thorax().truth(COARSE)
    assert centroid(truth, "right_lung")[0] > 40
    assert centroid(truth, "left_lung")[0] < -40
    assert centroid(truth, "heart")[0] < 0
    assert centroid(truth, "spine")[1] < centroid(truth, "heart")[1]
    assert centroid(truth, "airway")[2] > centroid(truth, "heart")[2]


def test_the_right_lung_is_larger():
    volumes = Thorax().truth(COARSE).volumes_ml()
    assert volumes["right_lung"] > 1.05 * volumes["left_lung"]
    assert 1500 < volumes["left_lung"] < volumes["right_lung"] < 4000


@pytest.mark.parametrize("radius_mm", [5.0, 9.0])
def test_a_nodules_volume_is_that_of_a_sphere(radius_mm):
    center = (84.3, -31.4, 38.2)
    patient = Thorax(nodules=(Nodule(center, radius_mm, "right"),))
    grid = Grid.from_spacing((44, 44, 44), (0.5, 0.5, 0.5), origin_mm=np.array(center) - 10.75)
    ml = patient.truth(grid).volumes_ml()["right_nodule"]
    assert ml == pytest.approx(4 / 3 * math.pi * radius_mm**3 / 1000, rel=0.01)


def test_a_nodule_lies_inside_its_lung():
    truth = Thorax().truth(default_grid((3.0, 3.0, 3.0)))
    for side in ("right", "left"):
        nodule = truth.of(f"{side}_nodule")
        assert nodule.any()
        assert truth.of(f"{side}_lung")[nodule].all()


def test_the_trachea_is_a_cylinder():
    # Radius 8.6 mm between z = 50 and 150, tilted by hardly anything: pi r^2 h.
    grid = Grid.from_spacing((60, 70, 100), (0.5, 0.5, 1.0), origin_mm=(-12, -31, 50.5))
    ml = Thorax().truth(grid).volumes_ml()["airway"]
    assert ml == pytest.approx(math.pi * 8.6**2 * 100 / 1000, rel=0.02)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_no_mirror_symmetry(axis):
    array = Thorax().truth(Grid.from_spacing((40, 40, 40), (8, 8, 8), origin_mm=(-156, -156, -156))).array > 0
    both = (array & np.flip(array, axis)).sum() / array.sum()
    assert both < 0.97


def test_no_two_axes_are_alike():
    array = Thorax().truth(Grid.from_spacing((40, 40, 40), (8, 8, 8), origin_mm=(-156, -156, -156))).array > 0
    for order in ((1, 0, 2), (0, 2, 1), (2, 1, 0), (1, 2, 0), (2, 0, 1)):
        assert (array & np.transpose(array, order)).sum() / array.sum() < 0.9


def test_the_truth_is_the_same_in_world_space_on_every_grid():
    patient = Thorax.random(3)
    for grid in (
        rotated(COARSE, (9, -14, 21)),
        COARSE.oriented("SPL"),
        rotated(COARSE, (0, 30, 0)).oriented("ILA"),
    ):
        truth = patient.truth(grid)
        index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
        np.testing.assert_array_equal(truth.array, patient.label_at(grid.world(index)))


def test_the_scan_is_the_same_in_all_48_orientations():
    grid = rotated(default_grid((14.0, 16.0, 18.0)), (5, 6, 7))
    reference = Thorax().scan(grid, seed=2)
    assert len(set(orientations())) == 48
    for axcodes in orientations():
        scan = Thorax().scan(grid.oriented(axcodes), seed=2)
        np.testing.assert_array_equal(scan.oriented("RAS").array, reference.array)


def test_rotation_by_hand():
    # A quarter turn about z takes +x to +y; the centre stays.
    grid = Grid.from_spacing((3, 5, 7), (1, 1, 1))
    turned = rotated(grid, (0, 0, 90))
    np.testing.assert_allclose(turned.affine[:3, 0], (0, 1, 0), atol=1e-12)
    np.testing.assert_allclose(turned.affine[:3, 1], (-1, 0, 0), atol=1e-12)
    np.testing.assert_allclose(turned.corners_mm.mean(0), grid.corners_mm.mean(0))


def test_hounsfield_units_are_plausible():
    scan, truth = Thorax().scan(COARSE, noise_sd=0), Thorax().truth(COARSE)
    assert scan.array.dtype == np.int16
    assert scan.array[0, -1, 0] == -1000  # air beside the patient
    assert np.median(scan.array[truth.of("left_lung")]) == pytest.approx(-850, abs=30)
    assert np.median(scan.array[truth.of("heart")]) == pytest.approx(42, abs=10)


def test_the_lungs_density_is_not_rounded():
    # At y = 0 the gradient adds nothing: -850.9 HU is stored as -851. The median leaves vessels out.
    grid = Grid.from_spacing((9, 1, 9), (2, 2, 2), origin_mm=(-100, 0, 20))
    assert np.median(Thorax(lung_hu=-850.9).scan(grid, noise_sd=0).array) == -851


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_the_scan_does_not_depend_on_the_slabs_it_is_made_in(modality, monkeypatch):
    grid = default_grid((20.0, 22.0, 24.0))
    whole = Thorax().scan(grid, modality=modality, seed=4)
    monkeypatch.setattr("medseg.phantom.painting._SLAB_VOXELS", 1)
    np.testing.assert_array_equal(Thorax().scan(grid, modality=modality, seed=4).array, whole.array)


def test_noise_has_the_wanted_standard_deviation():
    clean, noisy = (Thorax().scan(COARSE, noise_sd=sd, seed=1).array.astype(float) for sd in (0, 25))
    soft = clean > -900  # not clipped at -1024
    assert np.std((noisy - clean)[soft]) == pytest.approx(25, rel=0.03)


def test_mr_has_dark_lungs_bright_fat_and_no_negative_values():
    scan, truth = Thorax().scan(COARSE, modality="MR"), Thorax().truth(COARSE)
    assert scan.source.modality == "MR"
    assert scan.array.min() >= 0
    assert np.median(scan.array[truth.of("left_lung")]) < np.median(scan.array[truth.of("heart")]) / 2


def test_same_seed_same_bytes():
    assert Thorax.random(7) == Thorax.random(7)
    assert Thorax.random(7) != Thorax.random(8)
    one, two, other = (Thorax().scan(COARSE, seed=seed).array for seed in (1, 1, 2))
    assert one.tobytes() == two.tobytes() != other.tobytes()


@pytest.mark.parametrize("seed", range(5))
def test_random_patients_have_all_structures_within_the_default_grid(seed):
    truth = Thorax.random(seed).truth(COARSE)
    volumes = truth.volumes_ml()
    assert all(volumes[name] > 0 for name in ("right_lung", "left_lung", "airway", "heart", "spine"))
    lungs = truth.of("right_lung") | truth.of("left_lung")
    assert not any(np.take(lungs, i, axis=a).any() for a in range(3) for i in (0, -1))
    assert {label.side for label in LABELS if "lung" in label.name} == {"left", "right"}


@pytest.mark.parametrize("wrong", [{"modality": "US"}, {"noise_sd": -1.0}, {"noise_sd": float("nan")}])
def test_impossible_scans_are_refused(wrong):
    with pytest.raises(UsageError, match="modality CT or MR"):
        Thorax().scan(COARSE, **wrong)
