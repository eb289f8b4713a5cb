from __future__ import annotations

import json

import numpy as np
import pytest

from medseg.grid import Grid
from medseg.label import Label
from medseg.statistics import describe, intensities
from medseg.volume import Mask, Volume

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
