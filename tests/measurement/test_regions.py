from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medseg.images.grid import Grid
from medseg.images.volume import Mask, Volume
from medseg.measurement.measures import REGISTRY
from medseg.measurement.regions import PARTS, bounding_box, lung_regions
from medseg.measurement.scan_measurement import cut_lungs, measure
from medseg.phantom.thorax import LABELS, Thorax, default_grid, orientations, rotated

GRID = default_grid((11.0, 12.0, 13.0))
PATIENT = Thorax.random(4711)


@pytest.fixture(scope="module", params=[(0.0, 0.0, 0.0), (8.0, -5.0, 12.0)], ids=["straight", "oblique"])
def patient(request: pytest.FixtureRequest) -> tuple[Volume, Mask]:
    grid = rotated(GRID, request.param)
    return PATIENT.scan(grid), Mask(PATIENT.truth(grid).array, grid, LABELS[:2])


def world_of(mask: Mask, name: str) -> np.ndarray:
    """Places (n, 3) in RAS+ mm of the voxels of a label."""
    return mask.grid.world(np.argwhere(mask.of(name)))


def test_sides_and_parts_are_those_of_the_truth_in_all_48_orders(patient):
    scan, mask = patient
    upright = measure(scan, mask)
    for axcodes in orientations():
        turned = scan.oriented(axcodes), mask.oriented(axcodes)
        stored = Volume(np.ascontiguousarray(turned[0].array), turned[0].grid)
        labels = Mask(np.ascontiguousarray(turned[1].array), turned[1].grid, mask.labels)
        found = measure(stored, labels)
        assert [row.region for row in found.rows] == [row.region for row in upright.rows]
        for row, expected in zip(found.rows, upright.rows, strict=True):
            for name, value in expected.values.items():
                assert row.values[name] == pytest.approx(value), (axcodes, row.structure, row.region, name)


def test_every_region_is_that_of_the_truth_in_all_48_orders(patient):
    """The HU of each voxel name its side and its place, so that each region shows whose voxels it holds.

    Each division has its own code, and its means are compared with those of the truth in world coordinates.
    """
    _, mask = patient
    right = mask.of("right_lung")
    world = mask.grid.world(np.argwhere(np.ones(mask.grid.shape, bool)).astype(float))
    codes = {
        "side": np.where(right, -900.0, -500.0),
        "height": -900 + world[:, 2].reshape(mask.grid.shape),
        "front": -900 + world[:, 1].reshape(mask.grid.shape),
    }
    depth = {
        side: ndimage.distance_transform_edt(np.pad(mask.of(side), 1), sampling=mask.grid.spacing_mm)
        for side in ("right_lung", "left_lung")
    }
    codes["depth"] = -900 + sum(depth.values())[1:-1, 1:-1, 1:-1]
    for axcodes in orientations():
        labels = mask.oriented(axcodes)
        labels = Mask(np.ascontiguousarray(labels.array), labels.grid, mask.labels)
        for code, values in codes.items():
            hu = Volume(values.astype(np.float32), mask.grid).oriented(axcodes)
            scan = Volume(np.ascontiguousarray(hu.array), hu.grid)
            cut = cut_lungs(scan, labels)
            found = lung_regions(cut.sides, cut.hu, cut.grid, 25.0)
            for name, side in (("right_lung", 1), ("left_lung", 2)):
                inside = values[mask.of(name)]
                where = axcodes, name, code
                whole = found.distribution((side,))
                assert whole.mean == pytest.approx(inside.mean(), abs=0.01), where
                parts = {part: found.distribution((side,), part).mean for part in PARTS}
                if code == "side":
                    assert set(parts.values()) == {-900.0 if name == "right_lung" else -500.0}, where
                elif code == "height":
                    for by in ("volume", "height"):
                        upper, middle, lower = (
                            parts[f"{third}_third_by_{by}"] for third in ("upper", "middle", "lower")
                        )
                        assert upper > middle + 10 > lower + 20, where
                elif code == "front":
                    assert parts["ventral_half"] > parts["dorsal_half"] + 10, where
                    middle = (inside.min() + inside.max()) / 2
                    front = inside[inside > middle + 0.02].mean()
                    assert parts["ventral_half"] == pytest.approx(front, abs=1.0), where
                else:
                    assert parts["rind"] == pytest.approx(inside[inside <= -875 + 1e-4].mean(), abs=0.01), (
                        where
                    )
                    assert parts["core"] == pytest.approx(inside[inside > -875 + 1e-4].mean(), abs=0.01), (
                        where
                    )


def test_each_side_has_the_voxels_of_its_label(patient):
    scan, mask = patient
    found = measure(scan, mask)
    for name in ("right_lung", "left_lung"):
        inside = scan.array[mask.of(name)]
        assert found[name]["volume_ml"] == pytest.approx(mask.volumes_ml()[name])
        assert found[name]["mean_hu"] == pytest.approx(inside.mean(dtype=float))
        assert found[name]["laa856_percent"] == pytest.approx(100 * np.mean(inside < -856))
    both = sum(mask.volumes_ml().values())
    assert found["both_lungs"]["volume_ml"] == pytest.approx(both)


def test_thirds_and_halves_are_those_of_world_coordinates(patient):
    scan, mask = patient
    found = measure(scan, mask)
    for name in ("right_lung", "left_lung"):
        place = world_of(mask, name)
        height, ventral = place[:, 2], place[:, 1]
        low, high = height.min(), height.max()
        step = (
            0.0 if abs(mask.grid.affine[2, :2]).sum() else 13.0
        )  # planes of a straight grid have a thickness
        cut = np.floor(3 * (high + step / 2 - height) / (high - low + step) - 1e-9).clip(0, 2)
        parts = [
            found.of(name, f"{part}_third_by_height")["volume_ml"] for part in ("upper", "middle", "lower")
        ]
        voxels = [np.count_nonzero(cut == number) for number in range(3)]
        # Within a hundredth of a millimetre of a boundary an oblique grid's voxel may fall on either side.
        np.testing.assert_allclose(np.array(parts) / mask.grid.voxel_ml, voxels, atol=2)
        front = np.count_nonzero(ventral > (ventral.min() + ventral.max()) / 2 + 0.01)
        half = found.of(name, "ventral_half")["volume_ml"] / mask.grid.voxel_ml
        assert half == pytest.approx(front, abs=2)
        whole = found[name]["volume_ml"]
        for part in ("upper", "middle", "lower"):
            # A plane is not divided, so a third may be off by half of the largest one.
            third = found.of(name, f"{part}_third_by_volume")["volume_ml"]
            assert third == pytest.approx(whole / 3, abs=0.1 * whole)


def test_the_rind_is_that_of_a_distance_transform_of_each_lung(patient):
    scan, mask = patient
    found = measure(scan, mask, rind_mm=25.0)
    for name in ("right_lung", "left_lung"):
        depth = ndimage.distance_transform_edt(np.pad(mask.of(name), 1), sampling=mask.grid.spacing_mm)
        rind = np.count_nonzero((depth > 0) & (depth <= 25.0 + 1e-6)) * mask.grid.voxel_ml
        assert found.of(name, "rind")["volume_ml"] == pytest.approx(rind)
        assert 0 < found.of(name, "core")["volume_ml"] < found[name]["volume_ml"]


def test_the_parts_of_a_division_make_the_whole(patient):
    found = measure(*patient)
    for name in ("right_lung", "left_lung", "both_lungs"):
        for division in {division for division, _ in PARTS.values()}:
            parts = [part for part, (of, _) in PARTS.items() if of == division]
            for column in ("volume_ml", "mass_g"):
                total = sum(found.of(name, part)[column] for part in parts)
                assert total == pytest.approx(found[name][column]), (name, division)


def test_the_upright_phantom_is_denser_at_the_back(patient):
    found = measure(*patient)
    for name in ("right_lung", "left_lung"):
        front, back = (found.of(name, f"{half}_half")["median_hu"] for half in ("ventral", "dorsal"))
        assert front < back - 10


def test_thirds_by_hand():
    # One lung of 6 planes of 4 mm with 1, 1, 1, 3, 3, 9 voxels from bottom to top; each plane has its own HU.
    sides = np.zeros((9, 1, 6), np.uint8)
    for z, voxels in enumerate((1, 1, 1, 3, 3, 9)):
        sides[:voxels, 0, z] = 1
    hu = np.broadcast_to(np.array([-600, -700, -800, -900, -910, -990], np.int16), sides.shape)
    found = lung_regions(sides, hu, Grid.from_spacing(sides.shape, (2.0, 3.0, 4.0)))
    seen = {part: sorted(set(_hu(found.distribution((1,), part)))) for part in PARTS}
    # By height two planes each. By volume 18 / 3 = 6 voxels: the middle voxels of the planes lie 4.5, 10.5,
    # 13.5, 15.5, 16.5 and 17.5 from the top.
    assert seen["upper_third_by_height"] == [-990, -910]
    assert seen["middle_third_by_height"] == [-900, -800]
    assert seen["upper_third_by_volume"] == [-990]
    assert seen["middle_third_by_volume"] == [-910]
    assert seen["lower_third_by_volume"] == [-900, -800, -700, -600]
    assert found.distribution((1,)).volume_ml == pytest.approx(18 * 0.024)
    assert found.distribution((2,)).voxels == 0


def _hu(distribution) -> list[float]:
    return [float(each) for each in distribution.values[distribution.counts > 0]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.int32])
def test_fractions_of_hu_give_exact_means_and_strict_thresholds(dtype):
    rng = np.random.default_rng(0)
    hu = rng.normal(-900, 60, (12, 13, 14))
    hu[:4] = -950
    hu = hu.astype(dtype)
    sides = np.ones(hu.shape, np.uint8)
    found = lung_regions(sides, hu, Grid.from_spacing(hu.shape)).distribution((1,))
    assert found.mean == pytest.approx(hu.mean(dtype=float))
    assert REGISTRY["laa950_percent"].compute(found) == pytest.approx(100 * np.mean(hu < -950))
    # Fractions are counted in sixteenths.
    assert found.percentile(15) == pytest.approx(np.percentile(hu, 15), abs=1 / 16)


def test_the_box_of_an_array_in_any_memory_layout():
    array = np.zeros((5, 6, 7), np.uint8)
    array[1:3, 4, 2:7] = 3
    for view in (array, np.asfortranarray(array), array > 0):
        assert bounding_box(view) == (slice(1, 3), slice(4, 5), slice(2, 7))
    assert bounding_box(array.transpose(2, 0, 1)) == (slice(2, 7), slice(1, 3), slice(4, 5))
    assert bounding_box(np.zeros((2, 2, 2), bool)) is None
