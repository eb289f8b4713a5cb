"""Resampling of labels, each within its box, to one integer per voxel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.images.grid import Grid
from medseg.images.label import HALF, TIE, Label
from medseg.images.volume import Voxels, members
from medseg.preprocessing.label_classes import LabelClasses, class_dtype, union
from medseg.preprocessing.resampling import Array, axis_maps, axis_weights, banded

# Number of shares, float32, that are held at a time, and of slices.
_SHARES = 1 << 24
_SLICES = 16


@dataclass(frozen=True)
class Region:
    """Where a label lies.

    Attributes:
        box: A box that contains the label, along the axes of ``source``.
        voxels: Returns the label within a part of the scan, boolean, given as slices.
    """

    box: tuple[slice, ...] | None
    voxels: Callable[[tuple[slice, ...]], npt.NDArray[Any]]


def regions(array: Voxels, labels: Sequence[Label]) -> list[Region]:
    """The regions of labels in a label map."""
    from scipy import ndimage

    found = ndimage.find_objects(array)

    def region(label: Label) -> Region:
        boxes = [found[value - 1] for value in label.values if value <= len(found)]
        box = union([each for each in boxes if each is not None])
        return Region(box, lambda part: members(array[part], label))

    return [region(label) for label in labels]


def channel_regions(channels: npt.NDArray[Any]) -> list[Region]:
    """The regions of labels that are given as channels (L, X, Y, Z)."""
    whole = tuple(slice(0, n) for n in channels.shape[1:])
    return [Region(whole, lambda part, channel=channel: channel[part]) for channel in channels]  # type: ignore[misc]  # mypy ignores the default


def resample_labels(labels: Sequence[Region], source: Grid, target: Grid, *, exclusive: bool) -> LabelClasses:
    """The classes of labels, interpolated as an image is, on ``target``.

    The share of each label in each voxel is found by linear interpolation, averaged where voxels get larger
    (:func:`medseg.preprocessing.resampling.resample`). A voxel belongs to every label with at least one half
    of it; of mutually exclusive labels and the background it gets the one with the largest share, see
    :func:`largest_share`. Each label is resampled only in its box, and a few slices at a time.

    Args:
        labels: One region per label.
        source: Grid of the regions.
        target: Grid with parallel axes, in any order and direction.
        exclusive: Whether labels are mutually exclusive.

    Raises:
        InputRefused: the axes of the two grids are not parallel (reason ``not-parallel``).
    """
    moves = [_Move.between(each, source, target) for each in labels]
    combinations = Combinations(len(labels))
    classes = np.zeros(target.shape, class_dtype(len(labels) + 3))
    area = sum(move.area for move in moves if move is not None)
    step = min(max(_SHARES // max(area, 1), 1), _SLICES)
    for first in range(0, target.shape[0], step):
        last = min(first + step, target.shape[0])
        shares = [
            (number, *found)
            for number, move in enumerate(moves)
            if move
            for found in move.shares(first, last)
        ]
        shape = (last - first, *target.shape[1:])
        made = largest_share(shares, shape, first) if exclusive else combinations.of_halves(shares, shape)
        if class_dtype(combinations.count) != classes.dtype:
            classes = classes.astype(class_dtype(combinations.count))
        classes[first:last] = made
    return LabelClasses(classes, combinations.table())


Share = tuple[int, tuple[slice, ...], Array]
"""A label's number, a box, and the label's share in each voxel of this box, 0..1. It is 0 elsewhere."""


def largest_share(shares: Sequence[Share], shape: tuple[int, ...], first: int = 0) -> npt.NDArray[np.int32]:
    """Mutually exclusive labels: each voxel gets the label, or the background, with the largest share.

    If several have the largest share, they take turns from voxel to voxel, as on a chessboard: a fixed
    choice would enlarge or shrink every structure whose surface lies in the middle of voxels.

    Args:
        shares: Shares of labels, in the order of the labels.
        shape: Shape of the slab that the boxes refer to.
        first: Number of its first slice, which the turns depend on.

    Returns:
        int32, the label's number plus 1, or 0 for the background.
    """
    total = np.zeros(shape, np.float32)
    for _, box, share in shares:
        total[box] += share
    background = 1 - total
    best = background.copy()
    for _, box, share in shares:
        np.maximum(best[box], share, out=best[box])
    best -= TIE
    count = (background >= best).astype(np.int32)
    for _, box, share in shares:
        count[box] += share >= best[box]
    x, y, z = np.ogrid[first : first + shape[0], : shape[1], : shape[2]]
    # How many of the tied classes come before the one whose turn it is.
    left = (x + y + z) % count - (background >= best)
    classes = np.zeros(shape, np.int32)
    for number, box, share in shares:
        tied = share >= best[box]
        classes[box][tied & (left[box] == 0)] = number + 1
        left[box] -= tied
    return classes


class Combinations:
    """The classes of labels that may overlap; combinations become classes as they occur.

    Args:
        labels: Number of labels.
    """

    def __init__(self, labels: int) -> None:
        self._rows = list(LabelClasses.basic_table(labels))
        self._with: dict[tuple[int, int], int] = {(0, label): label + 1 for label in range(labels)}

    @property
    def count(self) -> int:
        """Number of classes so far."""
        return len(self._rows)

    def table(self) -> npt.NDArray[np.int8]:
        """The table (K, L) of :class:`LabelClasses`."""
        return np.stack(self._rows)

    def of_halves(self, shares: Sequence[Share], shape: tuple[int, ...]) -> npt.NDArray[np.int32]:
        """int32 of ``shape``, the classes of voxels that belong to all labels with one half of them."""
        classes = np.zeros(shape, np.int32)
        for number, box, share in shares:
            inside = share >= HALF
            before = classes[box][inside]
            lookup = np.zeros(self.count, np.int32)
            for each in np.flatnonzero(np.bincount(before)):
                lookup[each] = self._joined(int(each), number)
            classes[box][inside] = lookup[before]
        return classes

    def _joined(self, before: int, label: int) -> int:
        """The class of the labels of ``before`` and one more."""
        if (before, label) not in self._with:
            row = self._rows[before].copy()
            row[label] = 1
            self._with[before, label] = len(self._rows)
            self._rows.append(row)
        return self._with[before, label]


@dataclass(frozen=True)
class _Move:
    """Resampling of one label within its box; axes are those of the target.

    Attributes:
        voxels: Returns the label, boolean, within slices along the axes of the target.
        box: Source voxels that contain the label.
        weights: Weights (n_out, n_in) of each axis, for the voxels of the two boxes; None for the identity.
        reached: Target voxels that contain the label.
    """

    voxels: Callable[[tuple[slice, ...]], npt.NDArray[Any]]
    box: tuple[slice, ...]
    weights: tuple[Array | None, ...]
    reached: tuple[slice, ...]

    @classmethod
    def between(cls, region: Region, source: Grid, target: Grid) -> _Move | None:
        """The resampling of a region; None for a label that no target voxel contains."""
        if region.box is None:
            return None
        maps = axis_maps(source, target)
        rows = [row for row, _, _ in maps]
        flipped = [step < 0 for _, _, step in maps]
        sizes = [source.shape[row] for row in rows]
        box, weights, reached = [], [], []
        for (row, offset, step), n_in, n_out in zip(maps, sizes, target.shape, strict=True):
            side = _mirrored(region.box[row], n_in) if step < 0 else region.box[row]
            matrix = axis_weights(n_in, n_out, offset, step)
            own = (
                np.arange(side.start, side.stop)
                if matrix is None
                else np.flatnonzero(matrix[:, side].any(axis=1))
            )
            if not len(own):
                return None
            out = slice(int(own[0]), int(own[-1]) + 1)
            box.append(side)
            reached.append(out)
            weights.append(None if matrix is None else np.ascontiguousarray(matrix[out, side]))

        def voxels(part: tuple[slice, ...]) -> npt.NDArray[Any]:
            stored: list[slice] = [slice(None)] * 3
            for row, side, n, turned in zip(rows, part, sizes, flipped, strict=True):
                stored[row] = _mirrored(side, n) if turned else side
            turns = tuple(slice(None, None, -1 if each else 1) for each in flipped)
            return region.voxels(tuple(stored)).transpose(rows)[turns]

        return cls(voxels, tuple(box), tuple(weights), tuple(reached))

    @property
    def area(self) -> int:
        """Number of target voxels of a slice that the label reaches."""
        down, through = (side.stop - side.start for side in self.reached[1:])
        return int(down * through)

    def shares(self, first: int, last: int) -> Iterator[tuple[tuple[slice, ...], Array]]:
        """The box within target slices ``first`` to ``last``, and the shares there, if it is not empty."""
        begin, end = max(first, self.reached[0].start), min(last, self.reached[0].stop)
        if begin >= end:
            return
        across, down, through = self.weights
        if across is None:
            columns = slice(begin, end)
        else:
            across = across[begin - self.reached[0].start : end - self.reached[0].start]
            used = np.flatnonzero(across.any(axis=0))
            if not len(used):
                return
            across = across[:, used[0] : used[-1] + 1]
            columns = slice(self.box[0].start + int(used[0]), self.box[0].start + int(used[-1]) + 1)
        part = self.voxels((columns, *self.box[1:])).astype(np.float32, order="C")
        if across is not None:
            part = (across @ part.reshape(len(part), -1)).reshape(len(across), *part.shape[1:])
        if down is not None:
            part = banded(down, part)
        if through is not None:
            part = banded(through, part.swapaxes(1, 2)).swapaxes(1, 2)
        yield (slice(begin - first, end - first), *self.reached[1:]), part


def _mirrored(side: slice, n: int) -> slice:
    """The voxels of ``side`` counted from the other end of an axis of length ``n``."""
    return slice(n - side.stop, n - side.start)
