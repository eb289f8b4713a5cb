"""How well a mask agrees with the truth: Dice, IoU and volume error of every label."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from medseg.errors import InputRefused, UsageError
from medseg.volume import Mask

Binary: TypeAlias = npt.NDArray[np.bool_]

# Text formats round affines; a hundredth of a millimetre is below every scanner's precision.
SAME_GRID_MM = 0.01


@dataclass(frozen=True)
class Score:
    """How one label of a mask agrees with the truth.

    Attributes:
        label: Its name.
        dice: 0..1; nan when both masks are empty. See :func:`dice`.
        iou: 0..1; nan when both masks are empty.
        volume_ml: Of the predicted label.
        truth_ml: Of the true label.
        volume_error_ml: ``volume_ml - truth_ml``: positive when too much was segmented.
        volume_error_percent: That, as a share of ``truth_ml``; nan when the truth is empty.
    """

    label: str
    dice: float
    iou: float
    volume_ml: float
    truth_ml: float
    volume_error_ml: float
    volume_error_percent: float


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


def score(prediction: Mask, truth: Mask, *, tolerance_mm: float = SAME_GRID_MM) -> tuple[Score, ...]:
    """The scores of every label of the truth, in its order.

    Args:
        prediction: Has the truth's label names; further ones are not looked at.
        truth: On the same world grid. Its axes may be stored in another order or direction.
        tolerance_mm: How far a voxel of one grid may lie from the same voxel of the other.

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
    return tuple(_score(label.name, prediction, aligned) for label in truth.labels)


def _score(name: str, prediction: Mask, truth: Mask) -> Score:
    both, found, true = _counts(prediction.of(name), truth.of(name))
    # The prediction's voxel volume for both: the grids are one, apart from rounding.
    voxel_ml = prediction.grid.voxel_ml
    return Score(
        label=name,
        dice=_dice(both, found, true),
        iou=_iou(both, found, true),
        volume_ml=found * voxel_ml,
        truth_ml=true * voxel_ml,
        volume_error_ml=(found - true) * voxel_ml,
        volume_error_percent=100.0 * (found - true) / true if true else math.nan,
    )


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
