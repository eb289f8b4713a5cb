"""Uncertainty of a network about its labels: the entropy of its probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from medseg.inference.native_grid import Planes


class Entropy:
    """Entropy of each label, accumulated while probabilities pass by on their way to the mask.

    The entropy of a label is the mean of ``-p log2 p - (1 - p) log2 (1 - p)`` (Shannon 1948, one label
    against everything else) over the voxels of the prepared grid with ``p >= 0.5``: 0 if the network is
    certain of all of them, 1 bit if it might as well have tossed a coin. Within a batch, high values mark
    scans unlike the training data; the entropy is not the probability of an error.

    Attributes:
        labels: Names of the labels, in the order of the probabilities.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self._bits = [0.0] * len(self.labels)
        self._voxels = [0] * len(self.labels)

    def watch(self, planes: Planes) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """The same planes, added to the entropy as they pass."""
        for first, probabilities in planes:
            self.add(probabilities)
            yield first, probabilities

    def add(self, probabilities: npt.NDArray[np.float32], labels: Sequence[str] | None = None) -> None:
        """Adds voxels to the entropy.

        Args:
            probabilities: float32 (L, ...) in 0..1.
            labels: The name of each of them; None: all of `labels`, in order.
        """
        names = self.labels if labels is None else labels
        for name, values in zip(names, probabilities, strict=True):
            inside = values[values >= 0.5].astype(np.float64)
            rest = 1 - inside
            surprise = inside * np.log(inside) + rest * np.log(np.where(rest > 0, rest, 1))
            number = self.labels.index(name)
            self._bits[number] -= float(surprise.sum())
            self._voxels[number] += len(inside)

    def bits(self) -> dict[str, float]:
        """The entropy of each label that was found, in 0..1."""
        return {
            label: total / voxels / math.log(2)
            for label, total, voxels in zip(self.labels, self._bits, self._voxels, strict=True)
            if voxels
        }
