"""Windows cut out by indices, as on a GPU, are those cut out by slices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medseg.inference import window_gathering
from medseg.inference.window_gathering import gathered, levels

IMAGE = np.random.default_rng(0).normal(size=(2, 9, 8, 7)).astype(np.float32)
IMAGE[:, :4, :5] = np.float32([3, -1])[:, None, None, None]


def boxes(size):
    starts = [(0, 0, 0), (5, 3, 1), (0, 1, 4), (2, 0, 3)]
    return [tuple(slice(at, at + n) for at, n in zip(start, size, strict=True)) for start in starts]


@pytest.mark.parametrize("neighbours", [0, 1, 3])
@pytest.mark.parametrize("flat", [True, False])
def test_indexed_windows_are_slices(flat, neighbours):
    places = boxes((4, 4, 1) if flat else (4, 4, 3))
    ours = gathered(torch.from_numpy(IMAGE), places, neighbours, flat=flat)
    np.testing.assert_array_equal(ours.numpy(), gathered(IMAGE, places, neighbours, flat=flat))
    if not flat:
        np.testing.assert_array_equal(ours[1], IMAGE[:, 5:9, 3:7, 1:4])


@pytest.mark.parametrize("flat", [True, False])
def test_constant_windows_are_recognised_with_one_wait_for_the_device(flat, monkeypatch):
    places = boxes((4, 4, 1) if flat else (4, 4, 3))
    waits = []
    real = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: waits.append(self.shape) or real(self))
    monkeypatch.setattr(window_gathering, "_BYTES_AT_ONCE", 1)  # windows are compared one by one
    ours = list(levels(torch.from_numpy(IMAGE), places, 1, flat=flat))
    assert len(waits) == 1
    each = (3.0, -1.0) * (3 if flat else 1)
    assert ours == [each, None, each, None]
    assert ours == list(levels(IMAGE, places, 1, flat=flat))
