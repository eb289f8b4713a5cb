"""lungmask's network on batches of slices."""

from __future__ import annotations

import numpy as np
import pytest
from support.foreign_models import lungmask_weights

import medseg
from medseg.inference.lungmask.runtime import LungmaskRuntime
from medseg.phantom.thorax import Thorax, default_grid

pytestmark = pytest.mark.filterwarnings("ignore::medseg.InputWarning")


class Threshold:
    """Three classes by intensity, for as many slices at once as it says."""

    def __init__(self, batch: int | None) -> None:
        self.seen: list[int] = []
        if batch is not None:
            self.batch = batch

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        self.seen.append(len(windows))
        return np.concatenate([windows, np.full_like(windows, 0.3), 0.5 - windows], axis=1)


def test_batches_of_slices_give_the_mask_of_single_slices(tmp_path):
    recipe = medseg.import_model(lungmask_weights(tmp_path / "weights.pth")).recipe
    scan = Thorax().scan(default_grid((8.0, 8.0, 20.0), "LPS"), seed=1)
    masks, counts = [], []
    for batch in (None, 1, 5, 100):
        network = Threshold(batch)
        masks.append(LungmaskRuntime(recipe, [[network]]).prepare([scan]).label_map())
        counts.append(network.seen)
    slices = scan.grid.shape[2]
    assert counts[0] == counts[1] == [1] * slices
    assert set(counts[2][:-1]) == {5}
    assert (sum(counts[2]), counts[3]) == (slices, [slices])
    assert len(np.unique(masks[0])) > 1
    for each in masks[1:]:
        np.testing.assert_array_equal(each, masks[0])
