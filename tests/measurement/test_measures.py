from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from medseg.measurement.distribution import Distribution
from medseg.measurement.measures import REGISTRY, measures_of


def of(*hu: float, voxel_ml: float = 0.5) -> dict[str, float | None]:
    return measures_of(Distribution.of(np.array(hu, dtype=float), voxel_ml))


BY_HAND = {
    # Voxels of 0.5 ml at -1000, -960, -950 and -900 HU.
    "volume_ml": 2.0,
    # Density 0.00121 + (HU + 1000) * 0.92879 / 902: at -960, -950 and -900 this is 40, 50 and 100 steps.
    "mass_g": 0.5 * (4 * 0.00121 + 190 * 0.92879 / 902),
    "mean_hu": -952.5,
    # Deviations -47.5, -7.5, 2.5, 52.5.
    "sd_hu": math.sqrt((47.5**2 + 7.5**2 + 2.5**2 + 52.5**2) / 4),
    "skewness": stats.skew([-1000.0, -960, -950, -900], bias=False),
    "kurtosis": stats.kurtosis([-1000.0, -960, -950, -900], bias=False),
    "mode_hu": -1000.0,  # the smallest of four equals
    "median_hu": -955.0,
    "perc10_hu": -988.0,  # rank 0.3 between -1000 and -960
    "perc15_hu": -982.0,  # rank 0.45
    "pd15_g_per_l": 18.0,
    "laa950_percent": 50.0,
    "laa910_percent": 75.0,
    "laa856_percent": 100.0,
    "haa_percent": 0.0,
    "aeration_below_950_percent": 50.0,
    "aeration_950_750_percent": 50.0,
    "aeration_750_400_percent": 0.0,
    "aeration_400_0_percent": 0.0,
    "aeration_above_0_percent": 0.0,
    "covid_score_percent": 0.0,
}


def test_every_measure_has_its_number_by_hand():
    found = of(-1000, -960, -950, -900)
    assert found.keys() == BY_HAND.keys() == REGISTRY.keys()
    for name, value in BY_HAND.items():
        assert found[name] == pytest.approx(value), name


@pytest.mark.parametrize(("column", "threshold"), [("laa950", -950), ("laa910", -910), ("laa856", -856)])
def test_a_voxel_at_the_threshold_is_not_below_it(column, threshold):
    assert of(threshold, threshold - 1)[f"{column}_percent"] == 50
    assert of(threshold, threshold - 1e-6)[f"{column}_percent"] == 50
    assert of(threshold)[f"{column}_percent"] == 0


def test_high_attenuation_holds_its_lower_bound_alone():
    assert of(-601, -600, -251, -250)["haa_percent"] == 50


def test_every_voxel_is_in_one_compartment():
    # At the bounds: -950 is normal, -750 poorly inflated, -400 and 0 not aerated.
    found = of(-951, -950, -751, -750, -401, -400, 0, 1)
    shares = [found[name] for name in REGISTRY if name.startswith("aeration_")]
    assert shares == [12.5, 25, 25, 25, 12.5]


def test_the_covid_score_is_of_the_aerated_and_infiltrated():
    # Not counted: -951 and -200. Healthy are -950 and -801; -800, -500 and -201 are not.
    assert of(-951, -950, -801, -800, -500, -201, -200)["covid_score_percent"] == pytest.approx(60)
    assert of(-1000, 50)["covid_score_percent"] is None


@pytest.mark.parametrize(
    ("hu", "density"),
    [
        (-1000, 0.00121),
        (-98, 1.018 - 0.893 * 0.098),
        (18, 1.018 + 0.893 * 0.018),
        (19, 1.003 + 1.169 * 0.019),
        (100, 1.003 + 1.169 * 0.1),
        (101, 1.017 + 0.592 * 0.101),
        (-2048, 0.0),  # padding has no negative mass
    ],
)
def test_density_is_piecewise_linear(hu, density):
    assert of(hu, voxel_ml=1.0)["mass_g"] == pytest.approx(density)


def test_an_empty_region_has_volume_and_mass_of_zero_and_nothing_else():
    found = of()
    assert (found.pop("volume_ml"), found.pop("mass_g")) == (0, 0)
    assert set(found.values()) == {None}


def test_every_threshold_measure_states_its_bounds():
    for name, measure in REGISTRY.items():
        assert measure.definition, name
        if name.endswith("_percent"):
            assert "HU" in measure.definition, name
