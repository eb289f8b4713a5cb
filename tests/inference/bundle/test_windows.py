"""Windows of MONAI's bundles, one at a time or several at once."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from medseg.inference.bundle.runtime import BundleRuntime
from medseg.inference.bundle.windows import mean_logits


class Edges:
    """Two heads that differ within a window, and between windows, for as many at once as it says."""

    def __init__(self, batch: int) -> None:
        self.batch, self.seen = batch, []

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        self.seen.append(len(windows))
        centred = windows[:, :1] - windows.mean(axis=(1, 2, 3, 4), keepdims=True)
        return np.concatenate([centred, np.square(windows[:, 1:])], axis=1)


@pytest.mark.parametrize("gaussian", [None, 0.125])
def test_several_windows_at_once_give_the_logits_of_single_ones(gaussian):
    image = np.random.default_rng(0).normal(size=(2, 20, 9, 6)).astype(np.float32)
    settings = {"window": (8, 8, 8), "overlap": 0.5, "gaussian": gaussian, "fill": -1.0}
    found, seen = [], []
    for batch in (1, 4, 100):
        networks = [Edges(batch), Edges(batch)]
        found.append(mean_logits(image, networks, batch=batch, **settings))
        seen.append(networks[0].seen)
        assert networks[1].seen == networks[0].seen
    # Along 20 voxels windows of 8 start at 0, 4, 8 and 12, along 9 at 0 and 1, along 6 once: 8 windows.
    assert seen == [[1] * 8, [4, 4], [8]]
    assert found[0].shape == image.shape
    for each in found[1:]:
        np.testing.assert_allclose(each, found[0], rtol=1e-5, atol=1e-6)


def test_a_device_is_given_as_many_windows_as_its_engine_measured():
    recipe, networks = SimpleNamespace(pipeline=None), [[Edges(3)]]
    assert BundleRuntime(recipe, networks, "cuda").batch == 3
    assert BundleRuntime(recipe, networks, "cpu").batch == 1
    assert BundleRuntime(recipe, [[lambda windows: windows]], "cuda").batch == 1
