"""The report of a learning curve: where its points and intervals stand, and what it says of damage."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from medseg.errors import UsageError
from medseg.reporting.folder_report import report
from medseg.reporting.learning_curve import TABLE, Point, chart
from medseg.reporting.plot_frame import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH

HEAD = "cases,label,n,dice_mean,dice_ci_low,dice_ci_high,gain\n"


def test_points_and_intervals_stand_at_their_values() -> None:
    """4, 8 and 16 cases are equal steps; a Dice of 1 is the upper end of the axis, 0.5 the lower one."""
    points: list[Point] = [(4, 0.5, 0.5, 0.75), (16, 1.0, 1.0, 1.0), (8, 0.75, math.nan, math.nan)]
    svg = str(chart({"all labels": points}))
    dots = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', svg)]
    floor, tall = HEIGHT - BOTTOM, HEIGHT - BOTTOM - TOP
    # The axis goes from log2(4) - 0.3 to log2(16) + 0.3: 2.6 steps in all.
    wide = (WIDTH - LEFT - RIGHT) / 2.6
    expected = [(LEFT + (0.3 + n) * wide, floor - n * tall / 2) for n in range(3)]
    assert dots == [pytest.approx(each, abs=0.06) for each in expected]
    bars = re.findall(r'd="M[\d.]+ ([\d.]+)V([\d.]+)" stroke=', svg)
    assert [tuple(map(float, ends)) for ends in bars] == [
        pytest.approx((floor, floor - tall / 2), abs=0.06),
        pytest.approx((TOP, TOP), abs=0.06),
    ]
    assert "Dice from 4 to 16 training cases: all labels 0.500 to 1.000" in svg


def test_many_labels_and_no_number() -> None:
    labels: dict[str, list[Point]] = {"all labels": [(1, 0.5, 0.4, 0.6)]}
    labels |= {f"label {n}": [(1, 0.5, 0.4, 0.6)] for n in range(7)}
    assert str(chart(labels)).count("<circle") == 1
    assert str(chart({"a": [(1, 0.0, math.nan, math.nan)]})).count("<circle") == 1
    assert chart({"a": [(1, math.nan, math.nan, math.nan)]}) == ""
    assert chart({}) == ""


def test_the_report_has_chart_and_table(tmp_path: Path) -> None:
    rows = (
        "4,<b>,3,0.5,0.4,0.6,\n4,all labels,3,0.5,,,\n8,<b>,3,0.75,0.7,0.8,0.25\n8,all labels,3,0.8,,,0.3\n"
    )
    (tmp_path / TABLE).write_text(HEAD + rows)
    page = report(tmp_path).read_text()
    assert page.count("<circle") == 4
    assert "<b>" not in page.split("<main")[-1].replace("<b>4</b>", "")
    assert "models of 4, 8 training cases" in page
    assert "<td>0.7500<td>0.7000 to 0.8000<td>+0.2500" in page


@pytest.mark.parametrize("rows", ["0,a,3,0.5,0.4,0.6,\n", "4,a,3,none,0.4,0.6,\n", "4\n"])
def test_a_damaged_table_is_named(tmp_path: Path, rows: str) -> None:
    (tmp_path / TABLE).write_text(HEAD + rows)
    with pytest.raises(UsageError, match="learn-curve") as caught:
        report(tmp_path)
    assert caught.value.reason == "table"
