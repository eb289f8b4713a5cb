"""Detection of individual lesions: true lesions found, and false lesions predicted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Binary = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Lesions:
    """Counts of lesions in one case.

    Attributes:
        true: Lesions in the truth.
        found: Lesions of the truth that overlap with the prediction.
        false: Lesions of the prediction that do not overlap with the truth.
    """

    true: int
    found: int
    false: int

    @property
    def sensitivity(self) -> float:
        """Found / true; nan if the truth has no lesion."""
        return self.found / self.true if self.true else float("nan")

    @property
    def precision(self) -> float:
        """Found / (found + false); nan if both are 0.

        Found lesions are counted in the truth, so a lesion predicted in two pieces counts once.
        """
        together = self.found + self.false
        return self.found / together if together else float("nan")

    @property
    def f1(self) -> float:
        """2 found / (2 found + missed + false); nan if neither mask has a lesion."""
        together = self.true + self.found + self.false
        return 2 * self.found / together if together else float("nan")


def lesions(prediction: Binary, truth: Binary) -> Lesions:
    """Counts of lesions in two masks, matched by overlap.

    A lesion is a component connected by faces, edges or corners. It is matched if it shares at
    least one voxel with the other mask, as in the autoPET challenge
    (https://autopet.grand-challenge.org/Evaluation/, false positive and negative volume). A small
    overlap is a detection; its quality is measured by Dice.

    Args:
        prediction: bool (X, Y, Z).
        truth: bool, the same shape.
    """
    true, hit = _components(truth, prediction)
    predicted, right = _components(prediction, truth)
    return Lesions(true=true, found=hit, false=predicted - right)


def _components(mask: Binary, other: Binary) -> tuple[int, int]:
    """The number of components of a mask, and how many of them overlap with the other mask."""
    numbers, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    touched = np.zeros(count + 1, dtype=np.bool_)
    touched[numbers[other & mask]] = True
    return int(count), int(np.count_nonzero(touched))
