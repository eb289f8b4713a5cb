"""Metrics of one label, all in one table: overlap, surface distances, volume and lesions.

To add a metric, write a function of a :class:`LabelPair` and give it a row in :data:`REGISTRY`: tables,
summaries and `medseg compare` use it from there. `docs/metrics.md` defines each metric.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from medseg.errors import InputRefused
from medseg.evaluation.lesion_detection import Lesions, lesions
from medseg.evaluation.surface_distance import SurfaceDistances, surface_distances
from medseg.evaluation.voxel_surface import voxel_distances
from medseg.images.grid import Grid

Binary: TypeAlias = npt.NDArray[np.bool_]

NSD_TOLERANCE_MM = 3.0
"""Default NSD tolerance, as in TotalSegmentator (Wasserthal et al. 2023, doi:10.1148/ryai.230024)."""

_ANY_GRID = Grid.from_spacing((1, 1, 1))


@dataclass(frozen=True)
class LabelPair:
    """One label in a prediction and in the truth, with the intermediate results that metrics share.

    Attributes:
        prediction: bool, (X, Y, Z).
        truth: bool, the same shape.
        grid: Grid of the whole scan. The masks may be a crop of it and have its spacing.
        nsd_tolerance_mm: Distance up to which surfaces agree in the surface Dice.

    Raises:
        InputRefused: shapes differ, or a mask is not bool.
    """

    prediction: Binary
    truth: Binary
    grid: Grid
    nsd_tolerance_mm: float = NSD_TOLERANCE_MM

    def __post_init__(self) -> None:
        _check_masks(self.prediction, self.truth)

    @cached_property
    def both(self) -> int:
        """Number of voxels in both masks."""
        return int(np.count_nonzero(self.prediction & self.truth))

    @cached_property
    def predicted(self) -> int:
        """Number of voxels in the prediction."""
        return int(np.count_nonzero(self.prediction))

    @cached_property
    def true(self) -> int:
        """Number of voxels in the truth."""
        return int(np.count_nonzero(self.truth))

    @cached_property
    def surfaces(self) -> SurfaceDistances | None:
        """Distances between the surfaces, weighted by area; None if a mask is empty."""
        return surface_distances(self.prediction, self.truth, self.grid.spacing_mm)

    @cached_property
    def voxel_surfaces(self) -> SurfaceDistances | None:
        """Distances between the border voxels; None if a mask is empty."""
        return voxel_distances(self.prediction, self.truth, self.grid.spacing_mm)

    @cached_property
    def lesions(self) -> Lesions:
        """Counts of true, found and false lesions."""
        return lesions(self.prediction, self.truth)

    @property
    def empty(self) -> str:
        """Which mask is empty: ``prediction``, ``truth``, ``both``, or an empty string."""
        if not self.predicted:
            return "prediction" if self.true else "both"
        return "" if self.true else "truth"

    @property
    def missing_distance_mm(self) -> float:
        """Replacement of an undefined distance: nan if both masks are empty, else the scan's diagonal.

        If only one mask is empty, the largest possible distance prevents a model from improving its
        mean by predicting nothing (as in BraTS, where it is 373.13 mm; Isensee et al. 2020,
        arXiv:2011.00848).
        """
        if not (self.predicted or self.true):
            return math.nan
        sizes = zip(self.grid.shape, self.grid.spacing_mm, strict=True)
        return math.hypot(*((n - 1) * mm for n, mm in sizes))


@dataclass(frozen=True)
class Column:
    """A column of ``summary.md`` and ``summary.tex``.

    Attributes:
        head: Head of the column.
        cell: Template of a cell, such as ``{mean} ± {sd}``, with any of the statistics mean, sd, median, min,
            max, ci_low and ci_high.
        pattern: Format specification of the numbers.
    """

    head: str
    cell: str = "{mean}"
    pattern: str = ".3f"


@dataclass(frozen=True)
class Metric:
    """A row of the table of metrics.

    Attributes:
        compute: Returns the value for one label. Counts are integers, everything else is float; nan if
            undefined.
        summary: How summaries and comparisons aggregate it over cases: statistics of the value (``mean``)
            or of its absolute value (``absolute``, under the name with ``_abs`` before the unit), its
            ``sum``, or not at all (None).
        bounds: Smallest and largest value; confidence intervals end there.
        columns: Columns of ``summary.md`` and ``summary.tex``, for a metric with statistics; without any it
            is only in the other files.
    """

    compute: Callable[[LabelPair], float]
    summary: Literal["mean", "absolute", "sum"] | None = None
    bounds: tuple[float, float] = (0.0, math.inf)
    columns: tuple[Column, ...] = ()


def dice(prediction: Binary, truth: Binary) -> float:
    """The Dice similarity coefficient, 2 |P ∩ T| / (|P| + |T|).

    If both masks are empty the result is nan, and means leave the case out, as Metrics Reloaded
    recommends (Maier-Hein et al. 2024, doi:10.1038/s41592-023-02151-z, handling of empty references):
    counting it as 1 would let scans without the structure raise the mean. If only one of them is
    empty the result is 0.

    Args:
        prediction: bool, any shape.
        truth: bool, the same shape.

    Raises:
        InputRefused: shapes differ, or an array is not bool.
    """
    return _dice(LabelPair(prediction, truth, _ANY_GRID))


def iou(prediction: Binary, truth: Binary) -> float:
    """Intersection over union (Jaccard index), |P ∩ T| / |P ∪ T|; empty masks as in :func:`dice`.

    Args:
        prediction: bool, any shape.
        truth: bool, the same shape.

    Raises:
        InputRefused: shapes differ, or an array is not bool.
    """
    return _iou(LabelPair(prediction, truth, _ANY_GRID))


def _dice(pair: LabelPair) -> float:
    return _share(2 * pair.both, pair.predicted + pair.true)


def _iou(pair: LabelPair) -> float:
    return _share(pair.both, pair.predicted + pair.true - pair.both)


def _nsd(pair: LabelPair, surfaces: SurfaceDistances | None) -> float:
    """Normalised surface Dice; nan if both masks are empty, 0 if one is."""
    return surfaces.nsd(pair.nsd_tolerance_mm) if surfaces else pair.missing_distance_mm * 0


def _hd95_mm(pair: LabelPair, surfaces: SurfaceDistances | None) -> float:
    return surfaces.hd95_mm if surfaces else pair.missing_distance_mm


def _hd_mm(pair: LabelPair, surfaces: SurfaceDistances | None) -> float:
    return surfaces.hd_mm if surfaces else pair.missing_distance_mm


def _assd_mm(pair: LabelPair, surfaces: SurfaceDistances | None) -> float:
    return surfaces.assd_mm if surfaces else pair.missing_distance_mm


def _volume_error_percent(pair: LabelPair) -> float:
    return 100.0 * (pair.predicted - pair.true) / pair.true if pair.true else math.nan


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _check_masks(prediction: Binary, truth: Binary) -> None:
    if prediction.shape != truth.shape or prediction.dtype != np.bool_ or truth.dtype != np.bool_:
        raise InputRefused(
            f"the masks are {prediction.dtype} {prediction.shape} and {truth.dtype} {truth.shape}",
            reason="shape",
            remedy="pass two bool arrays of the same shape",
        )


_SHARE = (0.0, 1.0)
REGISTRY: dict[str, Metric] = {
    "dice": Metric(
        _dice,
        "mean",
        _SHARE,
        (
            Column("Dice mean ± SD", "{mean} ± {sd}"),
            Column("95 % CI", "{ci_low}–{ci_high}"),
            Column("median (min–max)", "{median} ({min}–{max})"),
        ),
    ),
    "iou": Metric(_iou, "mean", _SHARE, (Column("IoU mean ± SD", "{mean} ± {sd}"),)),
    "sensitivity": Metric(lambda pair: _share(pair.both, pair.true), "mean", _SHARE),
    "precision": Metric(lambda pair: _share(pair.both, pair.predicted), "mean", _SHARE),
    "nsd": Metric(lambda pair: _nsd(pair, pair.surfaces), "mean", _SHARE, (Column("NSD"),)),
    "nsd_tolerance_mm": Metric(lambda pair: pair.nsd_tolerance_mm),
    "hd95_mm": Metric(
        lambda pair: _hd95_mm(pair, pair.surfaces),
        "mean",
        columns=(Column("HD95, mm", "{mean} ± {sd}", ".2f"),),
    ),
    "hd_mm": Metric(lambda pair: _hd_mm(pair, pair.surfaces), "mean"),
    "assd_mm": Metric(
        lambda pair: _assd_mm(pair, pair.surfaces), "mean", columns=(Column("ASSD, mm", pattern=".2f"),)
    ),
    "volume_ml": Metric(lambda pair: pair.predicted * pair.grid.voxel_ml),
    "truth_ml": Metric(lambda pair: pair.true * pair.grid.voxel_ml),
    "volume_error_ml": Metric(
        lambda pair: (pair.predicted - pair.true) * pair.grid.voxel_ml,
        "absolute",
        columns=(Column("volume error, ml", pattern=".3g"),),
    ),
    "volume_error_percent": Metric(_volume_error_percent),
    "lesions": Metric(lambda pair: pair.lesions.true, "sum"),
    "lesions_found": Metric(lambda pair: pair.lesions.found, "sum"),
    "lesions_false": Metric(lambda pair: pair.lesions.false, "sum"),
    "lesion_sensitivity": Metric(lambda pair: pair.lesions.sensitivity, "mean", _SHARE),
    "lesion_precision": Metric(lambda pair: pair.lesions.precision, "mean", _SHARE),
    "lesion_f1": Metric(lambda pair: pair.lesions.f1, "mean", _SHARE),
    "nsd_voxel": Metric(lambda pair: _nsd(pair, pair.voxel_surfaces), "mean", _SHARE),
    "hd95_voxel_mm": Metric(lambda pair: _hd95_mm(pair, pair.voxel_surfaces), "mean"),
    "hd_voxel_mm": Metric(lambda pair: _hd_mm(pair, pair.voxel_surfaces), "mean"),
    "assd_voxel_mm": Metric(lambda pair: _assd_mm(pair, pair.voxel_surfaces), "mean"),
}
"""All metrics, in the order of the columns of ``evaluation.csv``; see ``docs/metrics.md``.

A new metric is added at the end, so that earlier columns keep their place.
"""
