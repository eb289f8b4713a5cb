"""QC flags by hand, and what every flag must be able to do."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medseg import Grid, Label, Mask
from medseg.images.mask_quality import REGISTRY, QCFlag, descriptions, qc_flags
from medseg.inference.case_result import CaseResult

LABELS = tuple(Label(name=name, values=(number,)) for number, name in enumerate("abc", start=1))


@pytest.fixture
def mask() -> Mask:
    array = np.zeros((10, 10, 10), np.uint8)
    array[0:2, 3:5, 3:5] = 1
    array[4, 4, 4] = array[5, 5, 5] = 2  # they meet at a corner: one part
    array[8, 8, 8] = 2
    return Mask(array, Grid(array.shape, np.eye(4)), LABELS)


def test_flags_by_hand(mask):
    expected = {
        "a": {"components": 1, "at_border": True},
        "b": {"components": 2, "at_border": False},
        "c": {"components": 0, "at_border": False},
    }
    found = qc_flags(mask)
    assert list(found) == list(expected)
    for label, flags in expected.items():
        assert flags.items() <= found[label].items()


def test_flags_in_words():
    parts, border = REGISTRY["components"].describe, REGISTRY["at_border"].describe
    assert [parts(count) for count in (0, 1, 3)] == ["is not there", "", "in 3 parts"]
    assert [border(there) for there in (False, True)] == ["", "touches the border of the scan"]


def test_a_flag_that_another_one_implies_is_not_described_twice(monkeypatch):
    crumbs = QCFlag(lambda runs: 0, lambda count: f"has {count} tiny parts" if count else "", ("components",))
    monkeypatch.setitem(REGISTRY, "crumbs", crumbs)
    assert descriptions({"components": 3, "at_border": True, "crumbs": 0}) == [
        "in 3 parts",
        "touches the border of the scan",
    ]
    assert descriptions({"components": 3, "at_border": True, "crumbs": 2}) == [
        "touches the border of the scan",
        "has 2 tiny parts",
    ]


@pytest.mark.parametrize("name", REGISTRY)
def test_every_flag_implies_known_flags_only(name):
    assert set(REGISTRY[name].implies) <= set(REGISTRY) - {name}


@pytest.mark.parametrize("name", REGISTRY)
def test_every_flag_has_a_value_and_words_for_it_and_comes_back_from_json_and_the_table(mask, name):
    for label, flags in qc_flags(mask).items():
        value = flags[name]
        assert isinstance(REGISTRY[name].describe(value), str)
        result = CaseResult("c", "m", "done", volumes_ml={label: 1.0}, qc_flags={label: {name: value}})
        assert CaseResult.from_json(json.loads(json.dumps(result.to_json()))) == result
        row = {column: str(cell) for column, cell in result.to_row().items()}
        assert CaseResult.from_row(row).qc_flags == {label: {name: value}}
