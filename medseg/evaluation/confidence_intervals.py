"""Confidence intervals of means, paired tests, and the correction of p values for multiple tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

Values = npt.NDArray[np.float64]

RESAMPLES = 10_000
"""Enough for two digits of a 95 % interval (Efron and Tibshirani 1993, chapter 19)."""
SEED = 0
EXACT_PAIRS = 50
"""Up to this number all 2^n signs are enumerated; scipy switches to the normal distribution here too."""
_AT_ONCE = 1 << 20
_TAIL = 0.025


def mean_interval(
    values: Sequence[float] | Values,
    patients: Sequence[object],
    *,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> tuple[float, float]:
    """The 95 % confidence interval of a mean: studentised bootstrap over patients.

    Patients are resampled, not cases, because several scans of one person are not independent
    evidence (cluster bootstrap, Davison and Hinkley 1997, section 3.8). The deviation of each
    resampled mean is divided by its own standard error (bootstrap-t, Efron and Tibshirani 1993,
    section 12.5), because plain percentiles of the means are too narrow for few patients. The
    interval is never narrower than Student's, which is therefore the result if there are too few
    patients to resample. Measured coverage: docs/results.md.

    Args:
        values: One value per case; nan are ignored.
        patients: The patient of each case.
        bounds: Smallest and largest value that the mean can have; the interval ends there.

    Returns:
        Lower and upper bound, always the same for the same values; (nan, nan) with fewer than two
        patients.
    """
    known = ~np.isnan(np.asarray(values, dtype=np.float64))
    kept = np.asarray(values, dtype=np.float64)[known]
    _, owner = np.unique([str(patient) for patient in patients], return_inverse=True)
    _, owner = np.unique(owner[known], return_inverse=True)
    n = int(owner.max(initial=-1)) + 1
    if n < 2:
        return math.nan, math.nan
    sums, counts = (np.bincount(owner, weight).astype(np.float64) for weight in (kept, None))
    mean, error = (float(part) for part in _means_and_errors(sums, counts))
    deviations = _studentised(sums, counts, mean)
    student = float(stats.t.ppf(1 - _TAIL, n - 1))
    left, right = np.quantile(deviations, (_TAIL, 1 - _TAIL)) if deviations.size else (0.0, 0.0)
    low = mean - max(float(right), student) * error
    high = mean - min(float(left), -student) * error
    return max(low, bounds[0]), min(high, bounds[1])


def _studentised(sums: Values, counts: Values, mean: float) -> Values:
    """The deviations of resampled means from the mean, in their own standard errors.

    Resamples whose patients are all alike have no standard error and are left out.
    """
    n = len(sums)
    generator = np.random.default_rng(SEED)
    deviations = []
    step = max(1, _AT_ONCE // n)  # limits the memory
    for first in range(0, RESAMPLES, step):
        drawn = generator.integers(0, n, (min(step, RESAMPLES - first), n))
        means, errors = _means_and_errors(sums[drawn], counts[drawn])
        usable = errors > 1e-12 * np.maximum(1.0, np.abs(means))
        deviations.append((means[usable] - mean) / errors[usable])
    return np.concatenate(deviations)


def _means_and_errors(sums: Values, counts: Values) -> tuple[Values, Values]:
    """Means over cases along the last axis of patients, and their standard errors.

    The mean is a ratio of two sums over patients; its error is that of the linearised ratio
    (Cochran 1977, Sampling Techniques, equation 6.9), for one case per patient s / sqrt(n).
    """
    n = sums.shape[-1]
    totals = counts.sum(-1)
    means = sums.sum(-1) / totals
    residuals = sums - means[..., None] * counts
    errors: Values = np.sqrt(n / (n - 1) * (residuals**2).sum(-1)) / totals
    return means, errors


def patient_means(values: Sequence[float] | Values, patients: Sequence[object]) -> Values:
    """The mean value of each patient, in order of first appearance.

    Args:
        values: One value per case, without nan.
        patients: The patient of each case.
    """
    _, first, owner = np.unique([str(p) for p in patients], return_index=True, return_inverse=True)
    means: Values = np.bincount(owner, np.asarray(values, dtype=np.float64)) / np.bincount(owner)
    return means[np.argsort(first)]


def wilcoxon(differences: Sequence[float] | Values) -> float:
    """Two-sided p value of the Wilcoxon signed-rank test that differences are symmetric about 0.

    Differences of exactly 0 are left out (Wilcoxon 1945, doi:10.2307/3001968); equal ones share
    their mean rank. Up to 50 pairs the distribution is exact, also with ties: it enumerates all
    signs of the actual ranks (Hollander and Wolfe 1999, section 3.1). The normal distribution,
    which scipy uses with ties, would give p = 0.025 for five equal differences. With n differing
    pairs p is at least 2 / 2^n, so it cannot be below 0.05 with fewer than 6. Above 50 pairs the
    distribution is normal with a correction for ties.

    Args:
        differences: One per independent pair, without nan.

    Returns:
        The p value, 0..1; 1.0 if there is no difference.
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[values != 0]
    if not values.size:
        return 1.0
    if values.size > EXACT_PAIRS:
        return float(stats.wilcoxon(values, method="approx").pvalue)
    ranks = np.rint(2 * stats.rankdata(np.abs(values))).astype(int)  # doubled, so that half ranks are whole
    # The number of the 2^n choices of signs with each sum of positive ranks; integers up to 2^50 are
    # exact in float64.
    ways = np.zeros(ranks.sum() + 1)
    ways[0] = 1
    for rank in ranks:
        ways[rank:] += ways[:-rank].copy()
    positive = int(ranks[values > 0].sum())
    extreme = min(positive, int(ranks.sum()) - positive)
    return min(1.0, float(2 * ways[: extreme + 1].sum() / 2.0**values.size))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """P values corrected for their number, in the given order (Holm 1979, Scand J Statist 6:65).

    The smallest is multiplied by n, the next one by n - 1 and so on; no value becomes smaller than
    the one before it, or larger than 1.
    """
    n = len(p_values)
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(n)
    highest = 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, (n - rank) * p_values[at]))
        corrected[at] = highest
    return tuple(float(p) for p in corrected)
