"""Coverage of 95 % confidence intervals of a mean over few patients, for Dice- and HD95-like values.

    python benchmarks/intervals.py [--samples 1000]

For each distribution and number of patients, samples are drawn whose true mean is known, and the
share of intervals that contain it is printed with their median width: the percentile bootstrap,
BCa (scipy, Efron 1987), Student's t, and the interval of this package. Single thread, fixed seeds.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import stats

from medseg.evaluation.confidence_intervals import mean_interval

Values = npt.NDArray[np.float64]
Interval = tuple[float, float]


def dice(generator: np.random.Generator, n: int) -> Values:
    """Dice of a good model: beta with mean 0.9 and SD 0.065, skewed to the left."""
    return generator.beta(18, 2, n)


def hd95(generator: np.random.Generator, n: int) -> Values:
    """HD95 in mm: log-normal with median 2.7 and mean 3.7, skewed to the right."""
    return generator.lognormal(1, 0.8, n)


def failures(generator: np.random.Generator, n: int) -> Values:
    """Dice of a model that fails in one of ten patients: mean 0.903."""
    good, bad = generator.beta(36, 2, n), generator.beta(2, 2, n)
    return np.where(generator.random(n) < 0.1, bad, good)


TRUE_MEANS = {dice: 0.9, hd95: float(np.exp(1.32)), failures: 0.9 * 36 / 38 + 0.1 * 0.5}


def percentile(values: Values) -> Interval:
    """Percentiles of 2,000 resampled means."""
    drawn = np.random.default_rng(0).integers(0, len(values), (2000, len(values)))
    low, high = np.percentile(values[drawn].mean(1), (2.5, 97.5))
    return float(low), float(high)


def bca(values: Values) -> Interval:
    """Bias-corrected and accelerated bootstrap of scipy."""
    found = stats.bootstrap(
        (values,), np.mean, n_resamples=2000, method="BCa", rng=np.random.default_rng(0), vectorized=True
    ).confidence_interval
    return float(found.low), float(found.high)


def student(values: Values) -> Interval:
    """Student's t interval."""
    low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    return float(low), float(high)


def ours(values: Values) -> Interval:
    """The interval of this package, without bounds."""
    return mean_interval(values, range(len(values)))


METHODS: tuple[Callable[[Values], Interval], ...] = (percentile, bca, student, ours)


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=int, default=1000)
    samples = parser.parse_args().samples
    warnings.simplefilter("ignore")  # BCa of equal values
    print("| values | patients | " + " | ".join(m.__name__ for m in METHODS) + " |")
    print("|---|---:|" + "---:|" * len(METHODS))
    for draw, true in TRUE_MEANS.items():
        for n in (5, 10, 30):
            generator = np.random.default_rng(n)
            drawn = [draw(generator, n) for _ in range(samples)]
            cells = []
            for method in METHODS:
                intervals = np.array([method(values) for values in drawn])
                covered = np.mean((intervals[:, 0] <= true) & (true <= intervals[:, 1]))
                cells.append(f"{covered:.3f} ({np.median(intervals[:, 1] - intervals[:, 0]):.3f})")
            print(f"| {draw.__name__} | {n} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
