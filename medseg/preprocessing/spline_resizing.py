"""Resizing a volume with splines, as nnU-Net does with scikit-image and scipy, in a fraction of the time.

``skimage.transform.resize(mode="edge", anti_aliasing=False)`` is ``scipy.ndimage.zoom`` with ``grid_mode``
and mode ``nearest``, clipped to the range of its input: 12 edge voxels are added at each end, the volume is
filtered to spline coefficients, and splines are evaluated at the centres of the new voxels. All of this is
linear and works on one axis at a time, so each axis has one matrix, whose rows fade within some 25 voxels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Doubles: TypeAlias = npt.NDArray[np.float64]

ANISOTROPIC = 3.0
"""Ratio of the largest to the smallest voxel side above which the longest axis is resampled separately
(``ANISO_THRESHOLD`` of nnU-Net)."""

# scipy.ndimage.zoom extends the edges by so many voxels before it filters, because its filter has no exact
# initial values for this mode.
_PADDED = 12
_POLE = 3**0.5 - 2  # of the cubic B-spline (Unser 1999, doi:10.1109/79.799930, table 1)
_NEGLIGIBLE = 1e-13
_ROWS = 32


def separate_axis(from_mm: Sequence[float], to_mm: Sequence[float]) -> int | None:
    """The axis that is resampled separately because voxels are much longer along it; None if there is none.

    The old voxels decide, and the new ones only if the old ones are not anisotropic. Two equally long axes
    are not resampled separately.

    Args:
        from_mm: Voxel size of the array along its axes.
        to_mm: Voxel size after resampling.
    """
    for spacing in (from_mm, to_mm):
        if max(spacing) / min(spacing) > ANISOTROPIC:
            longest = [axis for axis, mm in enumerate(spacing) if max(spacing) / mm == 1]
            return longest[0] if len(longest) == 1 else None
    return None


@dataclass(frozen=True)
class Axis:
    """The weights of resizing along one axis, in blocks of rows.

    Attributes:
        n_in: Voxels before.
        n_out: Voxels after.
        blocks: Of each block, the new voxels, the old ones that they depend on, and the weights, float64
            (new, old).
    """

    n_in: int
    n_out: int
    blocks: tuple[tuple[slice, slice, Doubles], ...]

    def last(self, values: Doubles) -> Doubles:
        """The array resized along its last axis."""
        if self.n_in == self.n_out:
            return values
        flat = values.reshape(-1, self.n_in)
        made = np.empty((len(flat), self.n_out))
        for new, old, weights in self.blocks:
            np.matmul(flat[:, old], weights.T, out=made[:, new])
        return made.reshape(*values.shape[:-1], self.n_out)

    def middle(self, values: Doubles) -> Doubles:
        """The array (P, n_in, C) resized along its second axis."""
        if self.n_in == self.n_out:
            return values
        made = np.empty((len(values), self.n_out, values.shape[2]))
        for new, old, weights in self.blocks:
            np.matmul(weights, values[:, old], out=made[:, new])
        return made


@lru_cache(maxsize=32)
def axis_weights(n_in: int, n_out: int, order: int, rows_at_once: int = _ROWS) -> Axis:
    """The weights of resizing an axis by splines of an order: 0 (nearest voxel), 1 (linear) or 3 (cubic)."""
    centres = _centres(n_in, n_out)
    blocks = []
    for first in range(0, n_out, rows_at_once):
        rows = slice(first, min(first + rows_at_once, n_out))
        weights = _weights(centres[rows], n_in, order)
        columns = np.flatnonzero(np.abs(weights).max(axis=0) > _NEGLIGIBLE)
        old = slice(int(columns[0]), int(columns[-1]) + 1)
        blocks.append((rows, old, np.ascontiguousarray(weights[:, old])))
    return Axis(n_in, n_out, tuple(blocks))


def _weights(centres: Doubles, n_in: int, order: int) -> Doubles:
    """Weights float64 (new voxels, old voxels) at new voxels centred at positions of the old ones."""
    rows = np.arange(len(centres))
    weights = np.zeros((len(centres), n_in))
    if order == 0:
        weights[rows, np.floor(centres + 0.5).astype(int).clip(0, n_in - 1)] = 1
        return weights
    if order == 1:
        at = centres.clip(0, n_in - 1)
        low = np.floor(at).astype(int)
        weights[rows, low] = 1 - (at - low)
        np.add.at(weights, (rows, np.minimum(low + 1, n_in - 1)), at - low)
        return weights
    padded = n_in + 2 * _PADDED
    low = np.floor(centres).astype(int)
    t = centres - low
    taps = [(1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6]
    taps += [(3 * (1 - t) ** 3 - 6 * (1 - t) ** 2 + 4) / 6, t**3 / 6]
    extended = np.zeros((len(centres), padded))
    for number, tap in enumerate(taps):
        extended += tap[:, None] * _coefficients(low + number - 1 + _PADDED, padded)
    weights += extended[:, _PADDED:-_PADDED]
    weights[:, 0] += extended[:, :_PADDED].sum(axis=1)
    weights[:, -1] += extended[:, -_PADDED:].sum(axis=1)
    return weights


def _coefficients(rows: npt.NDArray[np.intp], n: int) -> Doubles:
    """Rows of the filter that turns ``n`` values into the coefficients of a cubic spline through them.

    Beyond its ends the signal is mirrored at the outer faces of its voxels, with period 2 n.
    """
    i, j = rows.clip(0, n - 1)[:, None], np.arange(n)
    total = np.zeros((len(rows), n))
    for period in (-2 * n, 0, 2 * n):
        total += _POLE ** np.abs(i - j + period) + _POLE ** np.abs(i + j + 1 + period)
    return total * (-6 * _POLE / (1 - _POLE**2))


def resized(
    image: npt.NDArray[Any],
    shape: Sequence[int],
    *,
    order: int = 3,
    separate: int | None = None,
    order_z: int = 0,
    prepare: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] = lambda planes: planes,
    dtype: npt.DTypeLike = np.float32,
) -> npt.NDArray[Any]:
    """A volume resized to another shape, computed in double precision.

    The result stays within the range of the volume or, with a separate axis, of each of its slices, as
    scikit-image clips it. Only some planes are in double precision at a time.

    Args:
        image: A volume, (A, B, C).
        shape: Number of voxels of the result along each axis.
        order: Order of the splines, 0, 1 or 3.
        separate: An axis that is resized after the others, with splines of order ``order_z``.
        order_z: Order along the separate axis; 0 takes the nearest slice.
        prepare: Applied to planes (planes, rows, columns) of the volume before they are resized.
        dtype: Type of the result.
    """
    lead = 0 if separate is None else separate
    order_of = [axis for axis in range(3) if axis != lead]
    source = image.transpose(lead, *order_of)
    made = np.empty(tuple(shape), dtype=dtype)
    target = made.transpose(lead, *order_of)
    along = axis_weights(source.shape[0], target.shape[0], order if separate is None else order_z)
    rows, columns = (axis_weights(source.shape[a], target.shape[a], order) for a in (1, 2))
    limits = None
    if separate is None and order > 1:
        limits = _range(source, prepare)

    def planes() -> Iterator[Doubles]:
        for number in range(len(source)):
            plane = np.asarray(prepare(source[number : number + 1]), dtype=np.float64)
            flat = rows.middle(columns.last(plane))
            if separate is not None and order > 1 and flat is not plane:
                flat = flat.clip(plane.min(), plane.max())
            yield flat[0]

    for first, block in _along(planes(), along):
        target[first : first + len(block)] = block if limits is None else block.clip(*limits)
    return made


def resized_labels(
    labels: npt.NDArray[Any], shape: Sequence[int], *, separate: int | None = None
) -> npt.NDArray[Any]:
    """A label map resized to another shape: in each voxel the label with the largest interpolated share.

    Of labels with equal shares that of the nearest voxel is taken, otherwise the smallest
    (``batchgenerators.resize_segmentation`` 0.25.5 with linear interpolation). Along a separate axis the
    nearest slice is taken.

    Args:
        labels: Integers, (A, B, C).
        shape: Number of voxels of the result along each axis.
        separate: An axis that is resized after the others.
    """
    across = list(shape)
    if separate is not None:
        across[separate] = labels.shape[separate]
    nearest = labels
    for axis in range(3):
        nearest = np.take(nearest, _nearest(labels.shape[axis], across[axis]), axis)
    made, best = np.full(tuple(across), labels.min()), np.zeros(tuple(across))
    for value in np.unique(labels):
        share = resized(labels == value, across, order=1, dtype=np.float64)
        better = (share > best) | ((share == best) & (nearest == value))
        made[better] = value
        np.maximum(best, share, out=best)
    return (
        made if separate is None else np.take(made, _nearest(made.shape[separate], shape[separate]), separate)
    )


def _nearest(n_in: int, n_out: int) -> npt.NDArray[np.intp]:
    """The old voxel that is nearest to each new one."""
    return np.floor(_centres(n_in, n_out) + 0.5).astype(int).clip(0, n_in - 1)


def _centres(n_in: int, n_out: int) -> Doubles:
    """Positions of the centres of the new voxels in old ones."""
    return np.asarray((n_in / n_out) * (np.arange(n_out) + 0.5) - 0.5, dtype=np.float64)


def _range(
    source: npt.NDArray[Any], prepare: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
) -> tuple[float, float]:
    """The smallest and the largest value of prepared planes."""
    ends = [
        (float(p.min()), float(p.max())) for p in (prepare(source[n : n + 1]) for n in range(len(source)))
    ]
    return min(low for low, _ in ends), max(high for _, high in ends)


def _along(planes: Iterator[Doubles], axis: Axis) -> Iterator[tuple[int, Doubles]]:
    """Blocks of planes resized along the first axis, each with the number of its first plane."""
    held: list[Doubles] = []
    start = 0
    for new, old, weights in axis.blocks:
        while start + len(held) < old.stop:
            held.append(next(planes))
        del held[: old.start - start]
        start = old.start
        shape = held[0].shape
        stacked = np.stack(held[: old.stop - old.start]).reshape(len(weights[0]), -1)
        if axis.n_in == axis.n_out:
            stacked = stacked[new.start - old.start : new.stop - old.start]
            yield new.start, stacked.reshape(-1, *shape)
        else:
            yield new.start, (weights @ stacked).reshape(-1, *shape)
