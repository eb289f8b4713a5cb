"""Uncertainty of a network about its labels: the entropy of its probabilities."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.inference.restored_tile import Planes


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
        # On a device, these are tensors.
        self._bits: list[Any] = [0.0] * len(self.labels)
        self._voxels: list[Any] = [0] * len(self.labels)

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
            number = self.labels.index(name)
            surprise, voxels = _sums(values) if isinstance(values, np.ndarray) else _device_sums(values)
            self._bits[number] -= surprise
            self._voxels[number] += voxels

    def bits(self) -> dict[str, float]:
        """The entropy of each label that was found, in 0..1."""
        return {
            label: float(total) / int(voxels) / math.log(2)
            for label, total, voxels in zip(self.labels, self._bits, self._voxels, strict=True)
            if int(voxels)
        }


def _sums(values: npt.NDArray[np.float32]) -> tuple[float, int]:
    """The sum of p log p + (1 - p) log (1 - p) where p is at least one half, and the number of voxels."""
    inside = values[values >= 0.5].astype(np.float64)
    rest = 1 - inside
    surprise = inside * np.log(inside) + rest * np.log(np.where(rest > 0, rest, 1))
    return float(surprise.sum()), len(inside)


def _device_sums(values: Any) -> tuple[Any, Any]:
    """The same of a tensor, as tensors: reading them would wait for the device."""
    torch = sys.modules["torch"]
    inside = values >= 0.5
    likely = torch.where(inside, values, 1).to(
        torch.float32 if values.device.type == "mps" else torch.float64
    )
    surprise = torch.xlogy(likely, likely) + torch.xlogy(1 - likely, 1 - likely)
    return surprise.sum(), inside.sum()
