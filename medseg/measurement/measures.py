"""The table of densitometric measures of a lung or a part of it.

A new measure is one row of `REGISTRY` and a row in its test. Comparisons are strict as written: LAA-950 does
not count a voxel of exactly -950 HU. Columns carry their units, and the thresholds without their minus sign,
as articles do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from medseg.measurement.distribution import Distribution

Number = float | None


@dataclass(frozen=True)
class Measure:
    """One column of a table of measures.

    Attributes:
        definition: What is computed, with every bound; one clause for a methods paragraph.
        source: Citation keys of :mod:`medseg.measurement.references`; empty for plain statistics.
        compute: The number from the HU of a region; None where it is not defined.
        threshold: Whether it compares single voxels with a threshold or takes a percentile far from the
            median, so that noise, sharp kernels and thick slices change it.
    """

    definition: str
    compute: Callable[[Distribution], Number]
    source: tuple[str, ...] = ()
    threshold: bool = False


def mass_g(region: Distribution) -> float:
    """Mass from the density of each voxel.

    Density in g/ml is piecewise linear in HU, the calibration of Schneider et al. 1996
    (doi:10.1088/0031-9155/41/1/009) as the Chest Imaging Platform uses it, and never negative.
    """
    hu = region.values
    density = np.select(
        [hu < -98, hu <= 18, hu <= 100],
        [
            0.00121 + (hu + 1000) * (0.93 - 0.00121) / (1000 - 98),
            1.018 + 0.893 * hu / 1000,
            1.003 + 1.169 * hu / 1000,
        ],
        1.017 + 0.592 * hu / 1000,
    )
    return float(region.counts @ density.clip(min=0)) * region.voxel_ml


def covid_score_percent(region: Distribution) -> Number:
    """Share of what is not well aerated: (TLV - healthy) / TLV, in percent (PMC7963378); None without TLV."""
    total, healthy = region.count(-950, -200), region.count(-950, -800)
    return 100 * (total - healthy) / total if total else None


def pd15_g_per_l(region: Distribution) -> Number:
    """The 15th percentile as a density: HU + 1000."""
    percentile = region.percentile(15)
    return None if percentile is None else percentile + 1000


def _share(low: float, high: float, region: Distribution) -> Number:
    return region.percent(low, high)


def _below(hu: float) -> Callable[[Distribution], Number]:
    return partial(_share, -np.inf, hu)


def _between(low: float, high: float) -> Callable[[Distribution], Number]:
    return partial(_share, low, high)


# Above 0 begins the next number after 0: the bound itself belongs to the class below.
_ABOVE_0 = float(np.nextafter(0, 1))
_AERATION = ("lungctanalyzer",)

REGISTRY: dict[str, Measure] = {
    "volume_ml": Measure("volume: voxels times voxel volume", lambda region: region.volume_ml),
    "mass_g": Measure("mass, from a density piecewise linear in HU", mass_g, ("schneider1996",)),
    "mean_hu": Measure("mean density", lambda region: region.mean),
    "sd_hu": Measure("standard deviation (divisor n)", lambda region: region.sd),
    "skewness": Measure("skewness, unbiased", lambda region: region.skewness),
    "kurtosis": Measure("excess kurtosis (Fisher), unbiased", lambda region: region.kurtosis),
    "mode_hu": Measure("most frequent value", lambda region: region.mode),
    "median_hu": Measure("median", lambda region: region.percentile(50)),
    "perc10_hu": Measure(
        "Perc10: 10th percentile, linear interpolation",
        lambda region: region.percentile(10),
        ("dirksen2009",),
        True,
    ),
    "perc15_hu": Measure(
        "Perc15: 15th percentile, linear interpolation",
        lambda region: region.percentile(15),
        ("dirksen2009",),
        True,
    ),
    "pd15_g_per_l": Measure("PD15: Perc15 + 1000", pd15_g_per_l, ("dirksen2009",), True),
    "laa950_percent": Measure(
        "LAA-950: share of voxels with HU < -950 (emphysema, in inspiration)",
        _below(-950),
        ("gevenois1996",),
        True,
    ),
    "laa910_percent": Measure("LAA-910: share with HU < -910", _below(-910), ("muller1988",), True),
    "laa856_percent": Measure(
        "LAA-856: share with HU < -856 (air trapping, in expiration)", _below(-856), ("copdgene2010",), True
    ),
    "haa_percent": Measure(
        "HAA: share with -600 <= HU < -250", _between(-600, -250), ("podolanczuk2016",), True
    ),
    "aeration_below_950_percent": Measure(
        "hyperinflated: share with HU < -950", _below(-950), _AERATION, True
    ),
    "aeration_950_750_percent": Measure(
        "normally inflated: share with -950 <= HU < -750", _between(-950, -750), _AERATION, True
    ),
    "aeration_750_400_percent": Measure(
        "poorly inflated (ground glass): share with -750 <= HU < -400", _between(-750, -400), _AERATION, True
    ),
    "aeration_400_0_percent": Measure(
        "non-aerated or infiltrated: share with -400 <= HU <= 0", _between(-400, _ABOVE_0), _AERATION, True
    ),
    "aeration_above_0_percent": Measure(
        "vessels and consolidation: share with HU > 0", _between(_ABOVE_0, np.inf), _AERATION, True
    ),
    "covid_score_percent": Measure(
        "(TLV - healthy) / TLV with TLV -950 <= HU < -200 and healthy -950 <= HU < -800",
        covid_score_percent,
        ("pmc7963378",),
        True,
    ),
}
"""Every measure by its column, in the order of the columns."""


def measures_of(region: Distribution) -> dict[str, Number]:
    """The value of every measure in `REGISTRY`."""
    return {name: measure.compute(region) for name, measure in REGISTRY.items()}
