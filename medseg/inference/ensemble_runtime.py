"""The models of a recipe's pipeline ``ensemble``, ready to segment scans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt

from medseg.images.grid import Grid
from medseg.images.volume import Volume
from medseg.inference.backends import Engine
from medseg.inference.native_grid import restored_planes
from medseg.inference.network_planes import probability_planes
from medseg.preprocessing.preparation import Prepared, prepare
from medseg.recipe import EnsemblePipeline, Recipe

# Portions of planes have about as many numbers: 64 MB for each model.
_NUMBERS = 1 << 24


class EnsembleRuntime:
    """The models of an ensemble with their engines.

    Args:
        recipe: A recipe with a pipeline ``ensemble``.
        engines: The engine of each network, model after model.
        device: Device of the engines.
    """

    def __init__(self, recipe: Recipe, engines: Sequence[Engine], device: str) -> None:
        self._labels, self._device = [label.name for label in recipe.labels], device
        self._members: list[tuple[Recipe, list[Engine]]] = []
        left = list(engines)
        members = cast(EnsemblePipeline, recipe.pipeline).members
        for member, own in zip(members, recipe.member_recipes(), strict=True):
            self._members.append((own, left[: member.folds]))
            del left[: member.folds]

    def prepare(self, volumes: Sequence[Volume]) -> tuple[Prepared, ...]:
        """The scan, prepared for each model."""
        return tuple(prepare(recipe, volumes) for recipe, _ in self._members)

    def planes(
        self, prepared: Sequence[Prepared], grid: Grid
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """The mean probabilities of all models, in the order of the ensemble's labels, in portions of planes.

        Args:
            prepared: The result of :meth:`prepare`.
            grid: Grid of the scan in RAS order, on which the mean is taken.

        Yields:
            The number of the first plane along the third axis, and float32 (L, X, Y, planes).
        """
        thick = max(1, min(16, _NUMBERS // (len(self._labels) * grid.shape[0] * grid.shape[1])))
        orders, found = [], []
        for (recipe, engines), case in zip(self._members, prepared, strict=True):
            names = [label.name for label in recipe.labels]
            orders.append([names.index(name) for name in self._labels])
            own = probability_planes(recipe, engines, case.image, self._device)
            found.append(restored_planes(own, case.grid, grid, thick))
        for portions in zip(*found, strict=True):
            total = portions[0][1][orders[0]]  # a copy
            for (_, values), order in zip(portions[1:], orders[1:], strict=True):
                for label, place in enumerate(order):
                    total[label] += values[place]
            total /= len(portions)
            yield portions[0][0], total
