"""From logits on a network's grid to labels on the scan's, a tile at a time.

nnU-Net resamples the logits of all classes to the scan and keeps them as 16-bit floats before it decides.
Here one class of one tile is resampled and rounded at a time, and a class whose largest logit in a tile
cannot win anywhere is left out: linear interpolation never exceeds its inputs. Apart from the planes that
tiles are made of, memory does not grow with the number of classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from medseg.preprocessing.nnunet import Frame
from medseg.preprocessing.spline_resizing import Axis, axis_weights, separate_axis
from medseg.recipe.pipeline import Configuration

Floats: TypeAlias = npt.NDArray[np.float32]
Halves: TypeAlias = npt.NDArray[np.float16]
Box: TypeAlias = tuple[slice, slice, slice]
Planes: TypeAlias = Iterable[tuple[int, Halves]]
"""Portions of a network's grid along its first axis: the number of the first plane, and logits float16
(heads, planes, B, C). They come in order and without gaps."""

_THICK, _WIDE = 16, 128

SURE = 2.0**-23
"""The smallest 16-bit logit whose sigmoid is above one half in single precision; that of the only smaller
positive one, 2**-24, is rounded to one half (checked for all 16-bit numbers)."""


@dataclass(frozen=True)
class Tile:
    """A box of the cropped scan, with the logits that it is interpolated from.

    Attributes:
        place: Its position in the cropped scan, axes as the network's.
        stack: Logits float32 (heads, A, B, C) around it, rounded to 16 bits.
        weights: Interpolation weights along each axis, (new, old) float32; None leaves the axis as it is.
    """

    place: Box
    stack: Floats
    weights: tuple[Floats | None, Floats | None, Floats | None]

    def logits(self, head: int) -> Floats:
        """Interpolated logits of one class, rounded to 16 bits."""
        values: Floats = self.stack[head]
        a, b, c = self.weights
        if a is None and b is None and c is None:
            return values
        if a is not None:
            values = (a @ values.reshape(len(values), -1)).reshape(len(a), *values.shape[1:])
        if b is not None:
            values = np.matmul(b, values)
        if c is not None:
            values = (values.reshape(-1, values.shape[2]) @ c.T).reshape(*values.shape[:2], len(c))
        rounded: Floats = values.astype(np.float16).astype(np.float32)
        return rounded

    def winners(self) -> npt.NDArray[np.int16]:
        """The class with the largest logit in each voxel, the first of equal ones; 0 is the background."""
        most = self.stack.max(axis=(1, 2, 3))
        ranked = np.argsort(-most, kind="stable")
        largest = self.logits(int(ranked[0]))
        best = np.full(largest.shape, ranked[0], dtype=np.int16)
        floor = float(largest.min())
        for head in ranked[1:]:
            if most[head] < floor:
                break
            values = self.logits(int(head))
            better = (values > largest) | ((values == largest) & (head < best))
            best[better] = head
            np.maximum(largest, values, out=largest)
            floor = float(largest.min())
        return best

    def probabilities(self) -> Floats:
        """Softmax of the interpolated logits, float32 (heads, A, B, C)."""
        return softmax(np.stack([self.logits(head) for head in range(len(self.stack))]))

    def sigmoids(self) -> Floats:
        """Sigmoid of the interpolated logits, float32 (heads, A, B, C)."""
        values = np.stack([self.logits(head) for head in range(len(self.stack))])
        small = np.exp(-np.abs(values))  # never overflows
        found: Floats = np.where(values >= 0, 1, small) / (1 + small)
        return found

    def regions(self) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
        """Of each region that may be present: its number, and where its sigmoid is above one half."""
        for head, most in enumerate(self.stack.max(axis=(1, 2, 3))):
            if most >= SURE:
                yield head, self.logits(head) >= SURE


def softmax(logits: Floats) -> Floats:
    """Softmax along the first axis, computed in place."""
    if logits.size:
        logits -= logits.max(axis=0)
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=0)
    return logits


def tiles(planes: Planes, place: Frame, rules: Configuration) -> Iterator[Tile]:
    """Tiles of the cropped scan, each as soon as the planes it needs have arrived.

    Args:
        planes: Logits on the network's grid.
        place: Where the network's grid lies in the scan.
        rules: Order of the interpolation.
    """
    lead = separate_axis(place.input_mm, place.stored_mm)
    a, b, c = (
        _weights(n_in, n_out, rules.logits_order_z if axis == lead else rules.logits_order, thick)
        for axis, (n_in, n_out, thick) in enumerate(
            zip(place.shape, place.cropped, (_THICK, _WIDE, _WIDE), strict=True)
        )
    )
    same = place.shape == place.cropped
    held: list[tuple[int, Halves]] = []
    arriving = iter(planes)
    end = 0
    for rows, old, along in a.blocks:
        while end < old.stop:
            first, values = next(arriving)
            held.append((first, values))
            end = first + values.shape[1]
        held = [(first, values) for first, values in held if first + values.shape[1] > old.start]
        parts = [values[:, max(0, old.start - first) : old.stop - first] for first, values in held]
        stack = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        for high, height, down in b.blocks:
            for wide, width, right in c.blocks:
                yield Tile(
                    (rows, high, wide),
                    stack[:, :, height, width].astype(np.float32),
                    (
                        _single(along, same or a.n_in == a.n_out),
                        _single(down, same or b.n_in == b.n_out),
                        _single(right, same or c.n_in == c.n_out),
                    ),
                )
    for _ in arriving:
        pass


def _weights(n_in: int, n_out: int, order: int, rows: int) -> Axis:
    return axis_weights(n_in, n_out, order, rows)


def _single(weights: npt.NDArray[np.float64], same: bool) -> Floats | None:
    return None if same else weights.astype(np.float32)


def paint_classes(
    tiles: Iterable[Tile], painted: npt.NDArray[np.uint8 | np.uint16], values: npt.NDArray[np.int64]
) -> None:
    """Paints the class of each voxel where it is not the background.

    Args:
        tiles: Tiles of the cropped scan.
        painted: The cropped scan's label map, changed in place.
        values: The value of each class in the label map, 0 for the background.
    """
    for tile in tiles:
        numbers = values[tile.winners()]
        inside = numbers != 0
        if inside.any():
            np.copyto(painted[tile.place], numbers, where=inside, casting="unsafe")


def paint_regions(
    tiles: Iterable[Tile], painted: npt.NDArray[np.uint8 | np.uint16], values: npt.NDArray[np.int64]
) -> None:
    """Paints regions in their order; a later one covers an earlier one. Arguments as :func:`paint_classes`.

    Regions have no background: ``values`` begins with the first region.
    """
    for tile in tiles:
        part = painted[tile.place]
        for head, inside in tile.regions():
            part[inside] = values[head]


def paint_mean(
    several: Iterable[tuple[Tile, ...]],
    painted: npt.NDArray[np.uint8 | np.uint16],
    values: npt.NDArray[np.int64],
    seen: Callable[[Box, Floats], None] = lambda *_: None,
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
            total += tile.probabilities()
        total /= np.float32(len(group))
        seen(group[0].place, total)
        np.copyto(painted[group[0].place], values[total.argmax(axis=0)], casting="unsafe")
