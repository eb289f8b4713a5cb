from __future__ import annotations

import numpy as np
import pytest

from medseg.measurement.distribution import Distribution
from medseg.measurement.response_map import (
    EMPHYSEMA,
    NORMAL,
    OUTSIDE,
    SMALL_AIRWAYS,
    response_map,
    response_shares,
)


@pytest.mark.parametrize(
    ("inspiration", "expiration", "expected"),
    [
        (-951, -857, EMPHYSEMA),
        (-950, -857, SMALL_AIRWAYS),  # not below -950
        (-951, -856, NORMAL),  # does not trap air
        (-950, -856, NORMAL),
        (-850, -700, NORMAL),
        (-850, -900, SMALL_AIRWAYS),
    ],
)
def test_both_thresholds_are_strict(inspiration, expiration, expected):
    pair = (np.full((1, 1, 1), hu, np.int16) for hu in (inspiration, expiration))
    assert response_map(*pair, np.ones((1, 1, 1), bool)).item() == expected


def test_what_is_not_covered_has_no_class_and_no_share():
    covered = np.array([[[True, False]]])
    found = response_map(np.full((1, 1, 2), -960), np.full((1, 1, 2), -900), covered)
    assert found.tolist() == [[[EMPHYSEMA, OUTSIDE]]]
    assert response_shares(Distribution.of(found, 0.01)) == {
        "prm_emphysema_percent": 100,
        "prm_small_airways_percent": 0,
        "prm_normal_percent": 0,
        "prm_covered_percent": 50,
    }
    nothing = response_shares(Distribution.of(np.zeros(0), 0.01))
    assert set(nothing.values()) == {None}
