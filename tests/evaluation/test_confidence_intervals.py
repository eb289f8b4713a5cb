from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from medseg.evaluation.confidence_intervals import holm, mean_interval, patient_means, wilcoxon


def test_the_interval_is_the_bootstrap_t_of_its_definition():
    """An independent and slow bootstrap-t over skewed values (Efron and Tibshirani 1993, section 12.5)."""
    values = np.random.default_rng(0).lognormal(0, 1, 12)
    mean, error = values.mean(), stats.sem(values)
    generator = np.random.default_rng(1)
    draws = [generator.choice(values, 12) for _ in range(10_000)]
    t = [(draw.mean() - mean) / stats.sem(draw) for draw in draws]
    low, high = mean - np.quantile(t, 0.975) * error, mean - np.quantile(t, 0.025) * error
    student = stats.t.interval(0.95, 11, mean, error)
    ours = mean_interval(values, range(12))
    assert high > student[1]  # skewed to the right: longer there, and below as long as Student's
    assert ours[1] == pytest.approx(high, rel=0.1)  # two sets of 10,000 draws
    assert ours[0] == pytest.approx(min(low, student[0]))
    assert mean_interval(values, range(12)) == ours


def test_two_patients_have_students_interval():
    # Mean 0.85, standard error 0.05, t(0.975, 1 d.f.) = 12.706: 0.85 - 0.635 and 0.85 + 0.635.
    few = mean_interval([0.8, 0.9], "ab")
    assert few == pytest.approx((0.85 - 12.706 * 0.05, 0.85 + 12.706 * 0.05), abs=1e-3)
    assert mean_interval([0.8, 0.9], "ab", bounds=(0, 1)) == (pytest.approx(0.2147, abs=1e-3), 1)


def test_patients_are_resampled_not_cases():
    """Forty scans of two patients are no more evidence than two scans: each half has one mean."""
    values = [0.8] * 20 + [0.9] * 20
    few = mean_interval(values, ["a"] * 20 + ["b"] * 20)
    assert few == pytest.approx(mean_interval([0.8, 0.9], "ab"))
    many = mean_interval(values, range(40))
    assert many[1] - many[0] < 0.05


def test_patients_are_weighted_by_their_number_of_cases():
    # Two cases of a (0), one of b (1): mean 1/3, residuals -2/3 and 2/3, total 3 cases:
    # error sqrt(2 * (4/9 + 4/9)) / 3 = 4/9, t = 12.706.
    assert mean_interval([0, 0, 1], ["a", "a", "b"]) == pytest.approx(
        (1 / 3 - 12.706 * 4 / 9, 1 / 3 + 12.706 * 4 / 9), abs=1e-3
    )


def test_equal_values_have_no_width_and_bounds_end_the_interval():
    assert mean_interval([0.9] * 6, range(6)) == pytest.approx((0.9, 0.9))
    # Four of five perfect: many resamples have no spread; the interval stays finite and within 0..1.
    low, high = mean_interval([1, 1, 1, 1, 0.5], range(5), bounds=(0, 1))
    assert 0 <= low < 0.9 < high == 1


@pytest.mark.parametrize("n", [5, 10, 30])
def test_the_interval_covers_the_mean_of_dice_like_values(n):
    """300 samples: 95 % cover, less 2.5 standard deviations of that count (0.0126): 0.918."""
    generator = np.random.default_rng(n)
    intervals = [mean_interval(generator.beta(18, 2, n), range(n)) for _ in range(300)]
    assert np.mean([low <= 0.9 <= high for low, high in intervals]) > 0.918


@pytest.mark.parametrize("n", [5, 10, 30])
def test_the_interval_covers_the_mean_of_distances_as_often_as_students(n):
    """Log-normal values, as HD95 is distributed: no interval has its nominal coverage for a few of them."""
    generator = np.random.default_rng(n)
    samples = [generator.lognormal(1, 0.8, n) for _ in range(300)]
    mean = math.exp(1 + 0.8**2 / 2)
    ours = np.mean([low <= mean <= high for low, high in (mean_interval(s, range(n)) for s in samples)])
    limits = [stats.t.interval(0.95, n - 1, s.mean(), stats.sem(s)) for s in samples]
    assert ours >= np.mean([low <= mean <= high for low, high in limits])
    assert ours > 0.88


def test_patient_means_by_hand():
    assert patient_means([1, 2, 3, 5], ["b", "a", "b", "c"]).tolist() == [2, 2, 5]


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
    observed = abs(np.dot(ranks, np.sign(tied)))
    assert wilcoxon(tied) == pytest.approx(np.mean(np.abs(sums) >= observed - 1e-9))


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
