"""The labels of a case as one integer per voxel.

A voxel may belong to several labels, or it may be unknown whether it does. Each combination that occurs is a
class, and a table says what it means: 117 labels need one byte per voxel instead of 117.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

UNKNOWN = -1
"""Value of a label in a table where it is unknown whether the class belongs to it."""


@dataclass(frozen=True)
class LabelClasses:
    """The labels of a prepared case.

    Attributes:
        classes: uint8, int16 or int32 (X, Y, Z), the class of each voxel. (torch has no full support for
            uint16.)
        table: int8 (K, L), for each class whether it is inside each label: 1 inside, 0 outside, -1 unknown.
            Class 0 is outside of all, class n = 1..L only inside label n - 1, L + 1 unknown, L + 2 outside of
            the scan; further classes are inside several labels.
    """

    classes: npt.NDArray[np.integer]
    table: npt.NDArray[np.int8]

    @property
    def unknown_class(self) -> int:
        """The class of voxels whose labels are all unknown."""
        return int(self.table.shape[1]) + 1

    @property
    def outside_class(self) -> int:
        """The class of voxels outside of the scan, which belong to no label."""
        return int(self.table.shape[1]) + 2

    def channels(self) -> npt.NDArray[np.int8]:
        """int8 (L, X, Y, Z): one channel per label, 1 inside, 0 outside, -1 unknown."""
        return np.stack([column[self.classes] for column in self.table.T])

    def boxes(self) -> list[tuple[slice, ...] | None]:
        """The bounding box of each label; None for a label without voxels."""
        from scipy import ndimage

        found = ndimage.find_objects(self.classes)
        found += [None] * (len(self.table) - 1 - len(found))
        inside = [[found[n] for n in np.flatnonzero(column[1:] == 1)] for column in self.table.T]
        return [union([box for box in boxes if box is not None]) for boxes in inside]

    @staticmethod
    def basic_table(labels: int) -> npt.NDArray[np.int8]:
        """The table (L + 3, L) of the classes that every case has."""
        table = np.zeros((labels + 3, labels), np.int8)
        table[1 : labels + 1] = np.eye(labels, dtype=np.int8)
        table[labels + 1] = UNKNOWN
        return table

    @classmethod
    def from_channels(cls, channels: npt.NDArray[Any]) -> LabelClasses:
        """The classes of channels (L, X, Y, Z) of 1, 0 and -1."""
        labels = len(channels)
        rows, found = np.unique(channels.reshape(labels, -1).T, axis=0, return_inverse=True)
        table = [*cls.basic_table(labels).tolist()]
        numbers = []
        for row in rows.astype(int).tolist():
            if row not in table:
                table.append(row)
            numbers.append(table.index(row))
        classes = np.asarray(numbers)[found.reshape(channels.shape[1:])]
        return cls(classes.astype(class_dtype(len(table))), np.array(table, np.int8))


def class_dtype(count: int) -> npt.DTypeLike:
    """The smallest integer type, of those that torch supports fully, for a number of classes."""
    return np.uint8 if count <= 1 << 8 else np.int16 if count <= 1 << 15 else np.int32


def union(boxes: Sequence[tuple[slice, ...]]) -> tuple[slice, ...] | None:
    """The smallest box around all boxes; None if there is none."""
    if not boxes:
        return None
    return tuple(
        slice(min(each.start for each in sides), max(each.stop for each in sides))
        for sides in zip(*boxes, strict=True)
    )
