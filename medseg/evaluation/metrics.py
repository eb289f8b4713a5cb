"""How well a mask agrees with the truth: overlap, surfaces, volume and lesions of every label."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medseg.errors import InputRefused, UsageError
from medseg.evaluation.lesion_detection import lesions
from medseg.evaluation.surface_distance import surface_distances
from medseg.images.grid import SAME_GRID_MM, Grid
from medseg.images.label import Label
from medseg.images.volume import Mask, members

Binary: TypeAlias = npt.NDArray[np.bool_]
Box: TypeAlias = tuple[slice, ...]
Tolerances: TypeAlias = float | Mapping[str, float]

NSD_TOLERANCE_MM = 3.0
"""That of TotalSegmentator (Wasserthal et al. 2023, doi:10.1148/ryai.230024), about a slice of usual CT."""


@dataclass(frozen=True)
class Score:
    """How one label of a mask agrees with the truth.

    Attributes:
        label: Its name.
        dice: 0..1; nan when both masks are empty. See :func:`dice`.
        iou: 0..1; nan when both masks are empty.
        sensitivity: Share of the truth that was found; nan when the truth is empty.
        precision: Share of what was found that is true; nan when nothing was found.
        nsd: Normalised surface Dice, 0..1; nan when both masks are empty, 0 when one is.
        nsd_tolerance_mm: Up to where a border agrees in it.
        hd95_mm: 95th percentile of surface distances; nan when both masks are empty. When only one
            is, there is no distance: the diagonal of the scan stands for it, the largest there
            can be, so that means are not better for masks that are missing (as in BraTS, where it is
            373.13 mm; Isensee et al. 2020, arXiv:2011.00848).
        hd_mm: Largest surface distance; empty masks as ``hd95_mm``.
        assd_mm: Mean surface distance; empty masks as ``hd95_mm``.
        volume_ml: Of the predicted label.
        truth_ml: Of the true label.
        volume_error_ml: ``volume_ml - truth_ml``: positive when too much was segmented.
        volume_error_percent: That, as a share of ``truth_ml``; nan when the truth is empty.
        lesions: In the truth.
        lesions_found: Of these. See :func:`medseg.evaluation.lesion_detection.lesions`.
        lesions_false: Predicted where there is none.
        lesion_sensitivity: 0..1; nan when the truth has none.
        lesion_precision: 0..1; nan when none was predicted.
        lesion_f1: 0..1; nan when there is none in either mask.
        empty: Which mask is: ``prediction``, ``truth``, ``both``, or nothing.
    """

    label: str
    dice: float
    iou: float
    sensitivity: float
    precision: float
    nsd: float
    nsd_tolerance_mm: float
    hd95_mm: float
    hd_mm: float
    assd_mm: float
    volume_ml: float
    truth_ml: float
    volume_error_ml: float
    volume_error_percent: float
    lesions: int
    lesions_found: int
    lesions_false: int
    lesion_sensitivity: float
    lesion_precision: float
    lesion_f1: float
    empty: str


def dice(prediction: Binary, truth: Binary) -> float:
    """The Dice similarity coefficient, 2 |P ∩ T| / (|P| + |T|).

    When both are empty there is nothing to overlap: the result is nan, and means leave the case
    out, as Metrics Reloaded advises (Maier-Hein et al. 2024, doi:10.1038/s41592-023-02151-z,
    handling of empty references). Counting it as 1 would let scans without the structure raise
    the mean. Where only one of them is empty the result is 0.

    Args:
        prediction: bool, any shape.
        truth: bool, the same shape.

    Raises:
        InputRefused: shapes differ, or an array is not bool.
    """
    return _dice(*_counts(prediction, truth))


def iou(prediction: Binary, truth: Binary) -> float:
    """Intersection over union (Jaccard index), |P ∩ T| / |P ∪ T|; empty masks as in :func:`dice`.

    Args:
        prediction: bool, any shape.
        truth: bool, the same shape.

    Raises:
        InputRefused: shapes differ, or an array is not bool.
    """
    return _iou(*_counts(prediction, truth))


def score(
    prediction: Mask,
    truth: Mask,
    *,
    tolerance_mm: float = SAME_GRID_MM,
    nsd_tolerance_mm: Tolerances = NSD_TOLERANCE_MM,
    ignore_value: int | None = None,
    annotated: Sequence[str] | None = None,
) -> tuple[Score, ...]:
    """The scores of every label of the truth, in its order.

    Args:
        prediction: Has the truth's label names; further ones are not looked at.
        truth: On the same world grid. Its axes may be stored in another order or direction.
        tolerance_mm: How far a voxel of one grid may lie from the same voxel of the other.
        nsd_tolerance_mm: For the normalised surface Dice: one for all labels, or by label; those
            that are not named have the default.
        ignore_value: Voxels with this value in the truth are taken out of both masks. Surfaces
            then end at them.
        annotated: The labels that the truth has been annotated for; others get no score.

    Raises:
        InputRefused: the grids differ (reason ``grid``). Nothing is resampled: scores of a
            resampled truth measure the resampling too.
        UsageError: the prediction lacks a label of the truth.
    """
    aligned, distance = truth, prediction.grid.distance_mm(truth.grid)
    if distance > tolerance_mm:
        aligned = truth.oriented(prediction.grid.axcodes)
        distance = prediction.grid.distance_mm(aligned.grid)
    if distance > tolerance_mm:
        told = "shapes differ" if math.isinf(distance) else f"voxels lie up to {distance:.3g} mm apart"
        raise InputRefused(
            f"prediction and truth are on different grids, {told}: {prediction.grid} and {truth.grid}",
            where=truth.source.path,
            reason="grid",
            remedy="compare on the scan's own grid; resample the prediction's probabilities, not the truth",
        )
    names = [label.name for label in prediction.labels]
    lacking = [label.name for label in truth.labels if label.name not in names]
    if lacking:
        raise UsageError(
            f"the prediction has no label {lacking[0]!r}",
            where=prediction.source.path,
            remedy=f"it has: {', '.join(names)}",
            reason="labels",
        )
    # One pass over all voxels; then each label only looks at its own box.
    boxes = [ndimage.find_objects(mask.array) for mask in (prediction, aligned)]
    scores = []
    for label in truth.labels:
        if annotated is not None and label.name not in annotated:
            continue
        own = prediction.labels[names.index(label.name)]
        box = _box(boxes, (own, label), prediction.grid.shape)
        seen, real = members(prediction.array[box], own), members(aligned.array[box], label)
        if ignore_value is not None:
            kept = aligned.array[box] != ignore_value
            seen, real = seen & kept, real & kept
        scores.append(
            _score(label.name, seen, real, prediction.grid, tolerance_of(label.name, nsd_tolerance_mm))
        )
    return tuple(scores)


def tolerance_of(label: str, nsd_tolerance_mm: Tolerances) -> float:
    """That of one label: what is given for all or for it, else the default."""
    if isinstance(nsd_tolerance_mm, Mapping):
        return float(nsd_tolerance_mm.get(label, NSD_TOLERANCE_MM))
    return float(nsd_tolerance_mm)


def _box(boxes: Sequence[Sequence[Box | None]], labels: Sequence[Label], shape: Sequence[int]) -> Box:
    """Around a label in both masks, a voxel larger where the scan goes on; one voxel where it is in neither.

    The voxel more keeps a flat structure from looking like a scan of a single slice.
    """
    parts = [
        found[value - 1]
        for found, label in zip(boxes, labels, strict=True)
        for value in label.values
        if value <= len(found)
    ]
    known = [part for part in parts if part is not None]
    if not known:
        return tuple(slice(0, 1) for _ in shape)
    return tuple(
        slice(
            max(0, min(part[i].start for part in known) - 1), min(n, max(part[i].stop for part in known) + 1)
        )
        for i, n in enumerate(shape)
    )


def _score(name: str, seen: Binary, real: Binary, grid: Grid, nsd_tolerance_mm: float) -> Score:
    both, found, true = _counts(seen, real)
    # The prediction's voxel volume and spacing for both: the grids are one, apart from rounding.
    voxel_ml = grid.voxel_ml
    counts = lesions(seen, real)
    nothing = math.nan if not (found or true) else _diagonal_mm(grid)
    surfaces = surface_distances(seen, real, grid.spacing_mm)
    return Score(
        label=name,
        sensitivity=both / true if true else math.nan,
        precision=both / found if found else math.nan,
        nsd=surfaces.nsd(nsd_tolerance_mm) if surfaces else nothing * 0,
        nsd_tolerance_mm=nsd_tolerance_mm,
        hd95_mm=surfaces.hd95_mm if surfaces else nothing,
        hd_mm=surfaces.hd_mm if surfaces else nothing,
        assd_mm=surfaces.assd_mm if surfaces else nothing,
        lesions=counts.true,
        lesions_found=counts.found,
        lesions_false=counts.false,
        lesion_sensitivity=counts.sensitivity,
        lesion_precision=counts.precision,
        lesion_f1=counts.f1,
        empty={(False, False): "both", (True, False): "truth", (False, True): "prediction"}.get(
            (found > 0, true > 0), ""
        ),
        dice=_dice(both, found, true),
        iou=_iou(both, found, true),
        volume_ml=found * voxel_ml,
        truth_ml=true * voxel_ml,
        volume_error_ml=(found - true) * voxel_ml,
        volume_error_percent=100.0 * (found - true) / true if true else math.nan,
    )


def _diagonal_mm(grid: Grid) -> float:
    """From the first voxel's centre to the last one's."""
    return math.hypot(*((n - 1) * mm for n, mm in zip(grid.shape, grid.spacing_mm, strict=True)))


def _counts(prediction: Binary, truth: Binary) -> tuple[int, int, int]:
    """Voxels in both, in the prediction, in the truth."""
    if prediction.shape != truth.shape or prediction.dtype != np.bool_ or truth.dtype != np.bool_:
        raise InputRefused(
            f"masks to compare are {prediction.dtype} {prediction.shape} and {truth.dtype} {truth.shape}",
            reason="shape",
            remedy="pass two bool arrays of one shape",
        )
    both = int(np.count_nonzero(prediction & truth))
    return both, int(np.count_nonzero(prediction)), int(np.count_nonzero(truth))


def _dice(both: int, found: int, true: int) -> float:
    return 2.0 * both / (found + true) if found + true else math.nan


def _iou(both: int, found: int, true: int) -> float:
    return both / (found + true - both) if found + true else math.nan
