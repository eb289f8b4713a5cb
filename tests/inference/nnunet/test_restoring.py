"""Labels on the scan's grid from logits on a network's, compared with scikit-image and numpy."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from scipy.special import softmax
from skimage.transform import resize

from medseg.inference.nnunet.restoring import paint_classes, paint_mean, paint_regions, source_box, tiles
from medseg.preprocessing.nnunet import Frame
from medseg.recipe.pipeline import Configuration

RULES = Configuration.model_validate({"spacing_mm": [1, 1, 1], "intensity": [{"kind": "none"}]})


def place(shape: tuple[int, ...], cropped: tuple[int, ...], *, z_mm: float = 1) -> Frame:
    box = tuple(slice(0, n) for n in cropped)
    return Frame((0, 1, 2), (False,) * 3, box, shape, (z_mm, 1, 1), (1, 1, 1))


def logits(heads: int, shape: tuple[int, ...]) -> np.ndarray:
    smooth = np.random.default_rng(5).normal(size=(heads, *(max(2, n // 4) for n in shape)))
    return np.stack([resize(each, shape, 1) for each in smooth]).astype(np.float16)


def portions(values: np.ndarray, thick: int = 3):
    return [(n, values[:, n : n + thick]) for n in range(0, values.shape[1], thick)]


def resampled(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """As nnU-Net: linear in double precision, kept with 16 bits."""
    return np.stack(
        [resize(each.astype(float), shape, 1, mode="edge", anti_aliasing=False) for each in values]
    ).astype(np.float16)


@pytest.mark.parametrize("cropped", [(40, 33, 150), (9, 13, 17), (20, 22, 24)])
def test_each_voxel_gets_the_class_with_the_largest_logit(cropped):
    values = logits(7, (20, 22, 24))
    painted = np.zeros(cropped, dtype=np.uint8)
    paint_classes(tiles(portions(values), place((20, 22, 24), cropped), RULES), painted, np.arange(7) * 3)
    np.testing.assert_array_equal(painted, resampled(values, cropped).argmax(0) * 3)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("voxels", [3, 5, 8])
def test_the_voxels_of_a_scan_may_be_far_larger_than_the_networks(axis, voxels):
    """Where a tile does not need the network's first voxels."""
    shape = (20, 22, 24)
    cropped = tuple(voxels if number == axis else n for number, n in enumerate(shape))
    values, painted = logits(7, shape), np.zeros(cropped, dtype=np.uint8)
    paint_classes(tiles(portions(values), place(shape, cropped), RULES), painted, np.arange(7))
    np.testing.assert_array_equal(painted, resampled(values, cropped).argmax(0))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("voxels", [3, 5, 8])
def test_thick_slices_of_a_scan_take_the_nearest_ones_of_the_network(axis, voxels):
    """As nnU-Net: the separate axis by ``map_coordinates`` of order 0."""
    shape = (20, 22, 24)
    cropped = tuple(voxels if number == axis else n for number, n in enumerate(shape))
    mm = tuple(4.0 if number == axis else 1.0 for number in range(3))
    values, painted = logits(7, shape), np.zeros(cropped, dtype=np.uint8)
    frame = Frame((0, 1, 2), (False,) * 3, tuple(slice(0, n) for n in cropped), shape, mm, (1, 1, 1))
    paint_classes(tiles(portions(values), frame, RULES), painted, np.arange(7))
    at = shape[axis] / voxels * (np.arange(voxels) + 0.5) - 0.5
    grid = np.meshgrid(*(at if n == axis else np.arange(shape[n]) for n in range(3)), indexing="ij")
    expected = [map_coordinates(each.astype(float), grid, order=0, mode="nearest") for each in values]
    np.testing.assert_array_equal(painted, np.stack(expected).argmax(0))


@pytest.mark.parametrize("cropped", [(20, 6, 24), (5, 22, 7), (40, 33, 150)])
def test_a_part_of_the_scan_is_painted_as_in_the_whole(cropped):
    """From the logits that the part needs, and no others."""
    values, frame = logits(7, (20, 22, 24)), place((20, 22, 24), cropped)
    whole, painted = (np.zeros(cropped, dtype=np.uint8) for _ in range(2))
    paint_classes(tiles(portions(values), frame, RULES), whole, np.arange(7))
    part = tuple(slice(n // 2, n - 1) for n in cropped)
    a, b, c = source_box(frame, RULES, part)
    needed = [(a.start + n, some) for n, some in portions(values[:, a, b, c])]
    paint_classes(tiles(needed, frame, RULES, part), painted, np.arange(7))
    np.testing.assert_array_equal(painted[part], whole[part])


def test_the_first_of_equal_classes_wins():
    values = np.array([0, 2, 2], dtype=np.float16)[:, None, None, None] * np.ones((3, 4, 4, 4), np.float16)
    painted = np.zeros((4, 4, 4), dtype=np.uint8)
    paint_classes(tiles(portions(values), place((4, 4, 4), (4, 4, 4)), RULES), painted, np.arange(3))
    assert np.unique(painted).tolist() == [1]


def test_slices_of_a_long_axis_are_not_mixed():
    values = logits(3, (5, 10, 10))
    frame = place((5, 10, 10), (10, 10, 10), z_mm=4)
    painted = np.zeros((10, 10, 10), dtype=np.uint8)
    paint_classes(tiles(portions(values), frame, RULES), painted, np.arange(3))
    np.testing.assert_array_equal(painted, values.argmax(0).repeat(2, axis=0))


def test_regions_are_painted_in_their_order():
    values = np.full((3, 1, 1, 4), -1, dtype=np.float16)
    values[0, 0, 0] = [1, 1, 1, 0]
    values[1, 0, 0] = [-1, 1, 1, 2.0**-24]  # the sigmoid of 2**-24 is one half in single precision
    values[2, 0, 0] = [-1, -1, 2.0**-23, -1]
    painted = np.zeros((1, 1, 4), dtype=np.uint8)
    paint_regions(tiles(portions(values), place((1, 1, 4), (1, 1, 4)), RULES), painted, np.array([2, 3, 1]))
    assert painted.ravel().tolist() == [2, 3, 1, 0]


def test_probabilities_of_configurations_are_averaged():
    first, second = logits(4, (12, 12, 12)), logits(4, (10, 9, 8))[::-1]
    shape = (18, 17, 16)
    painted = np.zeros(shape, dtype=np.uint8)
    both = (
        tiles(portions(first), place((12, 12, 12), shape), RULES),
        tiles(portions(second, 4), place((10, 9, 8), shape), RULES),
    )
    paint_mean(zip(*both, strict=True), painted, np.arange(4))
    mean = sum(softmax(resampled(each, shape).astype(np.float32), axis=0) for each in (first, second))
    np.testing.assert_array_equal(painted, mean.argmax(0))


def tensors(values: np.ndarray, thick: int = 3):
    return [(first, torch.from_numpy(part)) for first, part in portions(values, thick)]


@pytest.mark.parametrize("cropped", [(40, 33, 150), (9, 13, 17), (20, 22, 24), (20, 6, 24), (20, 22, 7)])
def test_tensors_are_painted_as_arrays_are(cropped):
    values, frame = logits(7, (20, 22, 24)), place((20, 22, 24), cropped)
    for paint, numbers in ((paint_classes, np.arange(7) * 50), (paint_regions, np.arange(1, 8))):
        ours, expected = (np.zeros(cropped, dtype=np.uint16) for _ in range(2))
        paint(tiles(tensors(values), frame, RULES), ours, numbers)
        paint(tiles(portions(values), frame, RULES), expected, numbers)
        # Products are summed in another order, and a logit of 16 bits may be rounded to its neighbour.
        assert np.mean(ours != expected) < 1e-3
        assert len(np.unique(expected)) > 3


def test_the_first_of_equal_classes_wins_among_many_tensors():
    values = np.zeros((300, 1, 1, 2), dtype=np.float16)
    values[[280, 299], ..., 1] = 1
    painted = np.zeros((1, 1, 2), dtype=np.uint16)
    frame = place((1, 1, 2), (1, 1, 2))
    paint_classes(tiles(tensors(values), frame, RULES), painted, np.arange(300))
    assert painted.ravel().tolist() == [0, 280]


def test_mean_probabilities_of_tensors_are_those_of_arrays():
    first, second = logits(4, (12, 12, 12)), logits(4, (10, 9, 8))[::-1].copy()
    shape, seen = (18, 17, 16), []
    painted = [np.zeros(shape, dtype=np.uint8) for _ in range(2)]
    for made, parts in zip(painted, (tensors, portions), strict=True):
        both = (
            tiles(parts(first), place((12, 12, 12), shape), RULES),
            tiles(parts(second, 4), place((10, 9, 8), shape), RULES),
        )
        paint_mean(zip(*both, strict=True), made, np.arange(4), lambda *given: seen.append(given))
    assert isinstance(seen[0][1], torch.Tensor)
    assert np.mean(painted[0] != painted[1]) < 1e-3
