"""What is left of a label after a recipe's preparation, which resamples label maps and cuts them at one half.

Structures thinner than a prepared voxel vanish: a lesion of 2 x 2 x 2 mm fills at most 0.3 of a voxel
of 3 x 3 x 3 mm. Of mutually exclusive labels the one with the largest share gets a voxel. The rules are those
of :mod:`medseg.preprocessing.resampling` and :mod:`medseg.preprocessing.preparation`, without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from medseg.images.connected_components import components
from medseg.images.label import HALF, TIE, Label
from medseg.images.run_length import Runs
from medseg.images.volume import Mask

_SLICES = 16
_AT_ONCE = 1 << 20  # input voxels whose shares are summed at once

_Weights = Sequence[npt.NDArray[np.float32]]


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


def remains(
    truth: Mask, labels: Sequence[Label], spacing_mm: Sequence[float], *, exclusive: bool = False
) -> tuple[Remains, ...]:
    """What is left of each label after resampling to a voxel size.

    Args:
        truth: The label map.
        labels: The labels to look for, with their values.
        spacing_mm: Voxel size of the prepared grid along the axes R-L, A-P and S-I.
        exclusive: Whether a voxel goes to the label, or the background, with the largest share of it, instead
            of to every label that has one half.
    """
    oriented = truth.oriented("RAS")
    lengths = zip(oriented.grid.shape, oriented.grid.spacing_mm, spacing_mm, strict=True)
    weights = [_weights(n, new / old) for n, old, new in lengths]
    from scipy import ndimage

    boxes = ndimage.find_objects(oriented.array)
    rivals = tuple(labels) if exclusive else ()
    return tuple(_remains(oriented.array, label, boxes, weights, rivals) for label in labels)


def prepared_ml(voxels: int, spacing_mm: Sequence[float]) -> float:
    """The volume of a number of prepared voxels in ml."""
    return voxels * prod(spacing_mm) / 1000


def _remains(
    array: npt.NDArray[np.integer],
    label: Label,
    boxes: Sequence[tuple[slice, ...] | None],
    weights: _Weights,
    rivals: Sequence[Label],
) -> Remains:
    own = [boxes[value - 1] for value in label.values if value <= len(boxes)]
    known = [box for box in own if box is not None]
    if not known:
        return Remains(0, 0, 0)
    box = [slice(min(b[i].start for b in known), max(b[i].stop for b in known)) for i in range(3)]
    part = array[tuple(box)]
    parts = [matrix[:, along] for matrix, along in zip(weights, box, strict=True)]
    near = [matrix[matrix.any(axis=1)] for matrix in parts]
    share = _resampled(part, label, near)
    left = share >= HALF
    if rivals:
        # More than one half always wins; the others have to be compared.
        undecided = (share > 0) & (share <= 0.5 + TIE)
        first = [int(matrix.any(axis=1).argmax()) for matrix in parts]
        left[undecided] = _wins(array, rivals.index(label), rivals, weights, np.argwhere(undecided) + first)
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


def _wins(
    array: npt.NDArray[np.integer],
    own: int,
    labels: Sequence[Label],
    weights: _Weights,
    voxels: npt.NDArray[np.integer],
) -> npt.NDArray[np.bool_]:
    """In which prepared voxels, (N, 3), a label has the largest share, or its turn among equal ones.

    Shares are summed for these voxels only, each from the input voxels around it.
    """
    # The background is class 0, and label n class n + 1.
    lookup = np.zeros(int(array.max()) + 1, np.intp)
    for number, each in enumerate(labels, start=1):
        lookup[[value for value in each.values if value < len(lookup)]] = number
    near = [_neighbours(matrix) for matrix in weights]
    classes, around = len(labels) + 1, prod(index.shape[1] for index, _ in near)
    won = np.zeros(len(voxels), np.bool_)
    step = max(1, _AT_ONCE // max(around, classes))
    for start in range(0, len(voxels), step):
        some = voxels[start : start + step]
        (x, across), (y, down), (z, through) = (
            (index[at], weight[at]) for (index, weight), at in zip(near, some.T, strict=True)
        )
        kind = lookup[array[x[:, :, None, None], y[:, None, :, None], z[:, None, None, :]]]
        weight = across[:, :, None, None] * down[:, None, :, None] * through[:, None, None, :]
        kind += classes * np.arange(len(some))[:, None, None, None]
        shares = np.bincount(kind.ravel(), weight.ravel(), classes * len(some)).reshape(-1, classes)
        tied = shares >= shares.max(axis=1, keepdims=True) - TIE
        turn = some.sum(axis=1) % tied.sum(axis=1)
        won[start : start + step] = tied[:, own + 1] & (tied.cumsum(axis=1)[:, own + 1] == turn + 1)
    return won


def _neighbours(matrix: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """The input voxels of each prepared voxel along an axis, and their weights, both (n_out, K)."""
    first = (matrix > 0).argmax(axis=1)
    last = matrix.shape[1] - 1 - (matrix > 0)[:, ::-1].argmax(axis=1)
    index = first[:, None] + np.arange(int((last - first).max()) + 1)
    beyond = index > last[:, None]
    index = np.minimum(index, matrix.shape[1] - 1)
    return index, np.where(beyond, 0, np.take_along_axis(matrix, index, axis=1))


def _resampled(part: npt.NDArray[np.integer], label: Label, weights: _Weights) -> npt.NDArray[np.float32]:
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
