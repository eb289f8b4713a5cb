from __future__ import annotations

import numpy as np
import pytest
import torch
from support.worlds import tiny

from medseg.images.volume import members
from medseg.phantom.thorax import Thorax, default_grid
from medseg.preprocessing.preparation import UNKNOWN, prepare
from medseg.preprocessing.transforms import compose, grid_of, on_grid

GRID = default_grid((6.0, 7.0, 9.0), "PIR")


def test_monai_tensors_carry_the_grid():
    assert grid_of(on_grid(torch.zeros(1, *GRID.shape), GRID)) == GRID


@pytest.mark.parametrize(
    "intensity",
    [
        {"kind": "window", "low_hu": -1024, "high_hu": 276},
        {"kind": "percentile"},
        {"kind": "zscore", "nonzero": False},
    ],
    ids=lambda each: each["kind"],
)
@pytest.mark.parametrize("crop", [None, {"above": -500, "margin_mm": 10}])
def test_monais_compose_and_the_functions_on_arrays_prepare_to_the_same_bits(intensity, crop):
    recipe = tiny(prepare={"spacing_mm": [8, 8, 10], "crop": crop}, ignore_value=7)
    recipe = recipe.model_copy(
        update={"prepare": type(recipe.prepare)(spacing_mm=(8, 8, 10), crop=crop, intensity=intensity)}
    )
    scan, truth = Thorax().scan(GRID), Thorax().truth(GRID)
    expected = prepare(recipe, [scan], truth)
    arrays = {
        "image": scan.array[None],
        "label": np.stack([members(truth.array, label) for label in recipe.labels]),
        "unknown": (truth.array == recipe.ignore_value)[None],
    }
    case = compose(recipe)(
        {name: on_grid(torch.from_numpy(np.array(values)), GRID) for name, values in arrays.items()}
    )
    assert np.array_equal(case["image"].as_tensor().numpy(), expected.image)
    assert grid_of(case["image"]) == expected.grid
    known = expected.label != UNKNOWN
    assert np.array_equal(case["label"].as_tensor().numpy()[known], expected.label[known])
    assert np.array_equal(case["unknown"].as_tensor().numpy()[0] > 0, ~known.all(axis=0))
