"""Clusters of low attenuation and the exponent of their sizes (Mishima et al. 1999, PNAS 96:8829)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medseg.images.connected_components import components
from medseg.images.run_length import Array, Runs

Sizes = npt.NDArray[np.int64]

FEWEST_SIZES = 3
"""Points that a line needs before its fit says anything; two points always lie on a line."""


@dataclass(frozen=True)
class ClusterFit:
    """The power law of cluster sizes.

    Attributes:
        clusters: Number of clusters.
        exponent: D, minus the slope of log10(number of clusters of at least a size) against log10(size), by
            least squares over the distinct sizes; None with fewer than `FEWEST_SIZES` of them.
        r2: Coefficient of determination of that line; None without it.
        smallest_ml: Size of the smallest cluster in the fit; None without clusters.
        largest_ml: Size of the largest one.
    """

    clusters: int
    exponent: float | None
    r2: float | None
    smallest_ml: float | None
    largest_ml: float | None


def cluster_sizes(lung: Array, hu: Array, below_hu: float = -950.0) -> Sizes:
    """Voxels of each 6-connected cluster with HU strictly below a threshold, (n,).

    Args:
        lung: bool (X, Y, Z).
        hu: The CT, (X, Y, Z).
        below_hu: The threshold.
    """
    dark = np.asarray(hu < below_hu)
    dark &= lung
    runs = Runs.of(dark)
    number, count = components(runs, corners=False)
    return np.bincount(number, weights=runs.lengths, minlength=count).astype(np.int64)


def fit_clusters(sizes: Iterable[Sizes], voxel_ml: float) -> ClusterFit:
    """The exponent D of all clusters of one lung or both.

    Args:
        sizes: Of :func:`cluster_sizes`, one array for each lung: clusters do not cross the pleura.
        voxel_ml: Volume of one voxel; the exponent does not depend on it.
    """
    voxels = np.concatenate([np.zeros(0, np.int64), *sizes])
    if not voxels.size:
        return ClusterFit(0, None, None, None, None)
    size, count = np.unique(voxels, return_counts=True)
    ends = float(size[0]) * voxel_ml, float(size[-1]) * voxel_ml
    if len(size) < FEWEST_SIZES:
        return ClusterFit(voxels.size, None, None, *ends)
    x, y = np.log10(size), np.log10(count[::-1].cumsum()[::-1])
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    residual = y - y.mean() - slope * (x - x.mean())
    r2 = 1 - float((residual**2).sum() / ((y - y.mean()) ** 2).sum())
    return ClusterFit(voxels.size, -slope, r2, *ends)
