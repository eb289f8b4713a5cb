"""All measures of both lungs and their parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from medseg.images.grid import Grid
from medseg.images.run_length import Array
from medseg.measurement import measures, regions
from medseg.measurement.distribution import Distribution
from medseg.measurement.low_attenuation_clusters import cluster_sizes, fit_clusters
from medseg.measurement.lung_labels import SIDES
from medseg.measurement.measurement_table import BOTH, WHOLE, Histogram, StructureMeasures

CLUSTERS_HU = -950.0
"""Threshold of the clusters, that of LAA-950 (Mishima et al. 1999 used -960 HU)."""

CLUSTERS = {
    "laa950_clusters": "6-connected clusters of voxels with HU < -950",
    "laa950_d": "D: minus the slope of log10(clusters of at least a size) against log10(size), least squares "
    "over the distinct sizes",
    "laa950_d_r2": "coefficient of determination of that line",
    "laa950_d_smallest_ml": "smallest cluster in the fit",
    "laa950_d_largest_ml": "largest cluster in the fit",
}
"""Columns of whole lungs beside the histogram's; their source is ``mishima1999``."""

STRUCTURES = {**{name: (side,) for name, side in SIDES.items()}, BOTH: tuple(SIDES.values())}
"""The sides of each structure."""

_ELSEWHERE = ("volume_ml", "laa950_d_smallest_ml", "laa950_d_largest_ml")

HISTOGRAM_HU = (-1050.0, 10.0, 120)
"""Lower edge, width and number of bins of the histograms; what lies outside is in the outermost bins."""


@dataclass(frozen=True)
class LungScan:
    """Both lungs cut out of a scan.

    Attributes:
        sides: 1 for right, 2 for left, else 0; uint8 (X, Y, Z) along R, A and S, X fastest in memory.
        hu: The CT, (X, Y, Z).
        grid: Of both.
        hu_factor: Every HU is multiplied by this: 1, or the correction by tracheal air.
        lesions: bool (X, Y, Z); empty without lesions.
        lobes: The number of each lobe, see `medseg.measurement.lobes`; uint8 (X, Y, Z), empty without lobes.
    """

    sides: Array
    hu: Array
    grid: Grid
    hu_factor: float = 1.0
    lesions: Array = field(default_factory=lambda: np.zeros((0, 0, 0), np.bool_))
    lobes: Array = field(default_factory=lambda: np.zeros((0, 0, 0), np.uint8))


def measure_lungs(
    lungs: LungScan, rind_mm: float
) -> tuple[tuple[StructureMeasures, ...], dict[str, Histogram]]:
    """Rows for both lungs and each side, whole and in parts, and histograms of the whole ones."""
    found = regions.lung_regions(lungs.sides, lungs.hu, lungs.grid, rind_mm)
    sizes = {
        side: cluster_sizes(lungs.sides == side, lungs.hu, CLUSTERS_HU / lungs.hu_factor)
        for side in SIDES.values()
    }
    rows, histograms = [], {}
    for name, sides in STRUCTURES.items():
        whole = found.distribution(sides).rescaled(lungs.hu_factor)
        fit = fit_clusters([sizes[side] for side in sides], lungs.grid.voxel_ml)
        ends = fit.smallest_ml, fit.largest_ml
        clusters = dict(zip(CLUSTERS, (fit.clusters, fit.exponent, fit.r2, *ends), strict=True))
        rows.append(StructureMeasures(name, WHOLE, measures.measures_of(whole) | clusters))
        histograms[name] = histogram(whole)
        for part in regions.PARTS:
            values = measures.measures_of(found.distribution(sides, part).rescaled(lungs.hu_factor))
            rows.append(StructureMeasures(name, part, values))
    return tuple(rows), histograms


def histogram(region: Distribution) -> Histogram:
    """The counts of a region in the bins of `HISTOGRAM_HU`."""
    low, width, bins = HISTOGRAM_HU
    number = np.floor((region.values - low) / width).clip(0, bins - 1).astype(np.intp)
    counts = np.bincount(number, region.counts, minlength=bins).astype(int)
    return Histogram(low, width, tuple(counts.tolist()))


def columns_of(rows: Sequence[StructureMeasures]) -> dict[str, dict[str, float | None]]:
    """The measures of whole lungs for a table with one row per scan, by structure and column.

    Volumes of the sides are columns of that table already; that of both lungs is added as ``ml``.
    """
    found: dict[str, dict[str, float | None]] = {}
    for row in rows:
        if row.structure in STRUCTURES and row.region == WHOLE:
            kept = {name: value for name, value in row.values.items() if name not in _ELSEWHERE}
            both = {"ml": row.values["volume_ml"]} if row.structure == BOTH else {}
            found[row.structure] = both | kept
    return found
