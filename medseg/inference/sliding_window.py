"""Sliding-window inference: a network trained on patches, applied to a whole prepared scan.

The scan is a numpy array, or a torch tensor on any device; the network is given windows of the same kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice, product
from typing import TYPE_CHECKING, Generic

import numpy as np
import numpy.typing as npt

from medseg.inference.window_gathering import Box, Level, gathered, levels
from medseg.inference.window_runner import WindowRunner, out_of_memory_errors, tell_out_of_memory
from medseg.recipe import Patch, Predict
from medseg.system.arrays import Array, namespace
from medseg.system.progress import show_step

if TYPE_CHECKING:
    import torch

# Slices of a 2D network are yielded at least this many at a time; portions of any network have at most this
# many bytes.
_FEWEST_PLANES = 16
_BYTES_AT_ONCE = 2**22


def starts(length: int, window: int, overlap: float) -> tuple[int, ...]:
    """Start positions of windows along an axis: evenly spaced, covering it, with at least this overlap.

    Args:
        length: Length of the axis in voxels, at least ``window``.
        window: Length of a window in voxels.
        overlap: Smallest share of a window that its neighbour covers, in 0..0.9.
    """
    if length <= window:
        return (0,)
    step = max(1, int(window * (1 - overlap)))
    count = -(-(length - window) // step) + 1
    # Evenly spaced instead of pushing back the last window: the same cost, more overlap everywhere.
    return tuple(round(i * (length - window) / (count - 1)) for i in range(count))


def importance(window: Sequence[int]) -> npt.NDArray[np.float32]:
    """Weight of each voxel of a window, float32: a Gaussian, 1 at the centre and at least 1e-3.

    Its standard deviation is an eighth of the window, as in nnU-Net: predictions near the
    border of a window see less context and count less.
    """
    weight = np.ones((), dtype=np.float32)
    for n in window:
        at = np.arange(n, dtype=np.float32) - (n - 1) / 2
        weight = weight[..., None] * np.exp(-0.5 * (at / (n / 8)) ** 2)
    return np.maximum(weight, np.float32(1e-3))


def logits(
    image: Array,
    network: Callable[[Array], Array],
    *,
    labels: int,
    patch: Patch,
    predict: Predict,
    divisor: int = 1,
) -> Array:
    """Logits of a whole scan, float32 (labels, X, Y, Z); arguments as in :func:`planes`."""
    whole = _filled(image, (labels, *image.shape[1:]))
    found = planes(image, network, labels=labels, patch=patch, predict=predict, divisor=divisor)
    for first, values in found:
        whole[..., first : first + values.shape[-1]] = values
    return whole


def planes(
    image: Array,
    network: Callable[[Array], Array],
    *,
    labels: int,
    patch: Patch,
    predict: Predict,
    divisor: int = 1,
    device: torch.device | None = None,
) -> Iterator[tuple[int, Array]]:
    """Logits of a scan, windows averaged with Gaussian weights; each plane as soon as it is final.

    Scans smaller than a window are padded with their smallest value (air, background). Only as many
    planes are held as a window is deep. All constant windows of one value, such as padding and air, share
    one result of the network.

    If a GPU runs out of memory, fewer windows are run at once, and after that the scan is held in main
    memory, each with a notice.

    Args:
        image: float32 (C, X, Y, Z), prepared.
        network: Maps (N, in_channels, *window) to (N, labels, *window).
        labels: Number of output channels of the network.
        patch: Window size, and number of neighbouring slices of a 2D network.
        predict: Overlap, window batch, and whether a window is a whole plane.
        divisor: The sides of a whole-plane window are rounded up to multiples of this.
        device: Device to hold the image and the planes if they fit, for a tensor; the image's device if
            None.

    Yields:
        The number of the first plane along the third axis, and float32 (labels, X, Y, planes).
    """
    flat = len(patch.size) == 2
    if predict.whole_planes:
        wide, deep = (-(-n // divisor) * divisor for n in image.shape[1:3])
        patch = patch.model_copy(update={"size": (wide, deep)})
    window = (*patch.size, 1) if flat else patch.size
    inner = _inner(image, window)
    padded: Array = _padded(image, window, inner)
    shape = (*padded.shape[1:3], min(padded.shape[3], max(window[2], _FEWEST_PLANES)))
    weight = importance(window)
    try:
        sums = _Sums(_moved(padded, device or padded.device), inner, labels, shape, weight)
    except out_of_memory_errors():
        tell_out_of_memory("the scan is held in main memory")
        sums = _Sums(padded, inner, labels, shape, weight)

    def gather(boxes: Sequence[Box]) -> Array:
        return gathered(sums.image, boxes, patch.neighbours, flat=flat)

    runner = WindowRunner(_without_gradients(network, image), gather, predict.window_batch)

    def run(boxes: list[Box], values: list[Level]) -> list[Array]:
        try:
            return runner.run(boxes, values)
        except out_of_memory_errors():
            if str(sums.image.device) == "cpu":
                raise
            tell_out_of_memory("the scan is held in main memory")
            sums.to("cpu")
            return runner.run(boxes, values)

    def compared(boxes: Sequence[Box]) -> Iterator[Level]:
        try:
            yield from levels(sums.image, boxes, patch.neighbours, flat=flat)
        except out_of_memory_errors():
            tell_out_of_memory("windows are compared in main memory")
            yield from levels(padded, boxes, patch.neighbours, flat=flat)

    boxes = list(_boxes(padded.shape[1:], window, predict.overlap))
    constant = compared(boxes)
    for first in range(0, len(boxes), predict.window_batch):
        waiting = boxes[first : first + predict.window_batch]
        for place, out in zip(waiting, run(waiting, list(islice(constant, len(waiting)))), strict=True):
            yield from sums.before(place)
            sums.add(place, out[..., None] if flat else out)
        show_step(first + len(waiting), len(boxes), "windows")
    yield from sums.rest()


class _Sums(Generic[Array]):
    """The scan, with sums of weighted logits and of weights for as many planes as a window is deep."""

    def __init__(
        self,
        image: Array,
        inner: Box,
        labels: int,
        shape: Sequence[int],
        weight: npt.NDArray[np.float32],
    ) -> None:
        self.image: Array = image
        self.inner, self.depth, self.base = inner, shape[2], 0
        self.total: Array = _filled(image, (labels, *shape), 0)
        self.weights: Array = _filled(image, shape, 0)
        self.weight: Array = namespace(image).asarray(weight, device=image.device)
        self.most = max(1, _BYTES_AT_ONCE // (4 * labels * shape[0] * shape[1]))

    def to(self, device: torch.device | str) -> None:
        """Moves all tensors to a device."""
        self.image, self.total = _moved(self.image, device), _moved(self.total, device)
        self.weights, self.weight = _moved(self.weights, device), _moved(self.weight, device)

    def add(self, box: Box, out: Array) -> None:
        """Adds a window's logits (labels, ...)."""
        x, y, z = box[0], box[1], slice(box[2].start - self.base, box[2].stop - self.base)
        self.total[:, x, y, z] += self.weight * _moved(out, self.total.device)
        self.weights[x, y, z] += self.weight

    def before(self, box: Box) -> Iterator[tuple[int, Array]]:
        """The planes that must make room for this window; they are final because windows come in order."""
        if box[2].stop > self.base + self.depth:
            yield from self._complete(box[2].start)
            _advance(self.total, box[2].start - self.base)
            _advance(self.weights[None], box[2].start - self.base)
            self.base = box[2].start

    def rest(self) -> Iterator[tuple[int, Array]]:
        """The remaining planes."""
        yield from self._complete(self.image.shape[3])

    def _complete(self, stop: int) -> Iterator[tuple[int, Array]]:
        """The planes from ``base`` to ``stop``, without the padding."""
        x, y, z = self.inner
        low, high = max(self.base, z.start), min(stop, z.stop)
        for first in range(low, high, self.most):
            part = slice(first - self.base, min(first + self.most, high) - self.base)
            values = self.total[..., part] / self.weights[..., part]
            yield first - z.start, values[:, x, y]


def _advance(values: Array, planes: int) -> None:
    """Shifts (C, X, Y, Z) towards the start by so many planes, in place, and fills up with zeros."""
    kept = max(0, values.shape[-1] - planes)
    for channel in values:
        channel[..., :kept] = namespace(values).asarray(channel[..., planes:], copy=True)
        channel[..., kept:] = 0


def _filled(like: Array, shape: Sequence[int], value: float | None = None) -> Array:
    """An array of the kind, type and device of another, filled with a value or, if None, with anything."""
    math = namespace(like)
    made: Array = math.empty(tuple(shape), dtype=like.dtype, device=like.device)
    if value is not None:
        made[...] = value
    return made


def _moved(values: Array, device: torch.device | str) -> Array:
    """Values on a device; they are not copied if they are there, as arrays always are."""
    return values if isinstance(values, np.ndarray) else values.to(device)


def _without_gradients(network: Callable[[Array], Array], image: Array) -> Callable[[Array], Array]:
    if isinstance(image, np.ndarray):
        return network
    wrapped: Callable[[Array], Array] = namespace(image).inference_mode()(network)
    return wrapped


def _boxes(shape: Sequence[int], window: Sequence[int], overlap: float) -> Iterator[Box]:
    places = [starts(n, w, overlap) for n, w in zip(shape, window, strict=True)]
    for z, x, y in product(places[2], places[0], places[1]):
        yield slice(x, x + window[0]), slice(y, y + window[1]), slice(z, z + window[2])


def _inner(image: Array, window: Sequence[int]) -> Box:
    """The box of the image within the image padded to at least a window."""
    x, y, z = (
        slice(before := max(0, w - n) // 2, before + n) for n, w in zip(image.shape[1:], window, strict=True)
    )
    return x, y, z


def _padded(image: Array, window: Sequence[int], inner: Box) -> Array:
    """The image padded to at least a window, each channel with its smallest value."""
    sides: list[int] = [max(n, w) for n, w in zip(image.shape[1:], window, strict=True)]
    if sides == list(image.shape[1:]):
        return image
    padded = _filled(image, (len(image), *sides))
    for channel, values in zip(padded, image, strict=True):
        channel[...] = float(values.min())
        channel[inner] = values
    return padded
