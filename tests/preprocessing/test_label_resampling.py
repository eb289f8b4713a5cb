"""Labels as integers, against the channels that they stand for."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.images.grid import Grid
from medseg.images.label import HALF, TIE, Label
from medseg.images.volume import members
from medseg.phantom.thorax import orientations
from medseg.preprocessing.label_resampling import channel_regions, largest_share, regions, resample_labels
from medseg.preprocessing.resampling import resample, resampled_grid

LABELS = [Label(name=f"part_{value}", values=(value,)) for value in range(1, 10)]
NESTED = [
    Label(name="all", values=(1, 2, 3, 4, 5, 6, 7, 8, 9)),
    Label(name="some", values=(2, 3, 9)),
    Label(name="other", values=(9, 4)),
    Label(name="nowhere", values=(77,)),
]


def dense_largest_share(shares: np.ndarray) -> np.ndarray:
    """The definition on channels, float32 (L, X, Y, Z): every class of every voxel is compared."""
    x, y, z = np.indices(shares.shape[1:])
    classes = np.concatenate([1 - shares.sum(axis=0, keepdims=True), shares])
    tied = classes >= classes.max(axis=0) - TIE
    turn = (x + y + z) % tied.sum(axis=0)
    return (tied & (tied.cumsum(axis=0) == turn + 1))[1:]


def channels(array: np.ndarray, labels, source: Grid, target: Grid, *, exclusive: bool) -> np.ndarray:
    """The labels resampled as channels, one for each label."""
    shares = resample(np.stack([members(array, label) for label in labels]), source, target)
    return dense_largest_share(shares) if exclusive else shares >= HALF


def parcellation(shape, count, seed=0):
    """Every voxel belongs to the nearest of random points, or to the background."""
    points = np.random.default_rng(seed).uniform(0, shape, (count + 3, 3))
    voxels = np.stack(np.indices(shape), -1)[..., None, :]
    nearest = 1 + np.argmin(((voxels - points) ** 2).sum(-1), -1)
    return np.where(nearest > count, 0, nearest).astype(np.uint8)


@pytest.mark.parametrize("spacing_mm", [(3.0, 4.0, 5.0), (1.0, 1.5, 4.0), (2.0, 2.0, 2.0), (7.0, 4.0, 9.0)])
@pytest.mark.parametrize(("labels", "exclusive"), [(LABELS, True), (LABELS, False), (NESTED, False)])
def test_integers_expand_to_the_bits_of_channels(spacing_mm, labels, exclusive):
    for axcodes in orientations()[::11]:
        source = Grid.from_spacing((26, 21, 17), (2.0, 2.0, 4.0)).oriented(axcodes)
        target = resampled_grid(source.oriented("RAS"), spacing_mm)
        array = parcellation(source.shape, 9)
        found = resample_labels(regions(array, labels), source, target, exclusive=exclusive)
        expected = channels(array, labels, source, target, exclusive=exclusive)
        assert found.classes.dtype == np.uint8
        assert np.array_equal(found.channels(), expected)
        dense = channel_regions(np.stack([members(array, label) for label in labels]))
        assert np.array_equal(
            resample_labels(dense, source, target, exclusive=exclusive).channels(), expected
        )


def test_scattered_voxels_at_half_shares_expand_to_the_same_bits():
    source = Grid.from_spacing((16, 15, 14))
    target = resampled_grid(source, (2.0, 2.0, 2.0))
    array = np.random.default_rng(1).integers(0, 4, source.shape).astype(np.uint8)
    for exclusive in (True, False):
        found = resample_labels(regions(array, LABELS), source, target, exclusive=exclusive)
        expected = channels(array, LABELS, source, target, exclusive=exclusive)
        assert np.array_equal(found.channels(), expected)


def test_ties_take_turns():
    # Two labels with half of a voxel each, and one label with half of it beside the background.
    whole, half = (slice(0, 2),) * 3, np.full((2, 2, 2), 0.5, np.float32)
    found = largest_share([(0, whole, half), (1, whole, half)], (2, 2, 2))
    assert (found == 1).sum() == (found == 2).sum() == 4
    assert found[0, 0, 0] == found[0, 1, 1] == 1
    assert (largest_share([(0, whole, half)], (2, 2, 2)) == 1).sum() == 4
    # The turns go on in the next slab.
    odd = largest_share([(0, whole, half), (1, whole, half)], (2, 2, 2), first=1)
    assert odd[0, 0, 0] == 2
    # The background has 0.4, so that the labels with 0.35 and 0.25 get nothing.
    few = [(0, whole, 0.7 * half), (1, whole, half / 2)]
    assert largest_share(few, (2, 2, 2)).sum() == 0


def test_many_classes_get_a_wider_type():
    # Nine labels that overlap in all ways: up to 512 combinations.
    rng = np.random.default_rng(0)
    given = (rng.random((9, 12, 12, 12)) < 0.5).astype(np.int8)
    grid = Grid.from_spacing((12, 12, 12))
    found = resample_labels(channel_regions(given), grid, grid, exclusive=False)
    assert found.classes.dtype == np.int16
    assert np.array_equal(found.channels(), given)
