"""Resampling to the scan's own grid: probabilities are interpolated, never labels.

Interpolating probabilities and deciding last keeps surfaces smooth and small structures whole: on a
phantom a 12 mm nodule keeps Dice .98, against .92 for nearest-neighbour labels.

Probabilities arrive a few planes at a time, as the sliding window completes them, and one tile of one label
is interpolated at a time: apart from the result, memory grows neither with the number of labels nor with
the length of the scan.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from medseg.images.grid import Grid
from medseg.images.run_length import Binary, Runs
from medseg.inference.device_labels import DEVICE_THICK, device_labels, device_planes, device_slabs
from medseg.inference.label_decision import LabelDecision, empty_label_map
from medseg.inference.restored_tile import Floats, Planes, Tile
from medseg.preprocessing.resampling import axis_maps, weights
from medseg.system.arrays import namespace

# Size of a tile in source voxels, small enough for the processor's cache.
_THICK, _WIDE = 16, 128


def label_map(
    planes: Planes, prepared: Grid, source: Grid, *, decision: LabelDecision
) -> npt.NDArray[np.uint8 | np.uint16]:
    """A label map (X, Y, Z) of exclusive labels: the value of the most probable one in each voxel.

    The background has the remaining probability and is 0 in the map. All voxels outside the prepared grid
    are background.

    Args:
        planes: Probabilities that add up to at most 1.
        prepared: Grid of the probabilities.
        source: The scan's grid, whose axes may be permuted or flipped.
        decision: The rule of exclusive labels, with their values in the map.
    """
    painted = empty_label_map(source.shape, decision.values)
    view = painted.transpose(_axes(prepared, source))
    value_of = np.array([0, *decision.values], dtype=painted.dtype)
    planes, on_device = device_planes(planes)
    if on_device:
        width, height = view.shape[2], view.shape[1]
        rows = _rows(_tiles(planes, prepared, source, on_device=True))
        for first, numbers in device_labels(rows, (height, width), decision):
            view[first : first + len(numbers)] = value_of[numbers]
        return painted
    for tile in _tiles(planes, prepared, source):
        numbers = tile.most_probable(decision)
        if numbers.any():
            view[tile.place] = value_of[numbers]
    return painted


def label_runs(planes: Planes, prepared: Grid, source: Grid, *, decision: LabelDecision) -> list[Runs]:
    """The mask of each label as runs, in the order of the probabilities.

    Args:
        planes: Probabilities.
        prepared: Grid of the probabilities.
        source: The scan's grid, whose axes may be permuted or flipped.
        decision: The rule by which restored probabilities become labels; exclusive ones as in
            :func:`label_map`.
    """
    order = _axes(prepared, source)
    pieces: list[list[Runs]] = [[] for _ in decision.values]
    width, height = source.shape[order[2]], source.shape[order[1]]
    planes, on_device = device_planes(planes)
    rows = _rows(_tiles(planes, prepared, source, on_device=on_device))
    if on_device:
        slabs = device_slabs(rows, (height, width), decision)
    else:
        slabs = (
            (start, *slab)
            for start, stop, tiles in rows
            for slab in _slabs(tiles, (stop - start, height, width), decision)
        )
    for start, number, slab in slabs:
        pieces[number].append(Runs.of_slab(slab, source.shape, order, start))
    return [Runs.together(each, source.shape, order) for each in pieces]


def _rows(tiles: Iterator[Tile]) -> Iterator[tuple[int, int, list[Tile]]]:
    """Start and stop of each row of tiles, and the tiles."""
    for rows, found in groupby(tiles, key=lambda tile: tile.place[0]):
        yield rows.start, rows.stop, list(found)


def _slabs(
    tiles: Sequence[Tile], shape: tuple[int, int, int], decision: LabelDecision
) -> Iterator[tuple[int, Binary]]:
    """The number, from 0, of each label present in a row of tiles, and its mask over all of them."""
    labels = len(decision.values)
    if decision.threshold is None:
        numbers = np.zeros(shape, dtype=np.int16)
        for tile in tiles:
            numbers[:, *tile.place[1:]] = tile.most_probable(decision)
        present = np.bincount(numbers.ravel(), minlength=labels + 1)[1:] > 0
        yield from (
            (number, np.asarray(numbers == number + 1)) for number in range(labels) if present[number]
        )
        return
    highest = [tile.upper() for tile in tiles]
    for number in range(labels):
        candidates = [
            tile for tile, most in zip(tiles, highest, strict=True) if most[number] >= decision.threshold
        ]
        if candidates:
            slab = np.zeros(shape, dtype=np.bool_)
            for tile in candidates:
                slab[:, *tile.place[1:]] = decision.reached(tile.interpolated(tile.stack[number]))
            yield number, slab


def restored(planes: Planes, prepared: Grid, source: Grid, *, labels: int) -> npt.NDArray[np.float32]:
    """Probabilities on the source grid, float32 (L, X, Y, Z), all in memory at once.

    Source voxels up to one prepared voxel outside the prepared grid take the value at its
    edge; farther out (outside the foreground crop) they are 0.

    Args:
        planes: Probabilities.
        prepared: Grid of the probabilities.
        source: The scan's grid, whose axes may be permuted or flipped.
        labels: Number of labels.
    """
    whole = np.zeros((labels, *source.shape), dtype=np.float32)
    axes = _axes(prepared, source)
    for tile in _tiles(planes, prepared, source):
        for label in range(labels):
            whole[label].transpose(axes)[tile.place] = tile.interpolated(tile.stack[label])
    return whole


def restored_planes(planes: Planes, prepared: Grid, target: Grid, thick: int) -> Iterator[tuple[int, Floats]]:
    """Probabilities on another grid in portions of planes along its third axis, as soon as they are final.

    The same values as :func:`restored`, up to rounding.

    Args:
        planes: Probabilities.
        prepared: Grid of the probabilities.
        target: A grid whose axes have the same directions and order.
        thick: Number of planes in a portion; the last one may have fewer.

    Yields:
        The number of the first plane, and float32 (L, X, Y, planes), 0 outside the prepared grid.
    """
    maps = axis_maps(prepared, target)
    x, y, z = (_Axis.of(prepared.shape[axis], target.shape[axis], *maps[axis][1:]) for axis in range(3))
    across = [(wide, *x.part(wide), high, *y.part(high)) for wide in x.blocks() for high in y.blocks()]
    waiting = [
        range(first, min(first + thick, target.shape[2])) for first in range(0, target.shape[2], thick)
    ]
    held: list[tuple[int, Floats]] = []
    labels = 0

    def portion(rows: range) -> Floats:
        found = np.zeros((labels, *target.shape[:2], len(rows)), dtype=np.float32)
        near = _near(z, rows)
        if not near:
            return found
        depth, weights_z = z.part(near)
        parts = [
            part[..., max(0, depth.start - at) : depth.stop - at] for at, part in held if at < depth.stop
        ]
        stack = np.concatenate(parts, -1)
        inside = slice(near.start - rows.start, near.stop - rows.start)
        for wide, width, weights_x, high, height, weights_y in across:
            for label in range(labels):
                values = stack[label, width, height] @ weights_z.T  # (X, Y, planes)
                values = np.matmul(weights_y, values)
                values = (weights_x @ values.reshape(len(values), -1)).reshape(len(wide), len(high), -1)
                found[label, wide.start : wide.stop, high.start : high.stop, inside] = values
        return found

    for first, values in planes:
        held.append((first, np.asarray(values)))
        labels, end = len(values), first + values.shape[-1]
        while waiting and _last(z, waiting[0]) < end:
            rows = waiting.pop(0)
            yield rows.start, portion(rows)
        needed = min((int(z.first[row]) for rows in waiting for row in _near(z, rows)), default=end)
        held = [(at, part) for at, part in held if at + part.shape[-1] > needed]
    for rows in waiting:
        yield rows.start, portion(rows)


def _near(axis: _Axis, rows: range) -> range:
    """Those of the rows that are near the prepared grid."""
    return range(max(rows.start, axis.within.start), min(rows.stop, axis.within.stop))


def _last(axis: _Axis, rows: range) -> int:
    """The last prepared voxel that these rows need; -1 if none."""
    return max((int(axis.last[row]) for row in _near(axis, rows)), default=-1)


@dataclass(frozen=True)
class _Axis:
    """Interpolation along one axis of the prepared grid.

    Attributes:
        matrix: float32 (source voxels, prepared voxels).
        first: For each source voxel, the first prepared voxel with a weight.
        last: For each source voxel, the last prepared voxel with a weight.
        within: The source voxels near the prepared grid; all others become 0.
    """

    matrix: Floats
    first: npt.NDArray[np.intp]
    last: npt.NDArray[np.intp]
    within: range

    @classmethod
    def of(cls, n_in: int, n_out: int, offset: float, step: float) -> _Axis:
        matrix = weights(n_in, n_out, offset=offset, step=step, reach=1.0, smooth=False)
        counts = matrix > 0
        rows = np.flatnonzero(counts.any(axis=1))
        within = range(rows[0], rows[-1] + 1) if len(rows) else range(0)
        return cls(matrix, counts.argmax(axis=1), n_in - 1 - counts[:, ::-1].argmax(axis=1), within)

    def part(self, rows: range) -> tuple[slice, Floats]:
        """The prepared voxels that these source voxels depend on, and the weights."""
        columns = slice(int(self.first[rows].min()), int(self.last[rows].max()) + 1)
        return columns, np.ascontiguousarray(self.matrix[rows.start : rows.stop, columns])

    def blocks(self, wide: int = _WIDE) -> list[range]:
        """The source voxels near the prepared grid, in blocks."""
        return [self.within[i : i + wide] for i in range(0, len(self.within), wide)]


def _axes(prepared: Grid, source: Grid) -> tuple[int, int, int]:
    """The source's axes along the third, second and first axis of the prepared grid."""
    rows = [row for row, _, _ in axis_maps(prepared, source)]
    return rows.index(2), rows.index(1), rows.index(0)


def _tiles(planes: Planes, prepared: Grid, source: Grid, *, on_device: bool = False) -> Iterator[Tile]:
    """Tiles of the source grid near the prepared one, each as soon as the planes it needs have arrived."""
    maps = axis_maps(prepared, source)
    z, y, x = (
        _Axis.of(prepared.shape[maps[axis][0]], source.shape[axis], maps[axis][1], maps[axis][2])
        for axis in _axes(prepared, source)
    )
    thick_most, wide_most = (DEVICE_THICK, max(source.shape)) if on_device else (_THICK, _WIDE)
    across = [
        (high, *y.part(high), wide, *x.part(wide))
        for high in y.blocks(wide_most)
        for wide in x.blocks(wide_most)
    ]
    # In the order in which planes arrive, which is backwards if the axis is flipped.
    rows = list(z.within)
    if rows and z.last[rows[0]] > z.last[rows[-1]]:
        rows.reverse()
    # The same tiles however the planes arrive: matrix products of another size may differ in the last bit.
    waiting = [rows[start : start + thick_most] for start in range(0, len(rows), thick_most)]
    held: list[tuple[int, Floats]] = []
    for first, values in planes:
        held.append((first, (values if on_device else np.asarray(values)).swapaxes(1, 3)))
        end = first + values.shape[-1]
        while waiting and max(z.last[row] for row in waiting[0]) < end:
            thick = waiting.pop(0)
            lowest, highest = min(thick), max(thick)
            depth, z_weights = z.part(range(lowest, highest + 1))
            parts = [
                part[:, max(0, depth.start - start) : depth.stop - start]
                for start, part in held
                if start < depth.stop
            ]
            stack = namespace(parts[0]).concat(parts, 1)
            for high, height, y_weights, wide, width, x_weights in across:
                yield Tile(
                    (
                        slice(lowest, highest + 1),
                        slice(high.start, high.stop),
                        slice(wide.start, wide.stop),
                    ),
                    stack[:, :, height, width],
                    (z_weights, y_weights, x_weights),
                )
        needed = min(int(z.first[row]) for row in waiting[0]) if waiting else end
        held = [(start, part) for start, part in held if start + part.shape[1] > needed]
