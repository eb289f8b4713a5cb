"""Masks as runs, against scipy's labels and masks counted by hand."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from scipy import ndimage

import medseg.images.run_length
from medseg.errors import InputRefused
from medseg.images.connected_components import components
from medseg.images.run_length import Runs

SHAPE = (7, 6, 9)


def noise(seed: int, share: float = 0.4) -> np.ndarray:
    return np.random.default_rng(seed).random(SHAPE) < share


@pytest.fixture(params=[1, 1 << 22], ids=["a slice at a time", "all at once"], autouse=True)
def _slabs(request, monkeypatch):
    monkeypatch.setattr(medseg.images.run_length, "_VOXELS_AT_ONCE", request.param)


def test_runs_counted_by_hand():
    mask = np.zeros((2, 2, 5), dtype=bool)
    mask[0, 0, 1:3] = mask[0, 0, 4] = mask[0, 1, 0] = mask[1, 1, 2:] = True
    runs = Runs.of(mask)
    # Rows begin at 0, 5, 10 and 15; the end of the first one and the start of the second are two runs.
    assert runs.start.tolist() == [1, 4, 5, 17]
    assert runs.stop.tolist() == [3, 5, 6, 20]
    assert runs.size == 7
    assert runs.box() == (slice(0, 2), slice(0, 2), slice(0, 5))
    # Along the third axis lie 1, 2, 4, 0, 2, 3 and 4.
    assert runs.middle(2) == pytest.approx(16 / 7)
    assert runs.middle(0) == pytest.approx(3 / 7)
    assert runs.middle(1) == pytest.approx(4 / 7)


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("flips", list(product((1, -1), repeat=3)))
def test_round_trip_in_every_memory_order(order, flips):
    mask = noise(0).transpose(order)[tuple(slice(None, None, step) for step in flips)]
    runs = Runs.of(mask)
    back = runs.binary()
    assert np.array_equal(back, mask)
    assert np.argsort([-s for s in back.strides]).tolist() == np.argsort(-np.abs(mask.strides)).tolist()
    where = np.argwhere(mask)
    assert [runs.middle(axis) for axis in range(3)] == pytest.approx(where.mean(axis=0).tolist())
    assert runs.box() == tuple(slice(a, b + 1) for a, b in zip(where.min(0), where.max(0), strict=True))


@pytest.mark.parametrize(("corners", "structure"), [(True, np.ones((3, 3, 3))), (False, None)])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("seed", range(3))
def test_components_are_those_of_scipy(seed, order, share, corners, structure):
    mask = noise(seed, share)
    runs = Runs.of(mask.transpose(order))
    part, count = components(runs, corners=corners)
    theirs, expected = ndimage.label(mask, structure)
    assert count == expected
    ours = np.zeros(mask.size, dtype=int)
    for first, last, number in zip(runs.start, runs.stop, part, strict=True):
        ours[first:last] = number + 1
    pairs = set(
        zip(ours.tolist(), theirs.transpose(order).transpose(runs.order).ravel().tolist(), strict=True)
    )
    assert len(pairs) == count + 1  # each of ours is one of theirs, and background is background


def test_the_end_of_a_row_does_not_touch_the_start_of_the_next():
    mask = np.zeros((1, 3, 4), dtype=bool)
    mask[0, 0, 3] = mask[0, 1, 0] = True
    assert components(Runs.of(mask), corners=True)[1] == 2
    mask[0, 1, 0], mask[0, 1, 2] = False, True
    assert components(Runs.of(mask), corners=True)[1] == 1
    assert components(Runs.of(mask), corners=False)[1] == 2


@pytest.mark.parametrize("seed", range(3))
def test_gaps_are_the_background_in_the_box(seed):
    mask = np.zeros((9, 9, 12), dtype=bool)
    mask[1:8, 2:8, 3:12] = noise(seed, 0.6)
    runs = Runs.of(mask)
    gaps, at_face = runs.gaps()
    box = runs.box()
    background = np.zeros_like(mask)
    background[box] = ~mask[box]
    assert np.array_equal(gaps.binary(), background)
    inner = background.copy()
    inner[tuple(slice(part.start + 1, part.stop - 1) for part in box)] = False
    touching = [bool(inner.ravel()[a:b].any()) for a, b in zip(gaps.start, gaps.stop, strict=True)]
    assert at_face.tolist() == touching
    joined = runs.joined(gaps)
    whole = np.zeros_like(mask)
    whole[box] = True
    assert np.array_equal(joined.binary(), whole)
    assert joined.start.tolist() == Runs.of(whole).start.tolist()


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_voxels_are_counted_painted_and_looked_up(order):
    mask, values = noise(1), np.random.default_rng(2).integers(0, 9, SHAPE)
    mask, values = mask.transpose(order), values.transpose(order)
    runs = Runs.of(mask)
    counts = runs.counted(values, lambda slab: slab > 4)
    assert counts.sum() == np.count_nonzero(mask & (values > 4))
    assert runs.kept(counts == runs.lengths).binary().sum() == counts[counts == runs.lengths].sum()
    painted = values.copy()
    runs.paint(painted, 77)
    assert np.array_equal(painted, np.where(mask, 77, values))
    indices = [np.arange(n)[1::2] for n in mask.shape]
    assert np.array_equal(runs.at(indices), mask[np.ix_(*indices)])


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_foreground_is_split_by_the_values_of_a_coarser_array(order):
    mask = noise(3, 0.8).transpose(order)
    runs = Runs.of(mask)
    values = np.random.default_rng(4).integers(1, 4, [-(-n // 3) for n in mask.shape])
    whole = values
    for axis in range(3):
        whole = np.repeat(whole, 3, axis=axis)
    whole = whole[tuple(slice(0, n) for n in mask.shape)]
    places = [np.arange(mask.shape[axis]) // 3 for axis in runs.order]
    found = runs.divided(values.transpose(runs.order), places)
    assert set(found) == {1, 2, 3}
    for value, part in found.items():
        assert np.array_equal(part.binary(), mask & (whole == value))


def test_beyond_the_coarse_array_its_edge_values_count():
    mask = np.ones((1, 1, 9), dtype=bool)
    found = Runs.of(mask).divided(
        np.array([[[7, 8, 8]]]),
        [np.zeros(1, dtype=int), np.zeros(1, dtype=int), np.array([0, 0, 0, 0, 1, 1, 2, 2, 2])],
    )
    assert {value: (part.start.tolist(), part.stop.tolist()) for value, part in found.items()} == {
        7: ([0], [4]),
        8: ([4], [9]),
    }


def test_a_test_function_takes_any_array():
    values = np.arange(24).reshape(2, 3, 4)
    assert np.array_equal(Runs.of(values, lambda slab: slab % 5 == 0).binary(), values % 5 == 0)
    with pytest.raises(InputRefused):
        Runs.of(values)
    with pytest.raises(InputRefused):
        Runs.of(np.zeros((3, 3), dtype=bool))


@pytest.mark.parametrize("shape", [(3, 4, 5), (0, 4, 5), (3, 4, 0)])
def test_empty_masks_have_no_runs(shape):
    runs = Runs.of(np.zeros(shape, dtype=bool))
    assert runs.size == 0
    assert runs.box() is None
    assert components(runs, corners=True)[1] == 0
    assert runs.gaps()[0].size == 0
    assert not runs.joined(runs).binary().any()
