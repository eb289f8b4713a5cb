"""What a worker makes of an evaluation."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from medseg.errors import UsageError
from medseg.tuning.worker import case_dice


def table(*rows: tuple[str, str, float, str]) -> pd.DataFrame:
    parts = [
        {"case": case, "patient": patient, "dice": dice, "status": status, "reason": "case-time: too long"}
        for case, patient, dice, status in rows
    ]
    return pd.DataFrame(parts)


def test_a_case_counts_with_the_mean_of_its_labels() -> None:
    found = case_dice(
        table(("a", "p", 0.5, "ok"), ("a", "p", 0.7, "ok"), ("b", "q", 0.9, "ok"), ("b", "q", math.nan, "ok"))
    )
    assert found == [("a", pytest.approx(0.6), "p"), ("b", pytest.approx(0.9), "q")]


def test_a_failed_case_or_none_with_a_label_gives_no_dice() -> None:
    for rows, said in (
        ([("a", "p", 0.5, "ok"), ("b", "q", math.nan, "failed")], "the first is b: case-time: too long"),
        ([("a", "p", math.nan, "ok")], "no validation case has a label"),
    ):
        with pytest.raises(UsageError, match=said) as caught:
            case_dice(table(*rows))
        assert caught.value.reason == "tune-scores"
