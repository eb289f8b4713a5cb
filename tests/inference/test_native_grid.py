from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from medseg.images.grid import Grid
from medseg.inference.label_decision import LabelDecision
from medseg.inference.native_grid import label_map, label_runs, restored
from medseg.phantom.thorax import orientations, rotated
from medseg.preprocessing.resampling import resampled_grid


def whole(probabilities: torch.Tensor, prepared: Grid, source: Grid) -> np.ndarray:
    return restored([(0, probabilities)], prepared, source, labels=len(probabilities))


def binary(probabilities: torch.Tensor, prepared: Grid, source: Grid, threshold: float = 0.5) -> np.ndarray:
    (runs,) = label_runs(
        [(0, probabilities[None])], prepared, source, decision=LabelDecision((1,), threshold)
    )
    return runs.binary()


def numbers(probabilities: torch.Tensor, prepared: Grid, source: Grid) -> np.ndarray:
    decision = LabelDecision(tuple(range(1, len(probabilities) + 1)))
    found = label_map([(0, probabilities)], prepared, source, decision=decision)
    runs = label_runs([(0, probabilities)], prepared, source, decision=decision)
    for number, each in enumerate(runs, start=1):
        np.testing.assert_array_equal(each.binary(), found == number)
    return found


def smooth(grid: Grid) -> torch.Tensor:
    """A smooth probability without symmetry."""
    world = grid.world(np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1))
    wave = np.sin(world[..., 0] / 9) + np.cos(world[..., 1] / 7 + 1) + np.sin(world[..., 2] / 11 + 2)
    return torch.from_numpy((1 / (1 + np.exp(-2 * wave))).astype(np.float32))


@pytest.mark.parametrize("axcodes", orientations())
@pytest.mark.parametrize("turn", [(0.0, 0.0, 0.0), (11.0, -7.0, 19.0)])
def test_restored_probabilities_agree_with_simpleitk(axcodes, turn):
    base = rotated(Grid.from_spacing((19, 16, 13), (2.0, 2.5, 3.1), origin_mm=(-20, 4, 8)), turn)
    prepared = resampled_grid(base, (3.3, 3.0, 3.5))
    source = base.oriented(axcodes)
    probabilities = smooth(prepared)
    (ours,) = whole(probabilities[None], prepared, source)
    oracle, inside = by_simpleitk(probabilities.numpy(), prepared, source)
    assert inside.mean() > 0.5
    np.testing.assert_allclose(ours[inside], oracle[inside], atol=2e-5)


def by_simpleitk(values: np.ndarray, grid: Grid, target: Grid) -> tuple[np.ndarray, np.ndarray]:
    # ITK's world is LPS: x and y change sign.
    flip = np.diag([-1.0, -1.0, 1.0])
    image = sitk.GetImageFromArray(values.transpose(2, 1, 0))
    image.SetSpacing(grid.spacing_mm)
    image.SetDirection((flip @ grid.direction).ravel().tolist())
    image.SetOrigin((flip @ grid.affine[:3, 3]).tolist())
    done = sitk.Resample(
        image, target.shape, sitk.Transform(), sitk.sitkLinear, (flip @ target.affine[:3, 3]).tolist(),
        target.spacing_mm, (flip @ target.direction).ravel().tolist(), -9.0,
    )  # fmt: skip
    array = sitk.GetArrayFromImage(done).transpose(2, 1, 0)
    return array, array != -9.0


def test_outside_the_crop_is_zero_beyond_one_voxel_of_rim():
    source = Grid.from_spacing((10, 1, 1))
    prepared = Grid.from_spacing((2, 1, 1), (2, 2, 2), origin_mm=(4.5, 0, 0))
    (values,) = whole(torch.ones(1, 2, 1, 1), prepared, source)
    # Prepared centres at 4.5 and 6.5; one prepared voxel (2 mm) beyond them still counts: 2.5..8.5.
    assert values[:, 0, 0].tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 0]


@pytest.mark.parametrize("axcodes", ["RAS", "LPI", "SRA", "AIL"])
@pytest.mark.parametrize("each", [1, 2, 5, 100])
def test_portions_of_planes_do_not_change_the_result(axcodes, each):
    source = Grid.from_spacing((150, 140, 37), (1.0, 0.9, 1.1)).oriented(axcodes)
    prepared = resampled_grid(source.oriented("RAS"), (2.1, 3.0, 1.9))
    torch.manual_seed(0)
    chances = torch.softmax(3 * torch.randn(10, *prepared.shape), 0)[1:]
    portions = [(z, chances[..., z : z + each]) for z in range(0, prepared.shape[2], each)]
    one = [(0, chances)]
    np.testing.assert_array_equal(
        restored(portions, prepared, source, labels=9), restored(one, prepared, source, labels=9)
    )
    for threshold in (None, 0.2):
        ours, theirs = (
            label_runs(planes, prepared, source, decision=LabelDecision(tuple(range(1, 10)), threshold))
            for planes in (portions, one)
        )
        assert theirs[8].size
        for mine, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(mine.binary(), other.binary())


def test_thresholded_labels_are_those_of_restored_probabilities():
    source = Grid.from_spacing((31, 18, 35), (1.0, 1.2, 0.8)).oriented("PSL")
    prepared = resampled_grid(source, (2.1, 2.0, 2.3))
    torch.manual_seed(0)
    chances = torch.rand(11, *prepared.shape)
    found = label_runs([(0, chances)], prepared, source, decision=LabelDecision(tuple(range(1, 12)), 0.6))
    expected = whole(chances, prepared, source) >= np.float32(0.6)
    for runs, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(runs.binary(), wanted)


def test_threshold_is_inclusive():
    grid = Grid.from_spacing((3, 1, 1))
    values = torch.tensor([0.49, 0.5, 0.51]).reshape(3, 1, 1)
    assert binary(values, grid, grid, threshold=0.5).ravel().tolist() == [False, True, True]


def test_the_most_probable_label_is_numpys_argmax_of_restored_probabilities():
    source = Grid.from_spacing((21, 18, 35), (1.0, 1.2, 0.8)).oriented("PSL")
    prepared = resampled_grid(source, (2.1, 2.0, 2.3))
    chances = torch.softmax(
        4 * torch.randn(5, *prepared.shape, generator=torch.Generator().manual_seed(0)), 0
    )
    found = numbers(chances[1:], prepared, source)
    assert found.shape == source.shape
    np.testing.assert_array_equal(found, whole(chances, prepared, source).argmax(0))
    assert set(np.unique(found)) == {0, 1, 2, 3, 4}


def test_the_background_wins_outside_the_crop_and_in_a_tie():
    source = Grid.from_spacing((10, 1, 1))
    prepared = Grid.from_spacing((2, 1, 1), (2, 2, 2), origin_mm=(4.5, 0, 0))
    # As above, 3..8 are within reach.
    sure = torch.tensor([0.25, 0.5]).reshape(2, 1, 1, 1).expand(2, 2, 1, 1)
    assert numbers(sure, prepared, source).ravel().tolist() == [0, 0, 0, 2, 2, 2, 2, 2, 2, 0]
    # A label of one half is no more probable than the background; of equal labels the first is taken.
    tie = torch.full((1, 2, 1, 1), 0.5)
    assert not numbers(tie, prepared, source).any()
    equal = torch.full((2, 2, 1, 1), 0.375)
    assert numbers(equal, prepared, source).ravel().tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 0]


def test_a_small_sphere_survives_coarse_grids_better_than_labels_would():
    """Restoring probabilities beats nearest-neighbour labels on a 12 mm sphere."""
    source = Grid.from_spacing((40, 40, 40), (0.8, 0.8, 0.8))
    prepared = resampled_grid(source, (3.0, 3.0, 3.0))

    def signed(grid: Grid) -> np.ndarray:
        world = grid.world(np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1))
        return 6.0 - np.linalg.norm(world - (15.1, 16.3, 14.7), axis=-1)

    truth = signed(source) >= 0
    soft = torch.from_numpy((1 / (1 + np.exp(-signed(prepared)))).astype(np.float32))
    nearest = np.rint(prepared.index(source.world(np.argwhere(np.ones(source.shape))))).astype(int)
    nearest = np.clip(nearest, 0, np.array(prepared.shape) - 1)
    labels = (signed(prepared) >= 0)[tuple(nearest.T)].reshape(source.shape)

    def dice(found: np.ndarray) -> float:
        return 2 * (found & truth).sum() / (found.sum() + truth.sum())

    assert dice(binary(soft, prepared, source, threshold=0.5)) > dice(labels) + 0.03


def test_labels_are_painted_with_their_values():
    grid = Grid.from_spacing((4, 1, 1))
    # Voxel 0 has none, the others one label each.
    chances = torch.zeros(3, 4, 1, 1)
    chances[[0, 1, 2], [1, 2, 3]] = 1
    for values in ([1, 2, 3], [2, 3, 1], [4, 300, 1]):
        painted = label_map([(0, chances)], grid, grid, decision=LabelDecision(tuple(values)))
        assert painted.ravel().tolist() == [0, *values]
        assert painted.dtype == (np.uint16 if 300 in values else np.uint8)
