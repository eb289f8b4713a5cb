from __future__ import annotations

import pytest

from medseg.tuning.parameter import Choice, Range


@pytest.mark.parametrize("tenths", range(1, 10))
def test_every_step_of_a_range_lies_in_it(tenths: int) -> None:
    # In binary numbers (0.3 - 0.1) / 0.1 is a little less than 2.
    assert Range(0.1, 0.9, step=0.1).encoded(tenths / 10) == tenths / 10


@pytest.mark.parametrize("value", [0.0, 0.15, 0.95, 1.0, True, "0.3", None])
def test_what_lies_between_steps_or_outside_does_not(value: object) -> None:
    assert Range(0.1, 0.9, step=0.1).encoded(value) is None


def test_a_large_whole_range_and_one_without_steps() -> None:
    assert Range(16, 4096, step=16, whole=True).encoded(4000) == 4000
    assert Range(16, 4096, step=16, whole=True).encoded(4001) is None
    assert Range(1e-5, 1e-2, log=True).encoded(3.3e-4) == 3.3e-4


def test_a_list_is_one_of_several_choices() -> None:
    assert Choice(([8, 16], [16, 32])).encoded((16, 32)) == "[16, 32]"
    assert Choice(([8, 16], [16, 32])).encoded([16, 33]) is None
