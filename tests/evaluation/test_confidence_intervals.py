from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from medseg.evaluation.confidence_intervals import holm, mean_interval, wilcoxon


def test_the_interval_agrees_with_scipys():
    values = np.random.default_rng(0).normal(0.9, 0.05, 40)
    ours = mean_interval(values, range(40))
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert ours == pytest.approx(tuple(theirs), abs=1.5e-3)  # two draws of 10,000
    assert mean_interval(values, range(40)) == ours


def test_patients_are_resampled_not_cases():
    """Forty scans of two patients are no more evidence than two scans: each half has one mean."""
    values = [0.8] * 20 + [0.9] * 20
    few = mean_interval(values, ["a"] * 20 + ["b"] * 20)
    assert few == pytest.approx((0.8, 0.9))  # drawn both from one person in half of the draws
    many = mean_interval(values, range(40))
    assert many[1] - many[0] < 0.05


def test_patients_are_weighted_by_their_number_of_cases():
    # Two of a (0), one of b (1): means of the four equally likely draws are 0, 1/3, 1/3, 1.
    assert mean_interval([0, 0, 1], ["a", "a", "b"]) == pytest.approx((0, 1))


def test_undefined_values_are_ignored_and_one_patient_has_no_interval():
    assert mean_interval([1.0, math.nan, 3.0], "abc") == mean_interval([1.0, 3.0], "ac")
    for values, patients in (([1.0, 2.0], "aa"), ([math.nan, 1.0], "ab"), ([], "")):
        assert all(map(math.isnan, mean_interval(values, list(patients))))


def test_wilcoxon_by_hand():
    # Five positive differences: only one of 2^5 signs is as extreme on each side: 2 / 32.
    assert wilcoxon([1, 2, 3, 4, 5]) == pytest.approx(2 / 32)
    # 1 negative: rank sums 1 or less on the smaller side: {} and {1}, two of 32 on each side.
    assert wilcoxon([-1, 2, 3, 4, 5]) == pytest.approx(4 / 32)
    assert wilcoxon([0, 0, 1, 2, 3, 4, 5]) == pytest.approx(2 / 32)  # zeros are left out
    assert wilcoxon([0, 0]) == wilcoxon([]) == 1


@pytest.mark.parametrize(
    "tied", [[1, 1, 2, 2, -3, 4, 4, 5], [0.5, -0.5, -0.5], [1, 1, 1, 1, 1], [-2, 2, 2, 7, 7, -7, 1]]
)
def test_ties_are_exact_as_by_enumerating_all_signs(tied):
    ranks = stats.rankdata(np.abs(tied))
    sums = np.array([np.dot(ranks, signs) for signs in product((-1, 1), repeat=len(tied))])
    seen = abs(np.dot(ranks, np.sign(tied)))
    assert wilcoxon(tied) == pytest.approx(np.mean(np.abs(sums) >= seen - 1e-9))


def test_five_equal_differences_have_the_p_value_of_their_signs():
    # All five ranks are 3; only + + + + + and - - - - - are as extreme: 2 / 32, not the normal 0.025.
    assert wilcoxon([1, 1, 1, 1, 1]) == 2 / 32


@pytest.mark.parametrize("n", [6, 25, 50])
def test_without_ties_the_exact_distribution_equals_scipys(n):
    values = np.random.default_rng(n).normal(0.3, 1, n)
    assert wilcoxon(values) == pytest.approx(stats.wilcoxon(values, method="exact").pvalue, rel=1e-9)


def test_many_pairs_use_the_normal_approximation():
    many = np.random.default_rng(0).normal(0.2, 1, 60)
    assert wilcoxon(many) == pytest.approx(stats.wilcoxon(many, method="approx").pvalue)


def test_holm_by_hand():
    # Sorted .01 .02 .03 .04: times 4, 3, 2, 1 gives .04 .06 .06 .04, never falling: .04 .06 .06 .06.
    assert holm([0.02, 0.01, 0.04, 0.03]) == pytest.approx((0.06, 0.04, 0.06, 0.06))
    assert holm([0.5, 0.9]) == (1, 1)
    assert holm([]) == ()
