"""Detection of single lesions: which true ones were found, which found ones are not true."""

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
        true: In the truth.
        found: Of these, those of which any voxel was predicted.
        false: In the prediction, those without any true voxel.
    """

    true: int
    found: int
    false: int

    @property
    def sensitivity(self) -> float:
        """Found / true; nan where the truth has no lesion."""
        return self.found / self.true if self.true else float("nan")

    @property
    def precision(self) -> float:
        """Found / (found + false); nan where nothing was found or false.

        Found ones are counted in the truth, so that a lesion predicted in two pieces counts once.
        """
        together = self.found + self.false
        return self.found / together if together else float("nan")

    @property
    def f1(self) -> float:
        """2 found / (2 found + missed + false); nan where there is no lesion in either."""
        together = self.true + self.found + self.false
        return 2 * self.found / together if together else float("nan")


def lesions(prediction: Binary, truth: Binary) -> Lesions:
    """The lesions of two masks, matched by overlap.

    A lesion is a component connected by faces, edges or corners. It matches when it shares at
    least one voxel with the other mask, the rule of the autoPET challenge
    (https://autopet.grand-challenge.org/Evaluation/, false positive and negative volume): a small
    overlap is a detection, how good a one Dice tells.

    Args:
        prediction: bool (X, Y, Z).
        truth: bool, the same shape.
    """
    true, hit = _components(truth, prediction)
    predicted, right = _components(prediction, truth)
    return Lesions(true=true, found=hit, false=predicted - right)


def _components(mask: Binary, other: Binary) -> tuple[int, int]:
    """How many components a mask has, and how many of them overlap with the other mask."""
    numbers, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    touched = np.zeros(count + 1, dtype=np.bool_)
    touched[numbers[other & mask]] = True
    return int(count), int(np.count_nonzero(touched))
