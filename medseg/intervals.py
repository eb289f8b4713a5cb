"""What chance may have done: confidence intervals, paired tests, and correction for many of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

Values = npt.NDArray[np.float64]

RESAMPLES = 10_000
"""Enough for two digits of a 95 % interval (Efron and Tibshirani 1993, chapter 19)."""
SEED = 0


def mean_interval(values: Sequence[float] | Values, patients: Sequence[object]) -> tuple[float, float]:
    """The 95 % bootstrap interval of a mean: percentiles of means over patients drawn again.

    Patients are drawn, not cases: several scans of one person are no independent evidence (cluster
    bootstrap, Davison and Hinkley 1997, section 3.8). With few patients, under 20 say, the
    interval is too narrow (Efron and Tibshirani 1993, chapter 13).

    Args:
        values: One a case; nan are left out.
        patients: Whose each case is.

    Returns:
        Lower and upper bound; (nan, nan) with fewer than two patients. The same for the same values.
    """
    known = ~np.isnan(np.asarray(values, dtype=np.float64))
    kept = np.asarray(values, dtype=np.float64)[known]
    _, who = np.unique([str(patient) for patient in patients], return_inverse=True)
    _, who = np.unique(who[known], return_inverse=True)
    n = int(who.max(initial=-1)) + 1
    if n < 2:
        return float("nan"), float("nan")
    sums, counts = np.bincount(who, kept), np.bincount(who).astype(np.float64)
    chance = np.random.default_rng(SEED)
    means = np.empty(RESAMPLES)
    for first in range(0, RESAMPLES, 1000):  # a thousand at once, so that memory stays small
        times = chance.multinomial(n, np.full(n, 1 / n), size=1000).astype(np.float64)
        means[first : first + 1000] = (times @ sums) / (times @ counts)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def wilcoxon(differences: Sequence[float] | Values) -> float:
    """Two-sided p of the signed-rank test that paired differences are symmetric about 0.

    Differences of exactly 0 are left out (Wilcoxon 1945). Without ties and up to 50 pairs the
    distribution is exact, else normal with the correction for ties (scipy). 1.0 where nothing
    differs. With n pairs p is never below 2 / 2^n: under 6 pairs it cannot come below 0.05.
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[values != 0]
    if not values.size:
        return 1.0
    ties = np.unique(np.abs(values)).size < values.size
    method = "approx" if ties or values.size > 50 else "exact"
    return float(stats.wilcoxon(values, method=method).pvalue)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """P values corrected for their number, in their order (Holm 1979, Scand J Statist 6:65).

    The smallest is multiplied by n, the next by n - 1 and so on; none becomes smaller than one
    before it, nor larger than 1.
    """
    n = len(p_values)
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(n)
    highest = 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, (n - rank) * p_values[at]))
        corrected[at] = highest
    return tuple(float(p) for p in corrected)
