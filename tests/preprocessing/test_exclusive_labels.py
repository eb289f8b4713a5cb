"""Prepared labels of a recipe with mutually exclusive labels."""

from __future__ import annotations

import numpy as np
import pytest
from support.worlds import tiny

from medseg.images.grid import Grid
from medseg.images.volume import Mask, Volume
from medseg.phantom.thorax import Thorax, default_grid, orientations
from medseg.preprocessing.preparation import prepare


def exclusive(count: int, spacing_mm: float, *, loss: str = "dice_ce"):
    labels = [{"name": f"part_{value}", "values": [value]} for value in range(1, count + 1)]
    return tiny(labels=labels, loss={"kind": loss}, prepare={"spacing_mm": [spacing_mm] * 3, "crop": None})


def prepared(array, recipe, grid=None):
    grid = grid or Grid.from_spacing(array.shape)
    truth = Mask(array.astype(np.uint8), grid, recipe.labels)
    label = prepare(recipe, [Volume(np.zeros(array.shape, np.int16), grid)], truth).label
    assert label is not None
    return label


def parcellation(shape, count, seed=0):
    """Every voxel belongs to the nearest of ``count`` random points: cells that touch one another."""
    points = np.random.default_rng(seed).uniform(0, shape, (count, 3))
    voxels = np.stack(np.indices(shape), -1)[..., None, :]
    return 1 + np.argmin(((voxels - points) ** 2).sum(-1), -1)


@pytest.mark.parametrize("spacing_mm", [0.7, 1.5, 2.0, 3.0])
def test_every_voxel_of_a_parcellation_gets_exactly_one_label(spacing_mm):
    array = parcellation((24, 20, 22), 9)
    label = prepared(array, exclusive(9, spacing_mm))
    assert (label.sum(0) == 1).all()
    # With one threshold per label some voxels get two labels, others none.
    assert (prepared(array, exclusive(9, spacing_mm, loss="dice_bce")).sum(0) != 1).any()


@pytest.mark.parametrize("start", list(np.ndindex(2, 2, 2)))
def test_surfaces_in_voxel_centres_do_not_enlarge_a_cube(start):
    # A cube of 9 mm fills 4 voxels of 2 mm along each axis, and half of a fifth. In voxels: 4^3 = 64 whole
    # and 3 faces of 16 halves. Every second half counts: 64 + 24 = 88, where 4.5^3 = 91.1 is exact. One
    # threshold takes all halves: 64 + 48 = 112.
    array = np.zeros((24, 24, 24), np.uint8)
    array[tuple(slice(6 + s, 15 + s) for s in start)] = 1
    assert int(prepared(array, exclusive(1, 2.0)).sum()) == 88
    assert int(prepared(array, exclusive(1, 2.0, loss="dice_bce")).sum()) == 112


def test_at_the_same_voxel_size_labels_are_unchanged():
    array = parcellation((9, 8, 7), 4)
    label = prepared(array, exclusive(4, 1.0))
    assert all((label[value - 1] == (array == value)).all() for value in range(1, 5))


@pytest.mark.parametrize("axcodes", orientations()[::5])
def test_the_orientation_does_not_change_a_bit(axcodes):
    grid = default_grid((6.0, 7.0, 9.0))
    scan, truth = Thorax().scan(grid), Thorax().truth(grid)
    recipe = tiny(
        labels=[{"name": f"part_{value}", "values": [value]} for value in range(1, 8)],
        loss={"kind": "dice_ce"},
    )
    one = prepare(recipe, [scan], truth).label
    other = prepare(recipe, [scan.oriented(axcodes)], truth.oriented(axcodes)).label
    assert one is not None
    assert other is not None
    assert np.array_equal(one, other)


def test_ignored_voxels_stay_unknown():
    recipe = exclusive(2, 2.0).model_copy(update={"ignore_value": 255})
    array = parcellation((8, 8, 8), 2)
    array[:2] = 255
    label = prepared(array, recipe)
    assert (label[:, 0] == -1).all()
    assert (label[:, 2:].sum(0) == 1).all()
