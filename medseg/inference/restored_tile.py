"""A box of the scan's grid, with the probabilities that its voxels are interpolated from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from medseg.inference.label_decision import LabelDecision

Floats: TypeAlias = npt.NDArray[np.float32]

Planes: TypeAlias = Iterable[tuple[int, Floats]]
"""Portions of a prepared grid along its third axis: the number of the first plane, and probabilities
float32 (L, X, Y, planes). They come in order, without gaps, and cover the whole grid. On a GPU they may be
torch tensors, see :mod:`medseg.inference.device_labels`."""

# Interpolated values may exceed the largest of their inputs by rounding.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Tile:
    """A box of the source grid, with the probabilities it is interpolated from.

    Attributes:
        place: Its position in an array of the source's shape, with the axes along which the third, second and
            first axis of the prepared grid run.
        stack: Probabilities (L, Z, Y, X) around it on the prepared grid.
        matrices: Interpolation weights along z, y and x.
    """

    place: tuple[slice, slice, slice]
    stack: Floats
    matrices: tuple[Floats, Floats, Floats]

    def interpolated(self, values: Floats) -> Floats:
        """Values float32 (z, y, x) in the box, from one label's probabilities (Z, Y, X)."""
        z, y, x = self.matrices
        depth, height, width = values.shape
        slices = (z @ values.reshape(depth, -1)).reshape(len(z), height, width)
        # A product along y and one along x for all slices together: much faster than one for each slice.
        rows = y @ slices.swapaxes(0, 1).reshape(height, -1)
        made = (rows.reshape(-1, width) @ x.T).reshape(len(y), len(z), len(x))
        return made.swapaxes(0, 1)

    def most_probable(self, decision: LabelDecision) -> npt.NDArray[np.int16]:
        """The number, from 1, of the most probable label (z, y, x); 0 for the background."""
        background = self.interpolated(1 - self.stack.sum(0))
        return decision.most_probable(
            background, self.upper(), lambda number: self.interpolated(self.stack[number])
        )

    def upper(self) -> list[float]:
        """An upper bound of the interpolated values of each label."""
        most: list[float] = (self.stack.max(axis=(1, 2, 3)) * (1 + _ROUNDING)).tolist()
        return most
