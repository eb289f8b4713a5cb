"""The intensities of a region: every value with its count, and statistics of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Distribution:
    """How often each intensity occurs in a region.

    All statistics follow from the counts, so that a region of ten million voxels costs as much as one of ten
    thousand, and unions of regions are sums.

    Args:
        values: Ascending, (n,), in HU for CT.
        counts: Voxels with each value, (n,); zeros are allowed.
        voxel_ml: Volume of one voxel.
    """

    values: Values
    counts: Counts
    voxel_ml: float

    @classmethod
    def of(cls, voxels: npt.NDArray[np.generic], voxel_ml: float) -> Distribution:
        """The distribution of voxels of any shape."""
        values, counts = np.unique(np.asarray(voxels, dtype=np.float64), return_counts=True)
        return cls(values, counts.astype(np.int64), voxel_ml)

    @cached_property
    def voxels(self) -> int:
        """Number of voxels."""
        return int(self.counts.sum())

    @property
    def volume_ml(self) -> float:
        """Number of voxels times the volume of one."""
        return self.voxels * self.voxel_ml

    @cached_property
    def mean(self) -> float | None:
        """Mean; None without voxels."""
        return float(self.counts @ self.values) / self.voxels if self.voxels else None

    def central_moment(self, order: int) -> float | None:
        """Mean of the deviations from the mean to the power of ``order``; None without voxels."""
        if self.mean is None:
            return None
        return float(self.counts @ (self.values - self.mean) ** order) / self.voxels

    @property
    def sd(self) -> float | None:
        """Standard deviation with divisor n, as in CIP and numpy; None without voxels."""
        variance = self.central_moment(2)
        return None if variance is None else float(np.sqrt(variance))

    @property
    def skewness(self) -> float | None:
        """Unbiased (adjusted Fisher-Pearson) skewness G1, as scipy's ``skew(bias=False)``.

        None with fewer than three voxels, or if all are equal.
        """
        n, m2, m3 = self.voxels, self.central_moment(2), self.central_moment(3)
        if n < 3 or not m2 or m3 is None:
            return None
        return float(m3 / m2**1.5 * np.sqrt(n * (n - 1.0)) / (n - 2))

    @property
    def kurtosis(self) -> float | None:
        """Unbiased excess kurtosis G2 (Fisher: 0 for a normal one), as scipy's ``kurtosis(bias=False)``.

        None with fewer than four voxels, or if all are equal.
        """
        n, m2, m4 = self.voxels, self.central_moment(2), self.central_moment(4)
        if n < 4 or not m2 or m4 is None:
            return None
        excess = m4 / m2**2 - 3
        return float((n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * excess + 6))

    @property
    def mode(self) -> float | None:
        """The most frequent value, the smallest of several; None without voxels."""
        return float(self.values[int(self.counts.argmax())]) if self.voxels else None

    def percentile(self, percent: float) -> float | None:
        """Linear percentile, as ``numpy.percentile`` of the voxels; None without voxels."""
        if not self.voxels:
            return None
        last = np.cumsum(self.counts) - 1  # rank of the last voxel with each value
        rank = percent / 100 * (self.voxels - 1)
        below, above = (self.values[np.searchsorted(last, at)] for at in (np.floor(rank), np.ceil(rank)))
        return float(below + (above - below) * (rank - np.floor(rank)))

    def count(self, low: float = -np.inf, high: float = np.inf) -> int:
        """Number of voxels with ``low <= value < high``."""
        first, last = np.searchsorted(self.values, (low, high), side="left")
        return int(self.counts[first:last].sum())

    def percent(self, low: float = -np.inf, high: float = np.inf) -> float | None:
        """Percentage of the voxels with ``low <= value < high``; None without voxels."""
        return 100 * self.count(low, high) / self.voxels if self.voxels else None

    def rescaled(self, factor: float) -> Distribution:
        """The distribution of all values times a positive factor."""
        return Distribution(self.values * factor, self.counts, self.voxel_ml)
