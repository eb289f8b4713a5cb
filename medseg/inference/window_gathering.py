"""Windows of a prepared scan: cut out in batches, and compared with a constant.

The scan is a numpy array, or a torch tensor on any device. On a GPU, a batch of windows is one indexed copy,
and all windows are compared before the first one is run, so that the processor waits for the GPU only once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from medseg.system.arrays import Array, namespace

if TYPE_CHECKING:
    import torch

Box: TypeAlias = tuple[slice, slice, slice]
"""The place of a window in a scan (X, Y, Z); that of a 2D window is one plane deep."""

Level: TypeAlias = tuple[float, ...] | None
"""The value of each channel of a constant window; None if any channel varies."""

# Windows that are compared at once.
_BYTES_AT_ONCE = 2**28


def stacked_slices(image: Array, z: int, neighbours: int) -> Array:
    """2D input of slice ``z``: (C * (2n + 1), X, Y) from (C, X, Y, Z), lowest slice first.

    The first and the last slice are repeated beyond the ends.
    """
    depth = image.shape[-1]
    at = [min(max(z + k, 0), depth - 1) for k in range(-neighbours, neighbours + 1)]
    stacked: Array = namespace(image).concat([image[..., i] for i in at])
    return stacked


def gathered(image: Array, boxes: Sequence[Box], neighbours: int, *, flat: bool) -> Array:
    """Windows (N, channels, ...) of a scan.

    Args:
        image: (C, X, Y, Z).
        boxes: Their places, all of one size.
        neighbours: Number of slices on either side that are channels of a 2D window.
        flat: Whether windows are 2D; then they have no third axis, and see :func:`stacked_slices`.
    """
    if isinstance(image, np.ndarray):
        return np.stack([_window(image, box, neighbours, flat=flat) for box in boxes])
    x, y = (_along(image, boxes, axis) for axis in (0, 1))
    if flat:
        z = _along(image, boxes, 2, range(-neighbours, neighbours + 1)).clamp(0, image.shape[3] - 1)
    else:
        z = _along(image, boxes, 2)
    windows = image[:, x[:, :, None, None], y[:, None, :, None], z[:, None, None, :]]
    if not flat:
        return windows.movedim(0, 1)
    return windows.permute(1, 4, 0, 2, 3).flatten(1, 2)


def levels(image: Array, boxes: Sequence[Box], neighbours: int, *, flat: bool) -> Iterator[Level]:
    """The values of each window that is constant, and None for the others; arguments as in :func:`gathered`.

    Those of an array are compared when they are asked for, those of a tensor all before the first.
    """
    if isinstance(image, np.ndarray):
        yield from (_level(_window(image, box, neighbours, flat=flat)) for box in boxes)
        return
    size = 4 * len(image) * (2 * neighbours + 1)
    for side in boxes[0]:
        size *= side.stop - side.start
    at_once = max(1, _BYTES_AT_ONCE // size)
    math = namespace(image)
    found = []
    for first in range(0, len(boxes), at_once):
        windows = gathered(image, boxes[first : first + at_once], neighbours, flat=flat).flatten(2)
        found.append(math.stack([windows.amin(2), windows.amax(2)]))
    low, high = math.concat(found, 1).tolist()
    for least, most in zip(low, high, strict=True):
        yield tuple(least) if least == most else None


def _window(image: Array, box: Box, neighbours: int, *, flat: bool) -> Array:
    x, y, z = box
    return stacked_slices(image[:, x, y], z.start, neighbours) if flat else image[:, x, y, z]


def _level(window: Array) -> Level:
    axes = tuple(range(1, window.ndim))
    math = namespace(window)
    low, high = math.amin(window, axes).tolist(), math.amax(window, axes).tolist()
    return tuple(low) if low == high else None


def _along(image: torch.Tensor, boxes: Sequence[Box], axis: int, steps: range | None = None) -> torch.Tensor:
    """Indices (N, n) of windows along an axis."""
    if steps is None:
        steps = range(boxes[0][axis].stop - boxes[0][axis].start)
    rows = [[box[axis].start + step for step in steps] for box in boxes]
    made: torch.Tensor = namespace(image).tensor(rows)
    return made.to(image.device, non_blocking=True)
