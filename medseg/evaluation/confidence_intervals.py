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
EXACT_PAIRS = 50
"""Up to here all 2^n signs are counted; also where scipy changes to the normal distribution."""
_DRAWN_AT_ONCE = 1 << 20


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
    step = max(1, _DRAWN_AT_ONCE // n)  # so that memory stays small
    for first in range(0, RESAMPLES, step):
        drawn = chance.integers(0, n, (min(step, RESAMPLES - first), n))
        means[first : first + step] = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def wilcoxon(differences: Sequence[float] | Values) -> float:
    """Two-sided p of the signed-rank test that paired differences are symmetric about 0.

    Differences of exactly 0 are left out (Wilcoxon 1945, doi:10.2307/3001968); equal ones share
    their mean rank. Up to 50 pairs the distribution is exact, over all signs of these very ranks
    (Hollander and Wolfe 1999, section 3.1), with ties too: the normal one, which scipy takes for
    them, gives five equal differences 0.025. With n pairs that differ p is never below 2 / 2^n:
    under 6 of them it cannot come below 0.05. Above 50 it is normal with the correction for ties.

    Args:
        differences: One a pair, none of them nan.

    Returns:
        0..1; 1.0 where nothing differs.
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[values != 0]
    if not values.size:
        return 1.0
    if values.size > EXACT_PAIRS:
        return float(stats.wilcoxon(values, method="approx").pvalue)
    ranks = np.rint(2 * stats.rankdata(np.abs(values))).astype(int)  # twice, so that halves are whole
    # How many of the 2^n choices of positive ones have each rank sum; whole numbers up to 2^50 are
    # exact in float64.
    ways = np.zeros(ranks.sum() + 1)
    ways[0] = 1
    for rank in ranks:
        ways[rank:] += ways[:-rank].copy()
    positive = int(ranks[values > 0].sum())
    extreme = min(positive, int(ranks.sum()) - positive)
    return min(1.0, float(2 * ways[: extreme + 1].sum() / 2.0**values.size))


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
