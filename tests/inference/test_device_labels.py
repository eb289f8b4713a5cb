"""Labels decided on a device, here the CPU with torch: the same masks as in main memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.worlds import DIVIDED, tiny, untrained

from medseg.images.grid import Grid
from medseg.inference import device_labels
from medseg.inference.label_decision import LabelDecision
from medseg.inference.native_grid import label_map, label_runs
from medseg.inference.segmenter import Segmenter
from medseg.inference.uncertainty import Entropy
from medseg.phantom.thorax import Thorax, default_grid, orientations, rotated
from medseg.preprocessing.resampling import resampled_grid
from medseg.system.notices import collect_notices

BASE = rotated(Grid.from_spacing((23, 17, 90), (2.0, 2.5, 1.1), origin_mm=(-20, 4, 8)), (11.0, -7.0, 19.0))
PREPARED = resampled_grid(BASE, (3.3, 3.0, 3.5))


def shares(labels: int) -> np.ndarray:
    """Probabilities (L, X, Y, Z) that add up to less than 1, so smooth that no two are nearly equal often."""
    random = np.random.default_rng(4)
    x, y, z = np.meshgrid(*(np.linspace(0, 3, n) for n in PREPARED.shape), indexing="ij")
    waves = [
        np.sin(a * x + 1) + np.cos(b * y) + np.sin(c * z + a)
        for a, b, c in random.uniform(0.5, 2, (labels, 3))
    ]
    likely = np.exp([np.zeros(PREPARED.shape), *waves])
    return (likely[1:] / likely.sum(0)).astype(np.float32)


def portions(values):
    return [(first, values[..., first : first + 4]) for first in range(0, values.shape[-1], 4)]


@pytest.mark.parametrize("codes", orientations())
def test_label_maps_are_those_of_main_memory_in_all_48_orientations(codes):
    values, decision, source = shares(3), LabelDecision((4, 300, 2)), BASE.oriented(codes)
    ours = label_map(portions(torch.from_numpy(values)), PREPARED, source, decision=decision)
    expected = label_map(portions(values), PREPARED, source, decision=decision)
    np.testing.assert_array_equal(ours, expected)
    assert set(np.unique(ours)) == {0, 2, 4, 300}


@pytest.mark.parametrize("threshold", [None, 0.4])
@pytest.mark.parametrize("codes", ["RAS", "LPI", "SRA", "AIL"])
def test_runs_are_those_of_main_memory(codes, threshold):
    values, decision, source = shares(3), LabelDecision((1, 2, 3), threshold), BASE.oriented(codes)
    ours = label_runs(portions(torch.from_numpy(values)), PREPARED, source, decision=decision)
    expected = label_runs(portions(values), PREPARED, source, decision=decision)
    assert all(each.binary().any() for each in expected)
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(one.binary(), other.binary())


def test_a_tile_that_does_not_fit_is_restored_in_main_memory(monkeypatch):
    """A device called meta has no memory: each decision there fails, and is made on the CPU instead."""
    real_moved = device_labels._moved
    values, decision = shares(2), LabelDecision((1, 2))

    class Full(torch.Tensor):
        device = torch.device("meta")

        def to(self, where):
            if str(where) == "meta":
                raise torch.OutOfMemoryError("out of memory")
            return self.as_subclass(torch.Tensor)

    def moved(tile, device):
        stack = tile.stack.as_subclass(Full)
        return real_moved(device_labels.replace(tile, stack=stack), device)

    def decided(tile, decide, real=device_labels._decided):
        return real(device_labels.replace(tile, stack=tile.stack.as_subclass(Full)), decide)

    monkeypatch.setattr(device_labels, "_decided", decided)
    monkeypatch.setattr(device_labels, "_moved", moved)
    with collect_notices() as notices:
        ours = label_map(portions(torch.from_numpy(values)), PREPARED, BASE, decision=decision)
    assert {each.reason for each in notices} == {"device-memory"}
    np.testing.assert_array_equal(ours, label_map(portions(values), PREPARED, BASE, decision=decision))


@pytest.mark.parametrize("recipe", [tiny(), tiny(2), tiny(3, **DIVIDED)], ids=["3d", "2d", "lungs"])
def test_masks_are_those_of_the_way_through_main_memory(recipe):
    """The CPU under another name is taken for a device of its own."""
    segment = Segmenter(untrained(recipe), engine="torch", device="cpu")
    scan = Thorax().scan(default_grid((6.0, 7.0, 8.0), "LPS"), seed=3)
    with collect_notices() as notices:
        expected = segment.prepare(scan).predict()
    segment.device = "cpu:0"
    with collect_notices() as same_notices:
        ours = segment.prepare(scan).predict()
    assert same_notices == notices
    np.testing.assert_array_equal(ours.mask.array, expected.mask.array)
    assert ours.mask.array.any()
    assert ours.entropy == pytest.approx(expected.entropy, rel=1e-5)


def test_entropy_of_tensors_is_that_of_arrays():
    values = shares(3)
    values[0, :2], values[1, :, :3] = 1, 0.5
    ours, theirs = Entropy("abc"), Entropy("abc")
    list(ours.watch(portions(torch.from_numpy(values))))
    list(theirs.watch(portions(values)))
    assert ours.bits() == pytest.approx(theirs.bits(), rel=1e-9)
