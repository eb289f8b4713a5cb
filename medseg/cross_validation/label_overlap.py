"""Voxel counts of the labels in a predicted and a true mask, and their Dice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medseg.images.connected_components import components
from medseg.images.label import Label
from medseg.images.run_length import Runs
from medseg.images.volume import Mask, members

Integers = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Overlap:
    """Voxel counts of one label.

    Attributes:
        predicted: Voxels in the prediction.
        true: Voxels in the truth.
        both: Voxels in both.
    """

    predicted: int
    true: int
    both: int

    @property
    def dice(self) -> float:
        """2 x both / (predicted + true); nan if both masks are empty."""
        total = self.predicted + self.true
        return 2 * self.both / total if total else math.nan

    def changed(
        self, old: Integers, new: Integers, true: Integers, label: Label, true_label: Label
    ) -> Overlap:
        """The counts after some voxels of the prediction have changed.

        Args:
            old: Values of these voxels before, (N,).
            new: Values after, (N,).
            true: Values in the truth, (N,).
            label: The label in the prediction.
            true_label: The label in the truth.
        """
        before, after, inside = members(old, label), members(new, label), members(true, true_label)
        predicted = int(after.sum()) - int(before.sum())
        both = int((after & inside).sum()) - int((before & inside).sum())
        return Overlap(self.predicted + predicted, self.true, self.both + both)


def overlaps(
    prediction: Integers, truth: Mask, labels: Sequence[Label], ignore_value: int | None
) -> list[Overlap]:
    """The counts of each label.

    Args:
        prediction: Label map (X, Y, Z).
        truth: The true mask, of the same shape, with all labels.
        labels: Labels of the prediction.
        ignore_value: Voxels with this value in the truth do not count.
    """
    by_name = {label.name: label for label in truth.labels}
    found = []
    for label in labels:
        predicted, true = members(prediction, label), members(truth.array, by_name[label.name])
        if ignore_value is not None:
            predicted &= truth.array != ignore_value
        found.append(
            Overlap(
                int(np.count_nonzero(predicted)),
                int(np.count_nonzero(true)),
                int(np.count_nonzero(predicted & true)),
            )
        )
    return found


def smallest_component_ml(mask: Mask, label: Label) -> float:
    """Volume of the smallest connected component of a label; infinite if the mask does not have it."""
    own = next(each for each in mask.labels if each.name == label.name)
    runs = Runs.of(mask.array, lambda slab: members(slab, own))
    if not len(runs.start):
        return math.inf
    part, count = components(runs, corners=True)
    sizes = np.bincount(part, weights=runs.lengths, minlength=count)
    return float(sizes.min()) * mask.grid.voxel_ml
