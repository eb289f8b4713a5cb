"""Labels of a scan's own voxels, decided on the device that holds the probabilities.

The same as :mod:`medseg.inference.native_grid` does in main memory, with tiles that are as wide as the scan:
only the number of a voxel's label, one byte, is sent to main memory, while the device goes on. Where the
device has no memory left for a tile, the tile is restored in main memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from medseg.images.run_length import Binary
from medseg.inference.device_transfer import on_cpu
from medseg.inference.label_decision import LabelDecision
from medseg.inference.restored_tile import Planes, Tile
from medseg.system.notices import notify

if TYPE_CHECKING:
    import torch

DEVICE_THICK = 64
"""Slices of a tile on a device."""

Rows: TypeAlias = Iterable[tuple[int, int, list[Tile]]]
"""Rows of tiles: first slice, the slice after the last one, and the tiles."""


def device_planes(planes: Planes) -> tuple[Planes, bool]:
    """The same planes, and whether they are tensors."""
    rest = iter(planes)
    first = next(rest, None)
    if first is None:
        return (), False
    return chain([first], rest), not isinstance(first[1], np.ndarray)


def device_labels(
    rows: Rows, sides: tuple[int, int], decision: LabelDecision
) -> Iterator[tuple[int, npt.NDArray[np.integer[Any]]]]:
    """The first slice of each row, and the numbers of its voxels' labels, from 1; 0 for the background.

    Args:
        rows: Rows of tiles whose probabilities are tensors.
        sides: Height and width of a slice.
        decision: A rule of exclusive labels.
    """
    yield from _arrived(rows, sides, lambda tile: _most_probable(tile, len(decision.values)))


def device_slabs(
    rows: Rows, sides: tuple[int, int], decision: LabelDecision
) -> Iterator[tuple[int, int, Binary]]:
    """For each label in a row of tiles: the row's first slice, the label's number from 0, and its mask.

    Args:
        rows: Rows of tiles whose probabilities are tensors.
        sides: Height and width of a slice.
        decision: The rule by which probabilities become labels.
    """
    labels = len(decision.values)
    if decision.exclusive:
        for start, numbers in device_labels(rows, sides, decision):
            present = np.bincount(numbers.ravel(), minlength=labels + 1)[1:] > 0
            yield from ((start, label, numbers == label + 1) for label in range(labels) if present[label])
        return
    for start, masks in _arrived(rows, sides, lambda tile: _reached(tile, decision), labels):
        yield from ((start, label, mask.view(np.bool_)) for label, mask in enumerate(masks) if mask.any())


def _arrived(
    rows: Rows,
    sides: tuple[int, int],
    decide: Callable[[Tile], torch.Tensor],
    *labels: int,
) -> Iterator[tuple[int, npt.NDArray[np.integer[Any]]]]:
    """What is decided for each row (*labels, thick, *sides), in main memory; the next is queued first."""

    def decided() -> Iterator[tuple[int, torch.Tensor]]:
        for start, stop, tiles in rows:
            found: list[tuple[Tile, torch.Tensor]] = [(tile, _decided(tile, decide)) for tile in tiles]
            whole = found[0][1].new_zeros((*labels, stop - start, *sides))
            for tile, values in found:
                whole[(..., slice(None), *tile.place[1:])] = values.to(whole.device)
            yield start, whole

    yield from cast("Iterator[tuple[int, npt.NDArray[np.integer[Any]]]]", on_cpu(decided()))


def _decided(tile: Tile, decide: Callable[[Tile], torch.Tensor]) -> torch.Tensor:
    """The decision for a tile, made on the device or, if that has no memory left, in main memory."""
    try:
        return decide(_moved(tile, tile.stack.device))
    except sys.modules["torch"].OutOfMemoryError:
        if str(tile.stack.device) == "cpu":
            raise
    sys.modules["torch"].cuda.empty_cache()
    notify("device-memory", "the device is out of memory: masks are restored in main memory, which is slower")
    return decide(_moved(tile, "cpu"))


def _moved(tile: Tile, device: object) -> Tile:
    math: Any = sys.modules["torch"]
    z, y, x = (math.asarray(matrix, device=device) for matrix in tile.matrices)
    return replace(tile, stack=cast(Any, tile.stack).to(device), matrices=(z, y, x))


def _most_probable(tile: Tile, labels: int) -> torch.Tensor:
    """The rule of :meth:`LabelDecision.most_probable` for all labels, without waiting for the device."""
    math: Any = sys.modules["torch"]
    largest: Any = tile.interpolated(1 - tile.stack.sum(0))
    best: torch.Tensor = math.zeros_like(largest, dtype=math.uint8 if labels < 256 else math.int16)
    for number in range(labels):
        values: Any = tile.interpolated(tile.stack[number])
        best.masked_fill_(values > largest, number + 1)
        largest = math.maximum(largest, values)
    return best


def _reached(tile: Tile, decision: LabelDecision) -> torch.Tensor:
    """Which voxels reach the threshold, (L, z, y, x), as bytes."""
    math: Any = sys.modules["torch"]
    masks = math.stack([decision.reached(tile.interpolated(values)) for values in tile.stack])
    found: torch.Tensor = masks.to(math.uint8)
    return found
