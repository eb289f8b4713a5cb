"""Resizing with splines, compared with scikit-image, which nnU-Net calls, and with paper and pencil."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.transform import resize

from medseg.preprocessing.spline_resizing import axis_weights, resized, resized_labels, separate_axis

SHAPES = [
    ((20, 30, 25), (33, 21, 25)),
    ((5, 7, 9), (9, 7, 3)),
    ((40, 11, 1), (20, 30, 4)),
    ((1, 2, 90), (3, 1, 61)),
]


def noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def expected(image: np.ndarray, shape: tuple[int, ...], order: int) -> np.ndarray:
    return resize(image.astype(float), shape, order, mode="edge", anti_aliasing=False)


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize(("before", "after"), SHAPES)
def test_it_equals_scikit_image_to_single_precision(before, after, order):
    image = noise(before)
    made = resized(image, after, order=order)
    np.testing.assert_allclose(made, expected(image, after, order), rtol=0, atol=3e-7)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order_z", [0, 1, 3])
def test_a_separate_axis_is_resized_after_the_slices(axis, order_z):
    image, shape = noise((12, 13, 14)), [17, 9, 20]
    slices = np.moveaxis(image, axis, 0)
    across = [n for a, n in enumerate(shape) if a != axis]
    flat = np.stack([expected(each, tuple(across), 3) for each in slices])
    # The last step as nnU-Net does it: half-voxel-centred positions, edge values beyond the ends.
    at = (len(flat) / shape[axis]) * (np.arange(shape[axis]) + 0.5) - 0.5
    places = np.meshgrid(at, np.arange(across[0]), np.arange(across[1]), indexing="ij")
    wanted = ndimage.map_coordinates(flat, places, order=order_z, mode="nearest")
    made = resized(image, shape, separate=axis, order_z=order_z)
    np.testing.assert_allclose(np.moveaxis(made, axis, 0), wanted, rtol=0, atol=3e-7)


def test_rows_of_weights_sum_to_one():
    for order in (0, 1, 3):
        for _, _, weights in axis_weights(70, 41, order).blocks:
            np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)


def test_linear_weights_on_paper():
    # From 2 to 4 voxels: new centres at -0.25 (the edge), 0.25, 0.75 and 1.25 (the edge).
    (_, _, weights), *_ = axis_weights(2, 4, 1).blocks
    np.testing.assert_allclose(weights, [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])


def test_cubic_splines_overshoot_and_are_clipped_to_the_range_of_the_scan():
    step = np.zeros((1, 1, 8), dtype=np.float32)
    step[..., 4:] = 1
    made = resized(step, (1, 1, 21))
    assert (made.min(), made.max()) == (0, 1)


def test_planes_are_prepared_before_they_are_resized():
    image = noise((9, 8, 7))
    made = resized(image, (5, 6, 7), prepare=lambda planes: planes * 3 + 1)
    np.testing.assert_allclose(made, resized(image * 3 + 1, (5, 6, 7)), atol=1e-5)


def test_the_longest_axis_is_separate_above_three_to_one():
    assert separate_axis((1, 1, 3), (1, 1, 1)) is None  # 3 is not above 3
    assert separate_axis((1, 1, 3.1), (1, 1, 1)) == 2
    assert separate_axis((1, 1, 1), (5, 1, 1)) == 0
    assert separate_axis((2, 1, 1), (5, 1, 1)) == 0
    assert separate_axis((1, 1, 4), (5, 1, 1)) == 2  # the old voxels decide
    assert separate_axis((1, 4, 4), (5, 1, 1)) is None  # two equally long axes


def test_labels_with_equal_shares_go_to_the_nearest_voxel():
    # From 4 to 2 voxels: each new centre lies between two old ones, and its nearest is the upper one.
    labels = np.array([[[1, 2, 5, 0]]])
    assert resized_labels(labels, (1, 1, 2)).tolist() == [[[2, 0]]]


def test_labels_are_never_mixed():
    labels = np.random.default_rng(1).integers(0, 3, (6, 7, 8)) * 4
    made = resized_labels(labels, (9, 5, 11))
    assert made.shape == (9, 5, 11)
    assert set(np.unique(made)) <= {0, 4, 8}
