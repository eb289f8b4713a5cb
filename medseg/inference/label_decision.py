"""The one rule by which a network's logits become probabilities and labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from medseg.recipe import Recipe
from medseg.system.arrays import Array, namespace
from medseg.system.memory import zeros

Floats: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LabelDecision:
    """The rule by which a network's channels, one per label, become labels.

    Labels may overlap or exclude one another:

    - Overlapping: each channel has its own sigmoid, and a voxel belongs to every label whose probability
      reaches the threshold. In a label map the labels are painted in order, so later ones cover earlier
      ones.
    - Exclusive: a softmax over the labels and an implicit background whose logit is 0. A voxel belongs to
      the most probable of these; on a tie the background wins, then the first label.

    Attributes:
        values: The integer of each label in a label map, in the order of the channels and of painting.
        threshold: A probability above 0 and up to 1 for labels that may overlap; None for exclusive ones.
    """

    values: tuple[int, ...]
    threshold: float | None = None

    @classmethod
    def from_recipe(cls, recipe: Recipe) -> LabelDecision:
        """The rule of a recipe: exclusive for the loss ``dice_ce``, otherwise overlapping."""
        threshold = None if recipe.exclusive else recipe.predict.threshold
        return cls(tuple(label.value for label in recipe.labels), threshold)

    @property
    def exclusive(self) -> bool:
        """Whether a voxel has at most one label."""
        return self.threshold is None

    def probabilities(self, logits: Array) -> Array:
        """The probability of each label, (L, ...), from logits (L, ...)."""
        math = namespace(logits)
        with np.errstate(over="ignore"):  # e to a large power is infinite, and its inverse is 0
            likely: Array
            if not self.exclusive:
                likely = 1 / (1 + math.exp(-logits))
                return likely
            shares = with_background(logits)
            shares = math.exp(shares - math.amax(shares, 0))
            likely = shares[1:] / shares.sum(0)
            return likely

    def masks(self, logits: Array) -> Array:
        """The mask of each label, bool (L, ...), from logits (L, ...) on the same grid."""
        if not self.exclusive:
            return self.reached(self.probabilities(logits))
        best = with_background(logits).argmax(0)
        masks: Array = namespace(logits).stack([best == number for number in range(1, len(logits) + 1)])
        return masks

    def reached(self, probabilities: Array) -> Array:
        """Whether probabilities of overlapping labels reach the threshold: bool, of the same shape.

        Raises:
            ValueError: the labels are exclusive and have no threshold.
        """
        if self.threshold is None:
            raise ValueError("exclusive labels have no threshold: use most_probable")
        return probabilities >= self.threshold  # type: ignore[return-value]  # bool, not float32

    def most_probable(
        self, background: Floats, upper: Sequence[float], label: Callable[[int], Floats]
    ) -> npt.NDArray[np.int16]:
        """The number, from 1, of the most probable exclusive label of each voxel; 0 for the background.

        The same rule as in :meth:`masks`, one label at a time: a label that cannot win anywhere is not
        computed, which saves most of the work if there are many.

        Args:
            background: Probability of the background; overwritten.
            upper: For each label, a number that none of its probabilities exceeds.
            label: Returns the probabilities of a label, counted from 0, in the shape of ``background``.
        """
        largest = background
        best = np.zeros(largest.shape, dtype=np.int16)
        floor = float(largest.min())
        for number, most in enumerate(upper):
            if most <= floor:
                continue
            values = label(number)
            best[values > largest] = number + 1
            np.maximum(largest, values, out=largest)
            floor = float(largest.min())
        return best


def with_background(logits: Array, axis: int = 0) -> Array:
    """Logits with those of the implicit background, all 0, before the labels along ``axis``."""
    math = namespace(logits)
    background = math.zeros_like(logits[(*(slice(None),) * axis, slice(1))])
    joined: Array = math.concat([background, logits], axis)
    return joined


def empty_label_map(shape: tuple[int, int, int], values: Sequence[int]) -> npt.NDArray[np.uint8 | np.uint16]:
    """Zeros (X, Y, Z) of the smallest type that holds these values; memory is used only once written to."""
    return zeros(shape, np.uint8 if max(values) < 256 else np.uint16)
