from __future__ import annotations

import json

import numpy as np
import pytest

import medseg.images.intensity_stats
from medseg.errors import InputRefused
from medseg.images.grid import Grid
from medseg.images.intensity_stats import describe, intensities
from medseg.images.label import Label
from medseg.images.volume import Mask, Volume

GRID = Grid.from_spacing((2, 2, 2), (1, 2, 3))
SCAN = Volume(np.array([-1000, -900, -800, -700, 0, 10, 20, 30], np.int16).reshape(2, 2, 2), GRID)


def test_describe_is_plain_json():
    facts = describe(SCAN)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["shape"] == [2, 2, 2]
    assert facts["spacing_mm"] == [1, 2, 3]
    assert facts["orientation"] == "RAS"
    assert (facts["minimum"], facts["maximum"], facts["mean"]) == (-1000, 30, -417.5)


def test_intensities_by_hand():
    labels = (Label(name="air", values=(1,)), Label(name="absent", values=(9,)))
    mask = Mask(np.array([1, 1, 1, 1, 0, 0, 0, 0]).reshape(2, 2, 2), GRID, labels)
    table = intensities(SCAN, mask)
    # -1000, -900, -800, -700: mean -850, SD sqrt((150^2 + 50^2) / 2) = 111.8034.
    assert table["air"]["voxels"] == 4
    assert table["air"]["mean"] == -850
    assert table["air"]["sd"] == pytest.approx(111.8034)
    assert table["air"]["p50"] == -850
    assert table["absent"] == {"voxels": 0, "mean": None, "sd": None, "p5": None, "p50": None, "p95": None}
    assert json.loads(json.dumps(table)) == table


@pytest.mark.parametrize("at_once", [1, 50, 1 << 22])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_intensities_do_not_depend_on_memory_layout(monkeypatch, dtype, at_once):
    monkeypatch.setattr(medseg.images.intensity_stats, "_VOXELS_AT_ONCE", at_once)
    random = np.random.default_rng(0)
    values, painted = random.integers(-1000, 500, (5, 6, 7)).astype(dtype), random.integers(0, 4, (5, 6, 7))
    grid = Grid.from_spacing(values.shape)
    labels = (Label(name="one_and_three", values=(1, 3)),)
    inside = values[(painted == 1) | (painted == 3)]
    for scan in (values, np.asfortranarray(values), np.ascontiguousarray(values[::-1])[::-1]):
        for mask in (painted, np.asfortranarray(painted)):
            row = intensities(Volume(scan, grid), Mask(mask, grid, labels))["one_and_three"]
            assert row["voxels"] == len(inside)
            assert row["mean"] == pytest.approx(float(inside.mean()), abs=2e-3)
            assert row["p5"] == pytest.approx(float(np.percentile(inside, 5)), abs=2e-3)


def test_a_mask_of_another_shape_is_refused():
    other = Grid.from_spacing((2, 2, 3))
    mask = Mask(np.zeros(other.shape, np.uint8), other, (Label(name="air", values=(1,)),))
    with pytest.raises(InputRefused, match="for a scan of shape"):
        intensities(SCAN, mask)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.uint8, np.float32, np.int32])
@pytest.mark.parametrize("count", [1, 2, 3, 1000, 4321])
def test_intensities_are_those_of_numpy_in_every_dtype(dtype, count):
    random = np.random.default_rng(count)
    low = -1024 if np.dtype(dtype).kind in "if" else 0
    values = random.integers(low, 256, count).astype(dtype).reshape(count, 1, 1)
    grid = Grid.from_spacing(values.shape, (1.0, 1.0, 1.0))
    mask = Mask(np.ones(values.shape, np.uint8), grid, (Label(name="all", values=(1,)),))
    row = intensities(Volume(values, grid), mask)["all"]
    true = [values.mean(), values.std(), *np.percentile(values, (5, 50, 95))]
    found = [row[name] for name in ("mean", "sd", "p5", "p50", "p95")]
    assert found == [pytest.approx(float(v), abs=2e-3 if dtype == np.float32 else 6e-5) for v in true]
