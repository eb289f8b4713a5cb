"""What is left of a label after a recipe's preparation, which resamples label maps and cuts them at one half.

Structures thinner than a prepared voxel vanish: a lesion of 2 x 2 x 2 mm fills at most 0.3 of a voxel
of 3 x 3 x 3 mm. The rule is that of :mod:`medseg.preprocessing.resampling`, without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medseg.images.connected_components import components
from medseg.images.label import HALF, Label
from medseg.images.run_length import Runs
from medseg.images.volume import Mask

_SLICES = 16


class Remains(NamedTuple):
    """What is left of a label after resampling.

    Attributes:
        voxels: Number of its prepared voxels.
        parts: Number of its connected parts (26-connectivity) of two voxels or more before resampling: its
            lesions. A single voxel counts as a speck of the annotation.
        lost: Number of these parts in which no prepared voxel is left.
    """

    voxels: int
    parts: int
    lost: int


def remains(truth: Mask, labels: Sequence[Label], spacing_mm: Sequence[float]) -> tuple[Remains, ...]:
    """What is left of each label after resampling to a voxel size.

    Args:
        truth: The label map.
        labels: The labels to look for, with their values.
        spacing_mm: Voxel size of the prepared grid along the axes R-L, A-P and S-I.
    """
    oriented = truth.oriented("RAS")
    lengths = zip(oriented.grid.shape, oriented.grid.spacing_mm, spacing_mm, strict=True)
    weights = [_weights(n, new / old) for n, old, new in lengths]
    boxes = ndimage.find_objects(oriented.array)
    return tuple(_remains(oriented.array, label, boxes, weights) for label in labels)


def prepared_ml(voxels: int, spacing_mm: Sequence[float]) -> float:
    """The volume of a number of prepared voxels in ml."""
    return voxels * prod(spacing_mm) / 1000


def _remains(
    array: npt.NDArray[np.integer],
    label: Label,
    boxes: Sequence[tuple[slice, ...] | None],
    weights: Sequence[npt.NDArray[np.float32]],
) -> Remains:
    own = [boxes[value - 1] for value in label.values if value <= len(boxes)]
    known = [box for box in own if box is not None]
    if not known:
        return Remains(0, 0, 0)
    box = [slice(min(b[i].start for b in known), max(b[i].stop for b in known)) for i in range(3)]
    part = array[tuple(box)]
    parts = [matrix[:, along] for matrix, along in zip(weights, box, strict=True)]
    near = [matrix[matrix.any(axis=1)] for matrix in parts]
    left = _resampled(part, label, near) >= HALF
    runs = Runs.of(part, lambda slab: np.isin(slab, label.values))
    number, count = components(runs, corners=True)
    lesions = np.bincount(number, weights=runs.lengths, minlength=count) > 1
    voxels = int(np.count_nonzero(left))
    kept = np.zeros(count, np.bool_)
    if voxels and count == 1:
        kept[:] = True
    elif voxels:
        # A voxel goes to the prepared voxel to which it contributes most; the last plane stands for none.
        place = [np.where(matrix.any(axis=0), matrix.argmax(axis=0), len(matrix)) for matrix in near]
        found = runs.counted(np.pad(left, (0, 1))[np.ix_(*place)], lambda slab: slab)
        kept[number[found > 0]] = True
    return Remains(voxels, int(lesions.sum()), int((lesions & ~kept).sum()))


def _resampled(
    part: npt.NDArray[np.integer], label: Label, weights: Sequence[npt.NDArray[np.float32]]
) -> npt.NDArray[np.float32]:
    """The share of the label in each prepared voxel."""
    across, down, through = weights
    total = np.zeros((len(across), len(down), len(through)), np.float32)
    for first in range(0, part.shape[2], _SLICES):  # limits the memory
        slab = np.isin(part[:, :, first : first + _SLICES], label.values).astype(np.float32)
        reduced = np.einsum("ax,xyz,by->abz", across, slab, down, optimize=True)
        total += reduced @ through[:, first : first + _SLICES].T
    return total


def _weights(n_in: int, step: float) -> npt.NDArray[np.float32]:
    """Weights of input voxels, (n_out, n_in): linear interpolation, averaged over ``step - 1`` voxels."""
    n_out = max(int(np.floor(n_in / step + 0.5 - 1e-6)), 1)
    position = (n_in - 1) / 2 + step * (np.arange(n_out) - (n_out - 1) / 2)
    box = max(step - 1, 0.0)
    margin = int(np.ceil(box / 2)) + 2
    away: npt.NDArray[np.float64] = position[:, None] - np.arange(-margin, n_in + margin, dtype=np.float64)
    wide: npt.NDArray[np.float64]
    if box > 1e-3:
        wide = (_hat_integral(away + box / 2) - _hat_integral(away - box / 2)) / box
    else:
        wide = np.maximum(0.0, 1.0 - np.abs(away))
    matrix = wide[:, margin : margin + n_in].copy()
    matrix[:, 0] += wide[:, :margin].sum(axis=1)
    matrix[:, -1] += wide[:, margin + n_in :].sum(axis=1)
    return matrix.astype(np.float32)


def _hat_integral(end: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Integral of the hat function max(0, 1 - |u|) from minus infinity to ``end``."""
    end = np.clip(end, -1.0, 1.0)
    return np.where(end < 0, (1 + end) ** 2 / 2, 1 - (1 - end) ** 2 / 2)
