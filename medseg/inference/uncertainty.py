"""How sure a network was of what it found: the entropy of its probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from medseg.inference.native_grid import Planes


class Entropy:
    """Looks at probabilities on their way to the mask.

    The entropy of a label is the mean of ``-p log2 p - (1 - p) log2 (1 - p)`` (Shannon 1948, of one label
    against all else) over the voxels of the prepared grid with ``p >= 0.5``: 0 where the network is sure
    of all of them, 1 bit where it might as well have thrown a coin. It tells scans that are unlike those
    the network knows from others of the same batch; it is no probability of being right.

    Attributes:
        labels: Names, in the order of the probabilities.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self._bits = [0.0] * len(self.labels)
        self._voxels = [0] * len(self.labels)

    def watch(self, planes: Planes) -> Iterator[tuple[int, torch.Tensor]]:
        """The same planes, each counted as it passes."""
        for first, probabilities in planes:
            for number, values in enumerate(probabilities):
                inside = values[values >= 0.5].double()
                none = 1 - inside
                self._bits[number] += float(-(torch.xlogy(inside, inside) + torch.xlogy(none, none)).sum())
                self._voxels[number] += len(inside)
            yield first, probabilities

    def bits(self) -> dict[str, float]:
        """Of each label that was found, in 0..1."""
        return {
            label: total / voxels / math.log(2)
            for label, total, voxels in zip(self.labels, self._bits, self._voxels, strict=True)
            if voxels
        }
