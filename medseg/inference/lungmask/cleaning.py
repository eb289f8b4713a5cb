"""Cleaning of a volume of labels as lungmask does it, on the contacts of its components.

``lungmask.utils.postprocessing`` (0.2.22) relabels and searches the whole volume for each of some thousand
components. Here the voxels where components touch are listed once, and components are merged in that list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from medseg.images.connected_components import components, filled
from medseg.images.run_length import Integers, Runs

Labels: TypeAlias = npt.NDArray[np.uint8]

_LEAST_VOXELS = 3
_SINGLE_SLICE_HOLE = 64


def cleaned(labels: Labels, *, spare: int | None = None) -> Labels:
    """The labels with small components merged into their neighbours.

    From the smallest on, each component but the largest one of its label joins the neighbour that it shares
    most voxels with. Of each label the largest component then remains, with its holes filled; a later label
    covers earlier ones.

    Args:
        labels: uint8 (slices, rows, columns), C order.
        spare: A label that only passes its voxels to its neighbours and is not in the result.
    """
    found = _Components.of(labels)
    values = found.merged(spare)
    mapped = values[found.numbers]
    if spare is not None:
        mapped[mapped == spare] = 0
    made: Labels = np.zeros(labels.shape, dtype=np.uint8)
    for value in np.unique(mapped):
        if value:
            whole = _largest(Runs.of(mapped == value))
            whole = filled(whole) if len(labels) > 1 else _small_holes_filled(whole)
            whole.paint(made, int(value))
    return made


@dataclass
class _Components:
    """The components of a volume of labels, numbered from 1 in the order of their first voxels.

    Attributes:
        numbers: int32 (slices, rows, columns), the component of each voxel; 0 is the background.
        label_of: The label of each component, from number 0.
        sizes: The voxels of each component, which grow as others join.
    """

    numbers: npt.NDArray[np.int32]
    label_of: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    @classmethod
    def of(cls, labels: Labels) -> _Components:
        """The components of equal labels, corners connected."""
        starts, stops, parts, values = [], [], [], []
        many = 0
        for value in range(1, int(labels.max(initial=0)) + 1):
            runs = Runs.of(labels == value)
            part, number = components(runs, corners=True)
            starts.append(runs.start)
            stops.append(runs.stop)
            parts.append(part + many)
            values += [int(value)] * number
            many += number
        none = np.zeros(0, dtype=np.intp)
        start, stop, part = (np.concatenate([none, *each]) for each in (starts, stops, parts))
        order = np.argsort(start)
        start, stop, part = start[order], stop[order], part[order]
        _, first, place = np.unique(part, return_index=True, return_inverse=True)
        rank = np.empty(many, dtype=np.intp)
        rank[np.argsort(first)] = np.arange(1, many + 1)
        numbers = rank[place]
        label_of = np.zeros(many + 1, dtype=np.int64)
        label_of[rank] = values
        sizes = np.bincount(numbers, weights=stop - start, minlength=many + 1).astype(np.int64)
        return cls(_painted(start, stop, numbers, labels.shape), label_of, sizes)

    def merged(self, spare: int | None) -> npt.NDArray[np.uint8]:
        """The label of each component after merging; 0 if it is removed."""
        largest = np.zeros(int(self.label_of.max(initial=0)) + 1, dtype=np.int64)
        kept = np.zeros(len(self.label_of), dtype=np.uint8)
        order = np.argsort(self.sizes[1:], kind="stable") + 1
        for number in order.tolist():
            label = self.label_of[number]
            if self.sizes[number] > largest[label]:
                largest[label] = self.sizes[number]
                kept[number] = label
        contacts = _Contacts.of(self.numbers, len(self.label_of))
        for number in order.tolist():
            label, size = self.label_of[number], int(self.sizes[number])
            if not ((size < largest[label] or label == spare) and size >= _LEAST_VOXELS):
                continue
            neighbours, shared = contacts.neighbours(number)
            allowed = self.label_of[neighbours] != (-1 if spare is None else spare)
            neighbours, shared = neighbours[allowed], shared[allowed]
            if len(neighbours):
                target = int(neighbours[shared.argmax()])
                contacts.merge(number, target)
                if self.sizes[target] == largest[self.label_of[target]]:
                    largest[self.label_of[target]] += size
                self.sizes[target] += size
        return kept[contacts.parents()]


class _Contacts:
    """Voxels of components that share a face with another component, kept up to date as components merge.

    Args:
        voxels: For each component, the positions of the voxels of others that touch it.
        owners: The components of these voxels at the start.
    """

    def __init__(self, voxels: list[list[Integers]], owners: list[list[Integers]]) -> None:
        self._voxels, self._owners = voxels, owners
        self._parent = np.arange(len(voxels))

    @classmethod
    def of(cls, numbers: npt.NDArray[np.int32], count: int) -> _Contacts:
        """The contacts in a volume of component numbers."""
        at: list[Integers] = []
        owner: list[npt.NDArray[np.int32]] = []
        touched: list[npt.NDArray[np.int32]] = []
        for axis in range(3):
            low = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
            high = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
            one, other = numbers[low], numbers[high]
            where = np.nonzero((one != other) & (one > 0) & (other > 0))
            step = [int(a == axis) for a in range(3)]
            beyond = tuple(each + s for each, s in zip(where, step, strict=True))
            at += [np.ravel_multi_index(each, numbers.shape) for each in (where, beyond)]
            owner += [one[where], other[where]]
            touched += [other[where], one[where]]
        by = np.concatenate(touched)
        order = np.argsort(by, kind="stable")
        ends = np.searchsorted(by[order], np.arange(count + 1))
        position = np.concatenate(at)[order]
        whose = np.concatenate(owner)[order].astype(np.intp)
        parts = [slice(low, high) for low, high in pairwise(ends.tolist())]
        return cls([[position[part]] for part in parts], [[whose[part]] for part in parts])

    def neighbours(self, number: int) -> tuple[Integers, Integers]:
        """The components that touch one, in order, and the number of their voxels that do."""
        voxels, first = np.unique(np.concatenate(self._voxels[number]), return_index=True)
        if not len(voxels):
            return voxels, voxels
        owners = self._found(np.concatenate(self._owners[number])[first])
        others, counts = np.unique(owners[owners != number], return_counts=True)
        return others, counts

    def merge(self, number: int, target: int) -> None:
        """Joins a component to another one."""
        self._parent[number] = target
        self._voxels[target] += self._voxels[number]
        self._owners[target] += self._owners[number]

    def parents(self) -> Integers:
        """The component that each one has become part of."""
        return self._found(np.arange(len(self._parent)))

    def _found(self, numbers: Integers) -> Integers:
        while True:
            above = self._parent[numbers]
            if np.array_equal(above, numbers):
                return numbers
            numbers = above


def _painted(
    start: Integers, stop: Integers, number: Integers, shape: Sequence[int]
) -> npt.NDArray[np.int32]:
    """A volume with the number of each run."""
    ends = np.zeros(2 * len(start) + 1, dtype=np.intp)
    ends[0:-1:2], ends[1::2] = start, stop
    ends[-1] = int(np.prod(shape))
    values = np.zeros(2 * len(start) + 1, dtype=np.int32)
    values[1::2] = number
    return np.repeat(values, np.diff(ends, prepend=0)).reshape(tuple(shape))


def _largest(mask: Runs) -> Runs:
    """The largest component, corners connected; of equal ones the last."""
    part, count = components(mask, corners=True)
    sizes = np.bincount(part, weights=mask.lengths, minlength=count)
    first = np.full(count, len(part))
    np.minimum.at(first, part, np.arange(len(part)))
    chosen = max(range(count), key=lambda number: (sizes[number], first[number]))
    return mask.kept(part == chosen)


def _small_holes_filled(mask: Runs) -> Runs:
    """A single slice with holes of fewer than 64 voxels filled."""
    from scipy import ndimage

    inside = mask.binary()[0]
    parts, _ = ndimage.label(~np.pad(inside, 1))
    small = np.bincount(parts.ravel()) < _SINGLE_SLICE_HOLE
    small[[0, parts[0, 0]]] = False
    return Runs.of((inside | small[parts][1:-1, 1:-1])[None])
