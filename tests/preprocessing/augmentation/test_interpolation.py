from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.interpolate import BSpline
from support.augmentation import some

from medseg.preprocessing.augmentation.interpolation import read_at, spline_places, spline_weights
from medseg.preprocessing.augmentation.spatial import positions


@pytest.mark.parametrize(("n", "distance"), [(9, 9.0), (16, 5.0), (12, 1.7), (1, 1.0)])
def test_spline_weights_agree_with_scipy(n, distance):
    weights, places = spline_weights(n, distance), spline_places(n, distance)
    at = np.arange(n) - (n - 1) / 2
    for column, place in enumerate(places):
        basis = BSpline.basis_element(place + distance * np.arange(-2, 3), extrapolate=False)
        np.testing.assert_allclose(weights[:, column], np.nan_to_num(basis(at)), atol=1e-12)
    np.testing.assert_allclose(weights.sum(1), 1)
    np.testing.assert_allclose(weights @ places, at, atol=1e-12)  # a line stays a line


@pytest.mark.parametrize("shape", [(13, 17), (7, 9, 11), (40, 60, 50), (1, 6, 5)])
def test_sampling_agrees_with_scipys_map_coordinates(shape):
    random = np.random.default_rng(0)
    distances = [max(n / 2, 2.0) for n in shape]
    control = positions(shape, distances, np.eye(len(shape)), np.zeros(len(shape)), np.ones(len(shape)))
    control += random.uniform(-3, 3, control.shape)
    image, label = some(2, *shape), some(3, *shape, seed=1).mul(3).floor() - 1
    read, marked = read_at(image, label, control, distances)
    dense = control
    for axis, (n, distance) in enumerate(zip(shape, distances, strict=True), start=1):
        dense = np.moveaxis(np.tensordot(spline_weights(n, distance), dense, (1, axis)), 0, axis)
    for theirs, ours in zip(image, read, strict=True):
        expected = ndimage.map_coordinates(theirs.numpy(), dense, order=1, mode="nearest")
        np.testing.assert_allclose(ours, expected, atol=2e-5)
    for theirs, ours in zip(label, marked, strict=True):
        expected = ndimage.map_coordinates(theirs.numpy(), dense, order=0, mode="nearest")
        assert (ours.numpy() != expected).mean() < 2e-3  # exactly between two voxels
