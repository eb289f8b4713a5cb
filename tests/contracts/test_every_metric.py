"""The contract of every metric in the registry; a new metric is tested by being registered."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medseg.evaluation import tables
from medseg.evaluation.evaluator import COLUMNS
from medseg.evaluation.metrics import REGISTRY, LabelPair
from medseg.evaluation.summary_table import METRICS, write
from medseg.images.grid import Grid

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
GRID = Grid.from_spacing((5, 4, 3), (1.0, 2.0, 4.0))


def masks(*voxels: tuple[int, int, int]) -> np.ndarray:
    found = np.zeros(GRID.shape, bool)
    for voxel in voxels:
        found[voxel] = True
    return found


NONE, SOME, OTHER = masks(), masks((1, 1, 1), (2, 1, 1)), masks((4, 3, 2))


@pytest.mark.parametrize("name", REGISTRY)
def test_every_metric_is_a_number_for_empty_equal_and_disjoint_masks(name: str) -> None:
    for prediction, truth in ((NONE, NONE), (SOME, NONE), (NONE, SOME), (SOME, SOME), (SOME, OTHER)):
        value = REGISTRY[name].compute(LabelPair(prediction, truth, GRID))
        assert isinstance(value, int | float)
        assert not math.isinf(value)


@pytest.mark.parametrize("name", REGISTRY)
def test_every_metric_has_a_column_and_is_documented(name: str) -> None:
    assert name in COLUMNS
    assert f"`{name}`" in DOCS.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", REGISTRY)
def test_every_column_of_a_metric_is_in_the_readable_summaries(name: str, tmp_path: Path) -> None:
    # Two patients with 0.5 everywhere: mean, median and bounds are 0.5, and the interval has no width.
    shared = dict.fromkeys(REGISTRY, 0.5) | {"lesions": 1, "lesions_found": 1, "lesions_false": 0}
    shared |= {"group": "", "label": "a", "empty": "", "status": "ok", "reason": ""}
    rows = [shared | {"case": patient, "patient": patient} for patient in "pq"]
    write(pd.DataFrame(rows, columns=list(COLUMNS)), tmp_path)
    lines = (tmp_path / "summary.md").read_text(encoding="utf-8").splitlines()
    heads, cells = ([cell.strip() for cell in line.split("|")] for line in (lines[0], lines[2]))
    for column in REGISTRY[name].columns:
        assert heads.count(column.head) == 1
        assert format(0.5, column.pattern) in cells[heads.index(column.head)]
        assert tables.escaped(column.head) in (tmp_path / "summary.tex").read_text(encoding="utf-8")


def test_columns_of_earlier_tables_keep_their_place() -> None:
    # As in evaluation.csv of version 0.1.0, so that tables of two versions can be concatenated: a new metric
    # has its row at the end of REGISTRY.
    earlier = (
        *("case", "patient", "group", "label", "dice", "iou", "sensitivity", "precision", "nsd"),
        *("nsd_tolerance_mm", "hd95_mm", "hd_mm", "assd_mm", "volume_ml", "truth_ml", "volume_error_ml"),
        *("volume_error_percent", "lesions", "lesions_found", "lesions_false", "lesion_sensitivity"),
        *("lesion_precision", "lesion_f1", "empty", "seconds", "status", "reason"),
        *("nsd_voxel", "hd95_voxel_mm", "hd_voxel_mm", "assd_voxel_mm"),
    )
    assert COLUMNS[: len(earlier)] == earlier
    earlier = (
        *("dice", "iou", "sensitivity", "precision", "nsd", "hd95_mm", "hd_mm", "assd_mm"),
        *("volume_error_abs_ml", "lesion_sensitivity", "lesion_precision", "lesion_f1"),
        *("nsd_voxel", "hd95_voxel_mm", "hd_voxel_mm", "assd_voxel_mm"),
    )
    assert METRICS[: len(earlier)] == earlier
