"""Resampling between grids with parallel axes, one axis after the other.

Linear interpolation in three dimensions is the product of three one-dimensional ones, so that each axis
is a small matrix whose row j holds the weights of the input voxels in output voxel j.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import InputRefused
from medseg.images.grid import Grid
from medseg.system.processes import thread_count

Array = npt.NDArray[np.float32]

# Positions are rounded to this many decimals of a voxel. Storing a scan in another of the 48 orientations
# changes its affine by about 1e-13; rounding keeps the weights, and thus the masks, equal to the last bit.
_DECIMALS = 6

# Number of slices resampled at a time: enough for efficient matrix products, in little memory.
_SLICES = 16

# Number of rows of an interpolation matrix in one product: enough for efficient products, few zeros.
_BAND = 32


def resampled_grid(grid: Grid, spacing_mm: tuple[float, float, float]) -> Grid:
    """A grid with another voxel size over the same field of view.

    The field of view extends between the outer faces of the outermost voxels, and its centre is
    preserved. Each axis has at least one voxel.
    """
    shape = np.asarray(grid.shape, dtype=np.float64)
    ratio = np.asarray(spacing_mm) / np.asarray(grid.spacing_mm)
    # Half a voxel is rounded down; the margin makes this independent of rounding errors in the affine.
    counts = np.maximum(np.floor(shape / ratio + 0.5 - 1e-6), 1)
    affine = np.eye(4)
    affine[:3, :3] = grid.direction * np.asarray(spacing_mm)
    centre = grid.world((shape - 1) / 2)
    affine[:3, 3] = centre - affine[:3, :3] @ ((counts - 1) / 2)
    x, y, z = (int(n) for n in counts)
    return Grid((x, y, z), affine)


def axis_maps(source: Grid, target: Grid) -> tuple[tuple[int, float, float], ...]:
    """A triple (source axis, offset, step) per target axis: source index = offset + step * target index.

    Raises:
        InputRefused: the axes of the two grids are not parallel (reason ``not-parallel``).
    """
    matrix = np.linalg.inv(source.affine) @ target.affine
    maps = []
    for axis in range(3):
        column = matrix[:3, axis]
        row = int(np.argmax(np.abs(column)))
        stray = np.abs(np.delete(column, row)).max() * target.shape[axis]
        if stray > 1e-2:
            raise InputRefused(
                f"the axes of the grids are not parallel: {stray:.3g} voxels apart along axis {axis}",
                reason="not-parallel",
                remedy="resample one of them with a tool that supports rotation",
            )
        maps.append((row, float(matrix[row, 3]), float(column[row])))
    if sorted(m[0] for m in maps) != [0, 1, 2]:
        raise InputRefused("the axes of the grids are not parallel", reason="not-parallel")
    return tuple(maps)


def weights(
    n_in: int, n_out: int, *, offset: float, step: float, reach: float = np.inf, smooth: bool = True
) -> Array:
    """Interpolation matrix of one axis: float32 (n_out, n_in), whose rows sum to 1 (0 beyond ``reach``).

    Output voxel j lies at input position ``offset + step * j``; beyond the ends the outermost voxel is
    repeated. If voxels become smaller, this is linear interpolation. If they become larger and ``smooth``
    is set, the linear interpolant is averaged over a box of ``|step| - 1`` input voxels, so that every
    input voxel counts and noise is averaged rather than sampled: half the resolution is the mean of two
    voxels. In both cases linear fields are preserved exactly, so nothing is shifted.

    Args:
        n_in: Number of input voxels.
        n_out: Number of output voxels.
        offset: Input position of output voxel 0.
        step: Distance between output voxels, in input voxels; negative for a flip.
        reach: Output voxels more than this many input voxels outside the input are 0.
        smooth: Whether to average when voxels become larger.
    """
    position = np.round(offset + step * np.arange(n_out, dtype=np.float64), _DECIMALS)
    box = abs(step) - 1 if smooth else 0.0
    inside = np.clip(position, 0, n_in - 1)
    # Further outside than this, only the outermost voxel contributes.
    margin = int(np.ceil(max(box, 0.0) / 2)) + 2
    away = np.clip(position, -margin, n_in - 1 + margin)[:, None] - np.arange(-2 * margin, n_in + 2 * margin)
    if box > 1e-3:
        wide: npt.NDArray[np.float64] = (_hat_integral(away + box / 2) - _hat_integral(away - box / 2)) / box
    else:
        wide = np.maximum(0.0, 1.0 - np.abs(away))
    matrix = wide[:, 2 * margin : 2 * margin + n_in].copy()
    matrix[:, 0] += wide[:, : 2 * margin].sum(axis=1)
    matrix[:, -1] += wide[:, 2 * margin + n_in :].sum(axis=1)
    matrix[np.abs(position - inside) > reach] = 0.0
    return matrix.astype(np.float32)


def _hat_integral(end: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Integral of the hat function max(0, 1 - |u|) from minus infinity to ``end``."""
    end = np.clip(end, -1.0, 1.0)
    return np.where(end < 0, (1 + end) ** 2 / 2, 1 - (1 - end) ** 2 / 2)


def resample(values: npt.NDArray[Any], source: Grid, target: Grid) -> Array:
    """float32 (C, X, Y, Z) on ``target``, by linear interpolation, averaged where voxels get larger.

    Target voxels outside the source take the value of the nearest source voxel. The result is identical to
    the last bit whatever the order of axes in which the source is stored. Only a few slices at a time are
    converted to float32, so that hardly more memory is needed than for source and result; slabs of them share
    the threads of this process.

    Args:
        values: (C, X, Y, Z) on ``source``, of any type and with any strides.
        source: Grid of ``values``.
        target: Grid with parallel axes, in any order and direction.

    Raises:
        InputRefused: the axes of the two grids are not parallel (reason ``not-parallel``).
    """
    maps = axis_maps(source, target)
    rows = [row for row, _, _ in maps]
    flipped = [step < 0 for _, _, step in maps]
    across, down, through = (
        axis_weights(source.shape[row], n_out, offset, step)
        for (row, offset, step), n_out in zip(maps, target.shape, strict=True)
    )
    # x varies fastest, as in most files, which therefore need no transposition.
    stored = values.transpose(0, rows[2] + 1, rows[1] + 1, rows[0] + 1)
    stored = stored[:, *(slice(None, None, -1 if flipped[axis] else 1) for axis in (2, 1, 0))]
    depth = stored.shape[1]

    def slab(first: int) -> Array:
        """Slices from ``first`` on, resampled to the target's x and y: float32 (C, slices, Y, X)."""
        part = stored[:, first : first + _SLICES].astype(np.float32, order="C")
        if across is not None:  # one product for all slices is faster than one for each
            found = banded(across, part.reshape(1, -1, part.shape[3]).swapaxes(1, 2)).swapaxes(1, 2)
            part = found.reshape(*part.shape[:3], -1)
        return part if down is None else banded(down, part)

    done = np.empty((len(values), *target.shape), dtype=np.float32)
    slices = done.transpose(0, 3, 2, 1)
    if through is None:
        for first in range(0, depth, _SLICES):
            slices[:, first : first + _SLICES] = slab(first)
        return done
    # Source slices that each portion of target slices depends on, and the slabs that hold them.
    firsts = range(0, len(through), _SLICES)
    counts = [np.flatnonzero(through[first : first + _SLICES].any(axis=0)) for first in firsts]
    spans = [slice(int(each[0]), int(each[-1]) + 1) for each in counts]
    slabs = [range(span.start // _SLICES * _SLICES, span.stop, _SLICES) for span in spans]
    held: dict[int, Future[Array]] = {}
    with ThreadPoolExecutor(thread_count()) as threads:
        for number, (first, span) in enumerate(zip(firsts, spans, strict=True)):
            near = {start for needed in slabs[number : number + 2] for start in needed}
            held = {
                start: held[start] if start in held else threads.submit(slab, start) for start in sorted(near)
            }
            stack = np.concatenate([held[start].result() for start in slabs[number]], 1)
            stack = stack[:, span.start - slabs[number].start : span.stop - slabs[number].start]
            made = through[first : first + _SLICES, span] @ stack.reshape(*stack.shape[:2], -1)
            slices[:, first : first + _SLICES] = made.reshape(*made.shape[:2], *stack.shape[2:])
    return done


def banded(matrix: Array, values: Array) -> Array:
    """``matrix @ values`` over the second to last axis, without the products with the matrix's zeros.

    Each row of ``matrix`` has a few weights around the diagonal: blocks of rows need few columns. Sums of the
    same terms in the same order have the same bits.
    """
    made = np.empty((*values.shape[:-2], len(matrix), values.shape[-1]), dtype=np.float32)
    for first in range(0, len(matrix), _BAND):
        rows = matrix[first : first + _BAND]
        columns = np.flatnonzero(rows.any(axis=0))
        low, high = (int(columns[0]), int(columns[-1]) + 1) if len(columns) else (0, 1)
        part = np.ascontiguousarray(rows[:, low:high])
        np.matmul(part, values[..., low:high, :], out=made[..., first : first + _BAND, :])
    return made


def axis_weights(n_in: int, n_out: int, offset: float, step: float) -> Array | None:
    """The weights of an axis in the target's direction; None for the identity."""
    if step < 0:
        offset, step = n_in - 1 - offset, -step
    matrix = weights(n_in, n_out, offset=offset, step=step)
    return None if n_in == n_out and np.array_equal(matrix, np.eye(n_in)) else matrix
