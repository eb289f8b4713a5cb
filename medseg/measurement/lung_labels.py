"""Which labels of a mask are lung, and which side they are on, by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from medseg.images.label import Label
from medseg.images.run_length import Array, Runs
from medseg.images.volume import Mask, Volume
from medseg.inference.lungs import LEFT, RIGHT, split_left_right

Kind: TypeAlias = Literal["auto", "lung", "structures"]
"""What a mask is measured as: ``auto`` goes by the names of its labels."""

SIDES = {"right_lung": RIGHT, "left_lung": LEFT}
"""Names of the lungs in tables, and their values in label maps of sides."""

_WORDS = re.compile(r"[a-z]+")
_SIDE = {"right": RIGHT, "r": RIGHT, "left": LEFT, "l": LEFT}
_LUNG = {"lung", "lungs"}
_LOBE = {"lobe", "upper", "middle", "lower"}


def lung_side(label: Label) -> int | None:
    """`RIGHT` or `LEFT` for a lung or a lobe of that side, 0 for both lungs in one label, else None.

    Recognised are names such as ``right_lung``, ``Lung_L``, ``lungs`` and TotalSegmentator's
    ``lung_upper_lobe_left``; a name with any other word, such as ``lung_nodule``, is not lung.
    """
    words = set(_WORDS.findall(label.name.lower()))
    sides = {_SIDE[word] for word in words if word in _SIDE}
    if not words & (_LUNG | {"lobe"}) or words - _LUNG - _LOBE - _SIDE.keys() or len(sides) > 1:
        return None
    if sides:
        return sides.pop()
    if label.side is not None:
        return _SIDE[label.side]
    return 0 if words & _LUNG and not words & _LOBE else None


def lung_labels(mask: Mask, kind: Kind = "auto") -> tuple[Label, ...]:
    """The labels that are lung: those with a side, else those of both lungs; with ``lung``, else all."""
    if kind == "structures":
        return ()
    found = {label.name: lung_side(label) for label in mask.labels}
    sided = tuple(label for label in mask.labels if found[label.name])
    both = tuple(label for label in mask.labels if found[label.name] == 0)
    return sided or both or (mask.labels if kind == "lung" else ())


def painted(array: Array, labels: Sequence[Label]) -> Array:
    """`RIGHT`, `LEFT` or 0 for every voxel of a label map, uint8, for labels that all have a side."""
    sides = np.zeros_like(array, np.uint8)
    for label in labels:
        for value in label.values:
            sides[array == value] = lung_side(label) or 0
    return sides


def divided(mask: Mask, labels: Sequence[Label], scan: Volume) -> Array:
    """`RIGHT`, `LEFT` or 0 for every voxel, uint8 (X, Y, Z), for lungs that share labels.

    :func:`medseg.inference.lungs.split_left_right` separates them. It also looks at the air around the
    patient, so the scan must not be cropped.

    Args:
        mask: The label map.
        labels: Those of its labels that are lung.
        scan: The CT, on the same grid.
    """
    values = sorted({value for label in labels for value in label.values})
    runs = Runs.of(mask.array, lambda slab: np.isin(slab, values))
    right, left = split_left_right(runs, mask.grid, scan.array)
    sides = np.zeros_like(mask.array, np.uint8)
    right.paint(sides, RIGHT)
    left.paint(sides, LEFT)
    return sides


def middle_column(sides: Array) -> float | None:
    """Column half way between the lungs, of a label map of sides (X, Y, Z); None without both lungs."""
    columns = [np.flatnonzero((sides == side).any(axis=(1, 2))) for side in (RIGHT, LEFT)]
    if not all(len(each) for each in columns):
        return None
    return float(np.mean([each.mean() for each in columns]))
