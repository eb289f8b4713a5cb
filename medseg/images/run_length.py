"""Run-length masks: stretches of foreground along the fastest axis in memory.

A 512 x 512 x 300 mask has 79 million voxels, but two lungs in it make only a few hundred thousand runs.
Operations on whole masks (components, holes, bounding boxes) work on the runs, whose number grows with the
surface; voxels are only visited one slab of slices at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from medseg.errors import InputRefused

Binary: TypeAlias = npt.NDArray[np.bool_]
Integers: TypeAlias = npt.NDArray[np.intp]
Array: TypeAlias = npt.NDArray[Any]

# Voxels per slab; a slab has at least one slice.
_VOXELS_AT_ONCE = 1 << 22


@dataclass(frozen=True, eq=False)
class Runs:
    """The foreground of a mask as runs.

    A position is a flat voxel index with the axes in ``order``: position 0 is the first voxel, position 1 the
    next one along ``order[2]``, ideally the fastest axis in memory. Runs are sorted, do not touch each other,
    and never cross the end of a row.

    Attributes:
        shape: Shape of the mask, (X, Y, Z).
        order: The mask's axes from the slowest to the fastest.
        start: Position of the first voxel of each run.
        stop: Position after the last voxel of each run.
    """

    shape: tuple[int, int, int]
    order: tuple[int, int, int]
    start: Integers
    stop: Integers

    @classmethod
    def of(cls, array: Array, test: Callable[[Array], Binary] | None = None) -> Runs:
        """The runs of a mask (X, Y, Z).

        Args:
            array: The mask; must be bool unless a test is given.
            test: Maps a slab of the array, of any shape, to a boolean array that is True in the foreground.

        Raises:
            InputRefused: the array is not 3D, or not bool although no test is given (``shape``).
        """
        if array.ndim != 3 or (test is None and array.dtype != np.bool_):
            raise InputRefused(
                f"a mask of shape {array.shape} and dtype {array.dtype} cannot be encoded as runs",
                reason="shape",
                remedy="pass an array (X, Y, Z), of dtype bool unless a test is given",
            )
        order = memory_order(array)
        x, y, z = array.shape
        slabs = _slabs(array.transpose(order), test)
        return cls.together(
            [cls.of_slab(slab, (x, y, z), order, first) for first, slab in slabs], (x, y, z), order
        )

    @classmethod
    def of_slab(
        cls, slab: Binary, shape: tuple[int, int, int], order: tuple[int, int, int], first: int
    ) -> Runs:
        """The runs of consecutive slices of a mask.

        Args:
            slab: bool, whole slices, axes as in ``order``.
            shape: Shape of the whole mask, (X, Y, Z).
            order: The mask's axes from the slowest to the fastest.
            first: Index of the first slice.
        """
        rows, width = len(slab) * shape[order[1]], shape[order[2]]
        if not slab.size:
            return cls(shape, order, np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.intp))
        # An extra background column ends every run at the end of its row.
        changes = np.zeros((rows, width + 1), dtype=np.bool_)
        values = np.ascontiguousarray(slab).reshape(rows, width)
        np.not_equal(values[:, 1:], values[:, :-1], out=changes[:, 1:width])
        changes[:, 0], changes[:, width] = values[:, 0], values[:, -1]
        at = np.flatnonzero(changes)
        at += first * shape[order[1]] * width - at // (width + 1)
        return cls(shape, order, at[0::2], at[1::2])

    @classmethod
    def together(
        cls, pieces: Sequence[Runs], shape: tuple[int, int, int], order: tuple[int, int, int]
    ) -> Runs:
        """The union of pieces that do not touch along ``order[2]``, such as slabs, in any order."""
        none = np.zeros(0, dtype=np.intp)
        start = np.concatenate([none, *(piece.start for piece in pieces)])
        stop = np.concatenate([none, *(piece.stop for piece in pieces)])
        return cls(shape, order, np.sort(start), np.sort(stop))

    @property
    def lengths(self) -> Integers:
        """Number of voxels in each run."""
        return self.stop - self.start

    @property
    def size(self) -> int:
        """Number of foreground voxels."""
        return int(self.lengths.sum())

    @property
    def extent(self) -> tuple[int, int, int]:
        """The shape with the axes in ``order``."""
        slow, middle, fast = (self.shape[axis] for axis in self.order)
        return slow, middle, fast

    def box(self) -> tuple[slice, slice, slice] | None:
        """The bounding box of the foreground as slices along X, Y and Z; None if the mask is empty."""
        if not len(self.start):
            return None
        _, height, width = self.extent
        rows = self.start // width
        ends = (
            (rows[0] // height, rows[-1] // height + 1),
            ((rows % height).min(), (rows % height).max() + 1),
            ((self.start % width).min(), (self.stop - rows * width).max()),
        )
        x, y, z = (slice(*map(int, ends[self.order.index(axis)])) for axis in range(3))
        return x, y, z

    def middle(self, axis: int) -> float:
        """Mean index of the foreground along X, Y or Z (0, 1, 2).

        Raises:
            ZeroDivisionError: the mask is empty.
        """
        _, height, width = self.extent
        rows = self.start // width
        doubled = (
            2 * (rows // height),
            2 * (rows % height),
            self.start + self.stop - 1 - 2 * rows * width,
        )[self.order.index(axis)]
        return float((doubled * self.lengths).sum()) / (2 * self.size)

    def kept(self, chosen: Binary) -> Runs:
        """The runs for which ``chosen`` is True."""
        return Runs(self.shape, self.order, self.start[chosen], self.stop[chosen])

    def joined(self, others: Runs) -> Runs:
        """The union with other runs of the same mask; the two must have no voxel in common."""
        start, stop = np.sort(np.r_[self.start, others.start]), np.sort(np.r_[self.stop, others.stop])
        width = self.extent[2]
        apart = (stop[:-1] != start[1:]) | (start[1:] % width == 0)
        first, last = np.r_[True, apart][: len(start)], np.r_[apart, True][: len(start)]
        return Runs(self.shape, self.order, start[first], stop[last])

    def gaps(self) -> tuple[Runs, Binary]:
        """The background inside the bounding box, and which of its runs lie on a face of the box."""
        box = self.box()
        if box is None:
            return self, np.zeros(0, dtype=np.bool_)
        slow, middle, fast = (box[axis] for axis in self.order)
        _, height, width = self.extent
        rows = np.add.outer(np.arange(slow.start, slow.stop) * height, np.arange(middle.start, middle.stop))
        begin = rows.ravel() * width + fast.start
        start = np.sort(np.r_[begin, self.stop])
        stop = np.sort(np.r_[self.start, begin + (fast.stop - fast.start)])
        some = start < stop
        gaps = Runs(self.shape, self.order, start[some], stop[some])
        row = gaps.start // width
        ends = (row // height, slow), (row % height, middle)
        at_face = (gaps.start - row * width == fast.start) | (gaps.stop - row * width == fast.stop)
        for index, part in ends:
            at_face |= (index == part.start) | (index == part.stop - 1)
        return gaps, at_face

    def bounds(self) -> Iterator[tuple[int, int, int]]:
        """Slabs of the mask: index of the first run in the slice before, and the slab's first and last."""
        plane = self.extent[1] * self.extent[2]
        many = max(1, _VOXELS_AT_ONCE // max(1, plane))
        edges = np.arange(0, self.extent[0] + many, many)
        first = np.searchsorted(self.start, edges * plane)
        before = np.searchsorted(self.start, np.maximum(edges - 1, 0) * plane)
        for n in range(len(edges) - 1):
            if first[n] < first[n + 1]:
                yield int(before[n]), int(first[n]), int(first[n + 1])

    def counted(self, array: Array, test: Callable[[Array], Binary]) -> Integers:
        """The number of voxels of each run that pass a test on an array (X, Y, Z) of the mask's shape."""
        counts, plane = np.zeros(len(self.start), dtype=np.intp), self.extent[1] * self.extent[2]
        for first, slab in _slabs(array.transpose(self.order), test):
            low, high = np.searchsorted(self.start, [first * plane, (first + len(slab)) * plane])
            if low == high:
                continue
            start, stop = (ends[low:high] - first * plane for ends in (self.start, self.stop))
            upto = np.zeros(slab.size + 1, dtype=np.int32)
            np.cumsum(slab, dtype=np.int32, out=upto[1:])
            counts[low:high] = upto[stop] - upto[start]
        return counts

    def divided(self, values: Array, places: Sequence[Integers]) -> dict[int, Runs]:
        """The foreground split by the value that each voxel takes from a coarser array.

        Args:
            values: Integers, axes as in ``order``.
            places: For each of these axes, the index into ``values`` of each index of the mask; it grows by
                0 or 1 from one index to the next.

        Returns:
            The runs of each value that occurs.
        """
        _, height, width = self.extent
        slow, middle, fast = places
        edges = np.searchsorted(fast, np.arange(values.shape[2] + 1))
        flat = np.ascontiguousarray(values).reshape(-1, values.shape[2])
        changes = np.ones_like(flat, dtype=np.bool_)
        np.not_equal(flat[:, 1:], flat[:, :-1], out=changes[:, 1:])
        of, change = flat.ravel(), np.append(np.flatnonzero(changes), flat.size)
        start, stop, pieces = self.start, self.stop, []
        while len(start):
            # Each pass cuts every run where its value changes and continues with the rest.
            row = start // width
            at = slow[row // height] * values.shape[1] + middle[row % height]
            cell = at * values.shape[2] + fast[start - row * width]
            beyond = change[np.searchsorted(change, cell, side="right")] - at * values.shape[2]
            upto = np.minimum(stop, row * width + edges[beyond])
            pieces.append((of[cell], start, upto))
            start, stop = upto[upto < stop], stop[upto < stop]
        found = {int(value) for taken, _, _ in pieces for value in np.unique(taken)}
        return {value: self._chosen(pieces, value) for value in sorted(found)}

    def _chosen(self, pieces: Sequence[tuple[Array, Integers, Integers]], value: int) -> Runs:
        """The pieces of runs that have this value."""
        parts = [Runs(self.shape, self.order, s[of == value], e[of == value]) for of, s, e in pieces]
        return Runs.together(parts, self.shape, self.order)

    def at(self, indices: Sequence[Integers]) -> Binary:
        """Whether the voxels at the given X, Y and Z indices are foreground: bool, one axis per list.

        Args:
            indices: Strictly increasing indices along each axis.
        """
        _, height, width = self.extent
        slow, middle, fast = (indices[axis] for axis in self.order)
        row = self.start // width
        slices, rows = np.searchsorted(slow, row // height), np.searchsorted(middle, row % height)
        start, stop = (np.searchsorted(fast, ends - row * width) for ends in (self.start, self.stop))
        there = (
            (np.append(slow, -1)[slices] == row // height)
            & (np.append(middle, -1)[rows] == row % height)
            & (start < stop)
        )
        first = ((slices * len(middle) + rows) * len(fast))[there]
        x, y, z = (len(each) for each in indices)
        return Runs((x, y, z), self.order, first + start[there], first + stop[there]).binary()

    def binary(self) -> Binary:
        """The mask, bool (X, Y, Z), in its original memory layout."""
        mask = np.zeros(self.extent, dtype=np.bool_).transpose(np.argsort(self.order))
        self.paint(mask, True)
        return mask

    def paint(self, array: Array, value: int | bool) -> None:
        """Sets the foreground of an array (X, Y, Z) to a value, in place."""
        view = array.transpose(self.order)
        for first, slab in self._filled():
            view[first : first + len(slab)][slab] = value

    def _filled(self) -> Iterator[tuple[int, Binary]]:
        """Slabs with foreground: index of the first slice, and a bool array with the axes in ``order``."""
        _, height, width = self.extent
        plane = height * width
        for _, low, high in self.bounds():
            first, last = int(self.start[low] // plane), int(self.start[high - 1] // plane) + 1
            ends = np.zeros(2 * (high - low) + 2, dtype=np.intp)
            ends[1:-1:2], ends[2:-1:2] = self.start[low:high], self.stop[low:high]
            ends[1:-1] -= first * plane
            ends[-1] = (last - first) * plane
            pattern = np.arange(len(ends) - 1) % 2 == 1
            yield first, np.repeat(pattern, np.diff(ends)).reshape(last - first, height, width)


def _slabs(view: Array, test: Callable[[Array], Binary] | None) -> Iterator[tuple[int, Binary]]:
    """Slabs of an array, or of a test on it, each with the index of its first slice."""
    many = max(1, _VOXELS_AT_ONCE // max(1, view[0].size)) if len(view) else 1
    for first in range(0, len(view), many):
        slab = view[first : first + many]
        yield first, np.asarray(slab, dtype=np.bool_) if test is None else test(slab)


def memory_order(array: Array) -> tuple[int, int, int]:
    """The axes of an array (X, Y, Z) from the slowest to the fastest."""
    # Scans lie x-fastest in memory.
    strides = [-abs(stride) for stride in array.strides]
    slow, middle, fast = (int(axis) for axis in np.argsort(strides, kind="stable"))
    return slow, middle, fast
