"""From logits on a network's grid to labels on the scan's, a tile at a time.

nnU-Net resamples the logits of all classes to the scan and keeps them as 16-bit floats before it decides.
Here one class of one tile is resampled and rounded at a time, and a class whose largest logit in a tile
cannot win anywhere is left out: linear interpolation never exceeds its inputs. Apart from the planes that
tiles are made of, memory does not grow with the number of classes.

Logits that are torch tensors are resampled and compared on their device, in tiles as wide as the scan.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from medseg.inference.device_transfer import on_cpu
from medseg.inference.nnunet.half_precision import round_to_half
from medseg.preprocessing.nnunet import Frame
from medseg.preprocessing.spline_resizing import Axis, axis_weights, separate_axis
from medseg.recipe.pipeline import Configuration
from medseg.system.arrays import namespace

Floats: TypeAlias = npt.NDArray[np.float32]
Halves: TypeAlias = npt.NDArray[np.float16]
Box: TypeAlias = tuple[slice, slice, slice]
Heads: TypeAlias = npt.NDArray[np.bool_]
Block: TypeAlias = tuple[slice, slice, npt.NDArray[np.float64]]
Planes: TypeAlias = Iterable[tuple[int, Halves]]
"""Portions of a network's grid along its first axis: the number of the first plane, and logits float16
(heads, planes, B, C). They come in order and without gaps."""

_THICK, _WIDE = 16, 128
_DEVICE_WIDE = 1024

SURE = 2.0**-23
"""The smallest 16-bit logit whose sigmoid is above one half in single precision; that of the only smaller
positive one, 2**-24, is rounded to one half (checked for all 16-bit numbers)."""


@dataclass(frozen=True)
class Tile:
    """A box of the cropped scan, with the logits that it is interpolated from.

    Attributes:
        place: Its position in the cropped scan, axes as the network's.
        stack: Logits (heads, A, B, C) around it, rounded to 16 bits: an array float32, or a tensor float16.
        weights: Interpolation weights along each axis, (new, old) float32, of the stack's kind; None leaves
            the axis as it is.
    """

    place: Box
    stack: Any
    weights: tuple[Any, Any, Any]

    @property
    def on_device(self) -> bool:
        """Whether the logits are tensors."""
        return not isinstance(self.stack, np.ndarray)

    def logits(self, head: int) -> Any:
        """Interpolated logits of one class, rounded to 16 bits and then float32."""
        values = _single_precision(self.stack[head])
        a, b, c = self.weights
        if a is None and b is None and c is None:
            return values
        if a is not None:
            values = (a @ values.reshape(len(values), -1)).reshape(len(a), *values.shape[1:])
        if b is not None:
            values = b @ values
        if c is not None:
            values = (values.reshape(-1, values.shape[2]) @ c.T).reshape(*values.shape[:2], len(c))
        if self.on_device:
            return values.half().float()
        round_to_half(values)
        return values

    def winners(self, wanted: Heads | None = None) -> npt.NDArray[np.int16]:
        """The class with the largest logit in each voxel, the first of equal ones; 0 is the background.

        Args:
            wanted: Whether each class is wanted; None: all are. A voxel of any other class gets one of the
                others, as soon as it is known that it belongs to no class that is wanted.
        """
        most = self.stack.max(axis=(1, 2, 3))
        ranked = np.argsort(-most, kind="stable")
        if wanted is not None:
            ranked = np.concatenate([ranked[wanted[ranked]], ranked[~wanted[ranked]]])
        largest = self.logits(int(ranked[0]))
        best = np.full(largest.shape, ranked[0], dtype=np.int16)
        for head in ranked[1:]:
            rivals = largest if wanted is None or wanted[head] else largest[wanted[best]]
            if not rivals.size or most[head] < rivals.min():
                if wanted is None or not wanted[head]:
                    break
                continue
            values = self.logits(int(head))
            better = (values > largest) | ((values == largest) & (head < best))
            best[better] = head
            np.maximum(largest, values, out=largest)
        return best

    def device_winners(self) -> Any:
        """The same as a tensor, without waiting for the device: uint8, or int16 for many classes."""
        heads, largest = len(self.stack), self.logits(0)
        torch = namespace(largest)
        best = torch.zeros_like(largest, dtype=torch.uint8 if heads <= 256 else torch.int16)
        for head in range(1, heads):
            values = self.logits(head)
            best.masked_fill_(values > largest, head)
            largest = torch.maximum(largest, values)
        return best

    def probabilities(self) -> Any:
        """Softmax of the interpolated logits, float32 (heads, A, B, C)."""
        return softmax(self._every_head())

    def sigmoids(self) -> Floats:
        """Sigmoid of the interpolated logits, float32 (heads, A, B, C), in main memory."""
        values = self._every_head()
        if self.on_device:
            return cast(Floats, values.sigmoid().cpu().numpy())
        small = np.exp(-np.abs(values))  # never overflows
        return cast(Floats, np.where(values >= 0, 1, small) / (1 + small))

    def _every_head(self) -> Any:
        values = [self.logits(head) for head in range(len(self.stack))]
        return namespace(values[0]).stack(values)

    def regions(self, first: int = 0) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
        """Of each region that may be present: its number, and where its sigmoid is above one half.

        Args:
            first: The first region that is looked at.
        """
        for head, most in enumerate(namespace(self.stack).amax(self.stack, (1, 2, 3)).tolist()):
            if head >= first and most >= SURE:
                inside = self.logits(head) >= SURE
                yield head, inside.cpu().numpy() if self.on_device else inside


def softmax(logits: Any) -> Any:
    """Softmax along the first axis, computed in place for an array."""
    if not isinstance(logits, np.ndarray):
        return logits.softmax(0)
    if logits.size:
        logits -= logits.max(axis=0)
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=0)
    return logits


def source_box(place: Frame, rules: Configuration, part: Box) -> Box:
    """The box of the network's grid that the tiles of a part of the cropped scan are interpolated from."""
    a, b, c = (
        slice(blocks[0][1].start, blocks[-1][1].stop)
        for blocks in (_blocks(axis, wanted) for axis, wanted in zip(_axes(place, rules), part, strict=True))
    )
    return a, b, c


def tiles(planes: Planes, place: Frame, rules: Configuration, part: Box | None = None) -> Iterator[Tile]:
    """Tiles of the cropped scan, each as soon as the planes it needs have arrived.

    Args:
        planes: Logits on the network's grid, or in the :func:`source_box` of a part.
        place: Where the network's grid lies in the scan.
        rules: Order of the interpolation.
        part: The box of the cropped scan whose tiles are wanted, for logits in main memory; None: all.
    """
    arriving = iter(planes)
    begun = next(arriving)
    arriving = chain([begun], arriving)
    math, device = namespace(begun[1]), begun[1].device
    del begun
    a, b, c = _axes(place, rules, _WIDE if math is np else _DEVICE_WIDE)
    layers, lines, columns = (
        _blocks(axis, None if part is None else part[number]) for number, axis in enumerate((a, b, c))
    )
    # Logits of a part begin with the first voxel that its tiles need, those of the whole scan with 0.
    above, left = (0, 0) if part is None else (lines[0][1].start, columns[0][1].start)
    same = place.shape == place.cropped
    held: list[tuple[int, Halves]] = []
    end = 0
    for rows, old, along in layers:
        while end < old.stop:
            first, values = next(arriving)
            held.append((first, values))
            end = first + values.shape[1]
        held = [(first, values) for first, values in held if first + values.shape[1] > old.start]
        parts = [values[:, max(0, old.start - first) : old.stop - first] for first, values in held]
        stack = parts[0] if len(parts) == 1 else math.concat(parts, 1)
        for high, height, down in lines:
            for across, width, right in columns:
                around = stack[:, :, _behind(height, above), _behind(width, left)]
                used = (
                    None if same or axis.n_in == axis.n_out else weights.astype(np.float32)
                    for axis, weights in ((a, along), (b, down), (c, right))
                )
                x, y, z = (each if each is None else math.asarray(each, device=device) for each in used)
                yield Tile(
                    (rows, high, across), _single_precision(around) if math is np else around, (x, y, z)
                )
    for _ in arriving:
        pass


def _axes(place: Frame, rules: Configuration, wide: int = _WIDE) -> tuple[Axis, Axis, Axis]:
    """The weights along each axis, in blocks of a tile's size."""
    lead = separate_axis(place.input_mm, place.stored_mm)
    a, b, c = (
        axis_weights(n_in, n_out, rules.logits_order_z if axis == lead else rules.logits_order, rows)
        for axis, (n_in, n_out, rows) in enumerate(
            zip(place.shape, place.cropped, (_THICK, wide, wide), strict=True)
        )
    )
    return a, b, c


def _blocks(axis: Axis, wanted: slice | None) -> Sequence[Block]:
    """The blocks of an axis that meet a stretch of new voxels; all if it is None."""
    if wanted is None:
        return axis.blocks
    return [block for block in axis.blocks if block[0].start < wanted.stop and wanted.start < block[0].stop]


def _behind(old: slice, first: int) -> slice:
    """A stretch of voxels, counted from ``first``."""
    return slice(old.start - first, old.stop - first)


def _single_precision(values: Any) -> Any:
    return values.astype(np.float32) if isinstance(values, np.ndarray) else values.float()


def _numbers(
    tiles: Iterable[Tile], wanted: Heads | None
) -> Iterator[tuple[Box, npt.NDArray[np.integer[Any]]]]:
    """The place of each tile and the classes of its voxels; a device goes on while the last ones are used."""
    places: deque[Box] = deque()

    def queued(some: Iterable[Tile]) -> Iterator[tuple[int, Any]]:
        for tile in some:
            places.append(tile.place)
            yield 0, tile.device_winners()

    rest = iter(tiles)
    for tile in rest:
        if tile.on_device:
            for _, numbers in on_cpu(queued(chain([tile], rest))):
                yield places.popleft(), cast(Any, numbers)
        else:
            yield tile.place, tile.winners(wanted)


def paint_classes(
    tiles: Iterable[Tile],
    painted: npt.NDArray[np.uint8 | np.uint16],
    values: npt.NDArray[np.int64],
    wanted: Heads | None = None,
) -> None:
    """Paints the class of each voxel where it is not the background.

    Args:
        tiles: Tiles of the cropped scan.
        painted: The cropped scan's label map, changed in place.
        values: The value of each class in the label map, 0 for the background.
        wanted: Whether each class is wanted; None: all are. Others are painted with 0.
    """
    if wanted is not None:
        values = np.where(wanted, values, 0)
    for place, classes in _numbers(tiles, wanted):
        inside = classes != 0
        if inside.any():
            np.copyto(painted[place], values[classes], where=inside, casting="unsafe")


def paint_regions(
    tiles: Iterable[Tile],
    painted: npt.NDArray[np.uint8 | np.uint16],
    values: npt.NDArray[np.int64],
    wanted: Heads | None = None,
) -> None:
    """Paints regions in their order; a later one covers an earlier one. Arguments as :func:`paint_classes`.

    Regions have no background: ``values`` begins with the first region. Those before the first one that is
    wanted are left out.
    """
    first = 0 if wanted is None else int(wanted.argmax())
    for tile in tiles:
        part = painted[tile.place]
        for head, inside in tile.regions(first):
            part[inside] = values[head]


def paint_mean(
    several: Iterable[tuple[Tile, ...]],
    painted: npt.NDArray[np.uint8 | np.uint16],
    values: npt.NDArray[np.int64],
    seen: Callable[[Box, Any], None] = lambda *_: None,
) -> None:
    """Paints the class with the largest mean probability of several configurations.

    Args:
        several: The same tile of each configuration.
        painted: As in :func:`paint_classes`.
        values: As in :func:`paint_classes`.
        seen: Called with the place and the mean probabilities (heads, A, B, C) of each tile.
    """
    for group in several:
        total = group[0].probabilities()
        for tile in group[1:]:
            more = tile.probabilities()
            total += more if isinstance(more, np.ndarray) else more.to(total.device)
        total /= len(group)
        seen(group[0].place, total)
        best = total.argmax(0)
        numbers = best if isinstance(best, np.ndarray) else best.cpu().numpy()
        np.copyto(painted[group[0].place], values[numbers], casting="unsafe")
