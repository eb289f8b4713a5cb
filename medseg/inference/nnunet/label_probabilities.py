"""Probabilities and entropy of the labels of a configuration, taken while its logits pass by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from medseg.inference.nnunet.restoring import Box, Floats, Planes, Tile, softmax
from medseg.inference.uncertainty import Entropy

Portion: TypeAlias = tuple[int, Any]


@dataclass(frozen=True)
class LabelProbabilities:
    """Where the probabilities of one configuration's labels go.

    Attributes:
        labels: Their names, in the order of the output channels, without the background.
        exclusive: Whether the first output channel is the background, and the channels exclude each other.
        entropy: Uncertainty to add to; None if it is not wanted.
        maps: For each label, the cropped scan's probabilities float32, axes as the network's; None for a
            label that is not wanted; empty if none is. A larger probability that is there already remains.
    """

    labels: tuple[str, ...]
    exclusive: bool
    entropy: Entropy | None = None
    maps: Sequence[Floats | None] = ()

    def watch_planes(self, planes: Planes) -> Iterator[Portion]:
        """The same logits on the network's grid, added to the entropy as they pass."""
        for first, values in planes:
            for number in range(values.shape[1] if self.entropy is not None else 0):
                self._add(values[:, number])
            yield first, values

    def watch_tiles(self, tiles: Iterable[Tile]) -> Iterator[Tile]:
        """The same tiles; their probabilities are written into the maps as they pass."""
        for tile in tiles:
            if self.maps:
                self._write(tile.place, tile.probabilities()[1:] if self.exclusive else tile.sigmoids())
            yield tile

    def add_mean(self, place: Box, probabilities: Any) -> None:
        """Adds the mean of several configurations on the cropped scan.

        Args:
            place: A box of the cropped scan.
            probabilities: float32 (heads, A, B, C) in it, the background first; an array or a tensor.
        """
        if self.entropy is not None:
            self.entropy.add(probabilities[1:], self.labels)
        if self.maps:
            self._write(place, probabilities[1:])

    def _add(self, plane: Any) -> None:
        """Adds one plane of logits (heads, B, C) to the entropy."""
        if self.entropy is None:
            return
        if not isinstance(plane, np.ndarray):
            values = plane.float()
            self.entropy.add(values.softmax(0)[1:] if self.exclusive else values.sigmoid(), self.labels)
            return
        if not self.exclusive:
            for label, values in zip(self.labels, plane, strict=True):
                inside = values[values >= 0].astype(np.float32)
                self.entropy.add((1 / (1 + np.exp(-inside)))[None], [label])
            return
        background = plane[0].astype(np.float32)
        found = np.zeros(plane.shape[1:], dtype=np.bool_)
        for values in plane[1:]:
            # A label with a probability of one half is not below the background.
            found |= values.astype(np.float32) >= background
        self.entropy.add(softmax(plane[:, found].astype(np.float32))[1:], self.labels)

    def _write(self, place: Box, probabilities: Any) -> None:
        in_memory = probabilities if isinstance(probabilities, np.ndarray) else probabilities.cpu().numpy()
        for whole, values in zip(self.maps, in_memory, strict=True):
            if whole is not None:
                np.maximum(whole[place], values, out=whole[place])
