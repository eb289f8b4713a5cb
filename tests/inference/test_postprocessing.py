"""Postprocessing against masks that can be counted by hand, and against scipy's own hole filling."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

import medseg.inference.postprocessing
from medseg.errors import InputRefused
from medseg.images.grid import Grid
from medseg.images.run_length import Runs

Binary = npt.NDArray[np.bool_]
GRID = Grid.from_spacing((12, 10, 8), (1.0, 2.0, 5.0))  # a voxel has 10 mm3 = 0.01 ml


def postprocess(mask: Binary, grid: Grid, **rules: Any) -> Binary:
    return medseg.inference.postprocessing.postprocess(Runs.of(mask), grid, **rules).binary()


def boxes(*corners: tuple[slice, slice, slice]) -> Binary:
    mask = np.zeros(GRID.shape, dtype=bool)
    for corner in corners:
        mask[corner] = True
    return mask


LARGE = (slice(1, 4), slice(1, 4), slice(1, 4))  # 27 voxels
MIDDLE = (slice(6, 8), slice(1, 3), slice(1, 4))  # 12
SMALL = (slice(6, 8), slice(6, 8), slice(5, 7))  # 8
SMALL_2 = (slice(1, 3), slice(6, 8), slice(5, 7))  # 8
DOT = (slice(11, 12), slice(9, 10), slice(7, 8))  # 1, in a corner of the volume
ALL = boxes(LARGE, MIDDLE, SMALL, SMALL_2, DOT)


def test_the_defaults_change_nothing() -> None:
    before = ALL.copy()
    result = postprocess(ALL, GRID)
    assert np.array_equal(result, before)
    assert not np.shares_memory(result, ALL)


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (1, boxes(LARGE)),
        (2, boxes(LARGE, MIDDLE)),
        (3, boxes(LARGE, MIDDLE, SMALL, SMALL_2)),  # the third and fourth are equally large
        (5, ALL),
        (9, ALL),
    ],
)
def test_largest_components_are_kept(keep: int, kept: Binary) -> None:
    assert np.array_equal(postprocess(ALL, GRID, keep_components=keep), kept)


@pytest.mark.parametrize(
    ("least", "kept"),
    [
        (0.01, ALL),
        (0.02, boxes(LARGE, MIDDLE, SMALL, SMALL_2)),
        (0.08, boxes(LARGE, MIDDLE, SMALL, SMALL_2)),  # exactly as large as asked for: kept
        (0.081, boxes(LARGE, MIDDLE)),
        (1.0, boxes()),
    ],
)
def test_small_components_are_removed(least: float, kept: Binary) -> None:
    assert np.array_equal(postprocess(ALL, GRID, min_volume_ml=least), kept)


@pytest.mark.parametrize(
    ("share", "kept"),
    [
        (0.0, ALL),
        (12 / 27, boxes(LARGE, MIDDLE)),  # exactly as large as asked for: kept
        (12 / 27 + 1e-6, boxes(LARGE)),
        (1.0, boxes(LARGE)),
    ],
)
def test_components_below_a_share_of_the_largest_are_removed(share: float, kept: Binary) -> None:
    assert np.array_equal(postprocess(ALL, GRID, min_share=share), kept)
    assert not postprocess(boxes(), GRID, min_share=share).any()


def test_both_rules_hold_together() -> None:
    assert np.array_equal(postprocess(ALL, GRID, keep_components=3, min_volume_ml=0.1), boxes(LARGE, MIDDLE))


def test_voxels_that_share_a_corner_are_connected() -> None:
    corner = (slice(4, 5), slice(4, 5), slice(4, 5))
    assert np.array_equal(
        postprocess(boxes(LARGE, corner, DOT), GRID, keep_components=1), boxes(LARGE, corner)
    )


def test_only_closed_holes_are_filled() -> None:
    shell = boxes((slice(1, 6), slice(1, 6), slice(1, 6)))
    full = shell.copy()
    shell[2:5, 2:5, 2:5] = False
    shell[3, 3, 3] = True  # an island in the hole
    assert np.array_equal(postprocess(shell, GRID, fill_holes=True), full)
    diagonal = shell.copy()
    diagonal[1, 1, 1] = False  # a gap that the hole touches with a corner only: still closed
    want = full.copy()
    want[1, 1, 1] = False
    assert np.array_equal(postprocess(diagonal, GRID, fill_holes=True), want)
    shell[1, 3, 3] = False  # a way out
    assert np.array_equal(postprocess(shell, GRID, fill_holes=True), shell)


def test_a_hole_at_the_face_of_the_volume_is_open() -> None:
    tube = boxes((slice(2, 7), slice(2, 7), slice(0, 8)))
    tube[4, 4, :] = False
    assert np.array_equal(postprocess(tube, GRID, fill_holes=True), tube)


def test_an_island_in_a_hole_is_not_a_separate_component() -> None:
    far = (slice(8, 9), slice(1, 2), slice(1, 2))  # one voxel, like the island
    full = boxes((slice(1, 6), slice(1, 6), slice(1, 6)), far)
    shell = full.copy()
    shell[2:5, 2:5, 2:5] = False
    shell[3, 3, 3] = True
    assert np.array_equal(postprocess(shell, GRID, keep_components=2, fill_holes=True), full)


@pytest.mark.parametrize("seed", range(5))
def test_filling_agrees_with_scipy(seed: int) -> None:
    mask = np.random.default_rng(seed).random(GRID.shape) < 0.7
    assert np.array_equal(postprocess(mask, GRID, fill_holes=True), ndimage.binary_fill_holes(mask))


@pytest.mark.parametrize("seed", range(3))
def test_neither_orientation_nor_repetition_matters(seed: int) -> None:
    rules = {"keep_components": 2, "fill_holes": True, "min_volume_ml": 0.02}
    mask = np.random.default_rng(seed).random(GRID.shape) < 0.25
    want = postprocess(mask, GRID, **rules)
    assert 0 < want.sum() < mask.sum() + 100
    assert np.array_equal(postprocess(want, GRID, **rules), want)
    for order, flips in product(permutations(range(3)), product((1, -1), repeat=3)):
        steps = tuple(slice(None, None, step) for step in flips)
        x, y, z = (GRID.shape[a] for a in order)
        grid = Grid.from_spacing((x, y, z), [GRID.spacing_mm[a] for a in order])
        moved = postprocess(np.transpose(mask, order)[steps], grid, **rules)
        assert np.array_equal(moved, np.transpose(want, order)[steps])


def test_empty_and_full_masks_are_unchanged() -> None:
    for mask in (np.zeros(GRID.shape, dtype=bool), np.ones(GRID.shape, dtype=bool)):
        result = postprocess(mask, GRID, keep_components=1, fill_holes=True, min_volume_ml=0.01)
        assert np.array_equal(result, mask)


def test_a_single_slice_works() -> None:
    grid = Grid.from_spacing((5, 5, 1))
    ring = np.ones((5, 5, 1), dtype=bool)
    ring[2, 2] = False  # open above and below: a slice has no inside
    assert np.array_equal(postprocess(ring, grid, fill_holes=True), ring)


def test_read_only_arrays_are_accepted() -> None:
    mask = ALL.copy()
    mask.setflags(write=False)
    assert postprocess(mask, GRID, keep_components=1).sum() == 27


@pytest.mark.parametrize("mask", [np.zeros((2, 2, 2), dtype=bool), np.zeros(GRID.shape, dtype=np.uint8)])
def test_other_arrays_are_refused(mask: Binary) -> None:
    with pytest.raises(InputRefused, match="mask of shape"):
        postprocess(mask, GRID)
