from __future__ import annotations

import pytest

from medseg.system.csv_cells import from_cell, to_cell


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+a", "-cmd", "@x", "\tx", "'=x", "''+x"])
def test_formulas_become_text_and_are_read_back(text):
    assert str(to_cell(text)).startswith("'")
    assert from_cell(str(to_cell(text))) == text


@pytest.mark.parametrize("value", ["lung", "a=b", "", "'quoted'", "-1.5", "+3", "-inf", 2, -2.5, None])
def test_other_text_and_numbers_stay_as_they_are(value):
    assert to_cell(value) == value
    if isinstance(value, str):
        assert from_cell(value) == value
