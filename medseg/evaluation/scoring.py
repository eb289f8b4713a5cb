"""Scores of every label of one mask against its truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TypeAlias

from scipy import ndimage

from medseg.errors import InputRefused, UsageError
from medseg.evaluation.metrics import NSD_TOLERANCE_MM, REGISTRY, LabelPair
from medseg.images.grid import ROUNDED_GRID_MM
from medseg.images.label import Label
from medseg.images.mask_placement import placed_on
from medseg.images.volume import Mask, members
from medseg.io.foreign_images import MaskLike, as_mask
from medseg.visualization.labelled_masks import label_every_value, labels_beside

Box: TypeAlias = tuple[slice, ...]
Tolerances: TypeAlias = float | Mapping[str, float]


@dataclass(frozen=True)
class Score:
    """Agreement of one label of a mask with the truth; each metric is an attribute.

    >>> Score("lung", {"dice": 0.98}).dice
    0.98

    Attributes:
        label: Name of the label.
        values: Values of all metrics of :data:`medseg.evaluation.metrics.REGISTRY`, in its order.
        empty: Which mask is empty: ``prediction``, ``truth``, ``both``, or an empty string.
    """

    label: str
    values: Mapping[str, float]
    empty: str = ""

    def __getattr__(self, name: str) -> float:
        # `values` itself is missing while an instance is copied or unpickled.
        values: Mapping[str, float] = self.__dict__.get("values", {})
        if name not in values:
            raise AttributeError(f"a score has no metric {name!r}")
        return values[name]


def score(
    prediction: MaskLike,
    truth: MaskLike,
    *,
    labels: Sequence[Label] = (),
    tolerance_mm: float = ROUNDED_GRID_MM,
    nsd_tolerance_mm: Tolerances = NSD_TOLERANCE_MM,
    ignore_value: int | None = None,
    annotated: Sequence[str] | None = None,
) -> tuple[Score, ...]:
    """Scores of a mask against the truth: one :class:`Score` for each label of the truth, in its order.

    Args:
        prediction: A mask, its path, or an image of another library that :func:`medseg.as_mask` accepts. It
            must have all labels of the truth; further labels are ignored.
        truth: The true mask, on the same world grid; its axes may be stored in another order or direction.
            The smaller one of both may be cropped: the voxels that it leaves out are background.
        labels: The labels of anything but a :class:`Mask`. By default those in the ``.json`` beside the
            file, then those of the other mask; otherwise each value is a label, such as ``label_3``.
        tolerance_mm: Largest distance between corresponding voxels of the two grids, which must also be less
            than half a voxel; a notice reports more than 0.01 mm.
        nsd_tolerance_mm: Tolerance of the normalised surface Dice: one for all labels, or by label; labels
            that are not named have the default.
        ignore_value: Voxels with this value in the truth are removed from both masks; surfaces
            end there.
        annotated: Names of the labels that the truth is annotated for; others get no score.

    Raises:
        InputRefused: the grids differ (``grid-mismatch``). Nothing is resampled, because scores of a
            resampled truth would include the error of resampling.
        UsageError: the prediction lacks a label of the truth.

    Example:
        >>> mask = medseg.segment("chest.nii.gz", model="threshold")
        >>> right, left = medseg.score(mask, "lungs.nii.gz")
        >>> right.label, right.dice > 0.9, round(right.truth_ml)
        ('right_lung', True, 2181)
    """
    prediction, truth = _both(prediction, truth, labels)
    prediction, aligned = on_one_grid(prediction, truth, tolerance_mm)
    names = [label.name for label in prediction.labels]
    missing = [label.name for label in truth.labels if label.name not in names]
    if missing:
        raise UsageError(
            f"the prediction has no label {missing[0]!r}",
            where=prediction.source.path,
            remedy=f"its labels are: {', '.join(names)}",
            reason="labels",
        )
    # One pass over all voxels; then each label is scored within its own box.
    boxes = [ndimage.find_objects(mask.array) for mask in (prediction, aligned)]
    scores = []
    for label in truth.labels:
        if annotated is not None and label.name not in annotated:
            continue
        own = prediction.labels[names.index(label.name)]
        box = _box(boxes, (own, label), prediction.grid.shape)
        predicted, true = members(prediction.array[box], own), members(aligned.array[box], label)
        if ignore_value is not None:
            known = aligned.array[box] != ignore_value
            predicted, true = predicted & known, true & known
        # Both masks use the prediction's grid: the grids are equal apart from rounding.
        pair = LabelPair(predicted, true, prediction.grid, tolerance_of(label.name, nsd_tolerance_mm))
        values = {name: metric.compute(pair) for name, metric in REGISTRY.items()}
        scores.append(Score(label.name, values, pair.empty))
    return tuple(scores)


def on_one_grid(prediction: Mask, truth: Mask, tolerance_mm: float) -> tuple[Mask, Mask]:
    """Both masks on the grid of the larger one."""
    try:
        if prod(truth.grid.shape) > prod(prediction.grid.shape):
            names = ("prediction", "truth")
            return placed_on(prediction, truth.grid, tolerance_mm=tolerance_mm, names=names), truth
        names = ("truth", "prediction")
        return prediction, placed_on(truth, prediction.grid, tolerance_mm=tolerance_mm, names=names)
    except InputRefused as error:
        error.remedy = "compare on the grid of the scan; resample the predicted probabilities, not the truth"
        raise


def _both(prediction: MaskLike, truth: MaskLike, labels: Sequence[Label]) -> tuple[Mask, Mask]:
    """Both masks with labels: the given ones, else their own, else those of the other mask."""
    true, predicted = (_with_own_labels(mask, labels) for mask in (truth, prediction))
    if not true.labels:
        true = Mask(true.array, true.grid, predicted.labels, true.source)
    true = true if true.labels else label_every_value(true)
    if not predicted.labels:
        predicted = Mask(predicted.array, predicted.grid, true.labels, predicted.source)
    return predicted, true


def _with_own_labels(mask: MaskLike, labels: Sequence[Label]) -> Mask:
    if isinstance(mask, str | Path):
        return as_mask(mask, labels or labels_beside(mask))
    return as_mask(mask, labels)


def tolerance_of(label: str, nsd_tolerance_mm: Tolerances) -> float:
    """The tolerance of one label in mm: the one given for all or for this label, else the default."""
    if isinstance(nsd_tolerance_mm, Mapping):
        return float(nsd_tolerance_mm.get(label, NSD_TOLERANCE_MM))
    return float(nsd_tolerance_mm)


def _box(boxes: Sequence[Sequence[Box | None]], labels: Sequence[Label], shape: Sequence[int]) -> Box:
    """The box around a label in both masks, one voxel larger within the scan; one voxel if it is in neither.

    The extra voxel keeps a flat structure from looking like a scan with a single slice.
    """
    parts = [
        of_mask[value - 1]
        for of_mask, label in zip(boxes, labels, strict=True)
        for value in label.values
        if value <= len(of_mask)
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
