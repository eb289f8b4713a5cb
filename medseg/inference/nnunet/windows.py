"""The sliding window of nnU-Net v2, with its steps, its Gaussian, and its sums in half precision.

nnU-Net keeps sums of weighted logits as 16-bit floats, also on a CPU. Rounding decides ties, of which there
are some thousand on a surface, so the same mask needs the same rounding in the same order. Windows advance
along the first axis, and planes that no later window changes are given away: memory is as deep as a window.
The sums are numpy arrays, 32-bit floats that are rounded after each addition, which is faster than
converting them; or 16-bit torch tensors on the device of the networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import combinations, islice, product
from math import ceil
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from medseg.inference.nnunet.half_precision import round_to_half
from medseg.inference.window_gathering import Box, Level, gathered, levels
from medseg.inference.window_runner import WindowRunner, out_of_memory_errors, tell_out_of_memory
from medseg.system.arrays import Array, namespace
from medseg.system.progress import show_step

Floats: TypeAlias = npt.NDArray[np.float32]
Halves: TypeAlias = npt.NDArray[np.float16]
Network: TypeAlias = Callable[[Floats], Floats]

_PEAK = 10.0  # `value_scaling_factor` of nnU-Net's Gaussian
_YIELDED = 16  # planes at a time, so that few are held in both precisions
_PLANES = 4  # added at a time, so that temporary numbers stay in the processor's cache


def starts(length: int, window: int, step: float) -> tuple[int, ...]:
    """Start positions of windows along an axis (``compute_steps_for_sliding_window``).

    Args:
        length: Length of the axis, at least ``window``.
        window: Length of a window.
        step: Largest distance of two windows, as a fraction of a window.
    """
    count = ceil((length - window) / (window * step)) + 1
    distance = (length - window) / (count - 1) if count > 1 else 0.0
    return tuple(int(np.round(distance * number)) for number in range(count))


@lru_cache(maxsize=4)
def importance(window: tuple[int, ...]) -> Halves:
    """Weight of each voxel of a window: ``scipy.ndimage.gaussian_filter`` of its middle voxel, 16 bits.

    The standard deviation is an eighth of the window, the peak 10, and zeros become the smallest weight
    (``compute_gaussian``). The filter works on one axis after the other, and ends at 4 deviations.
    """
    weight = np.ones((), dtype=np.float64)
    for n in window:
        sd = n / 8
        reach = int(4.0 * sd + 0.5)
        at = np.arange(-reach, reach + 1)
        kernel = np.exp(-0.5 / (sd * sd) * at**2)
        kernel /= kernel.sum()
        line = np.zeros(n)
        middle = n // 2
        low, high = max(0, middle - reach), min(n, middle + reach + 1)
        line[low:high] = kernel[low - middle + reach : high - middle + reach]
        weight = weight[..., None] * line
    half: Halves = (weight / (weight.max() / _PEAK)).astype(np.float16)
    half[half == 0] = half[half > 0].min()
    return half


def logit_planes(
    image: Array,
    networks: Sequence[Callable[[Array], Array]],
    *,
    window: Sequence[int],
    heads: int,
    step: float = 0.5,
    mirror_axes: Sequence[int] = (),
    batch: int = 1,
    part: Box | None = None,
) -> Iterator[tuple[int, Any]]:
    """Logits of a prepared scan, a few planes at a time, as soon as they are final.

    Windows that are constant in each channel, such as air, share one result if their values are equal.

    Args:
        image: The prepared scan, (C, A, B, C), an array or a tensor on the networks' device.
        networks: The network of each fold, which maps (N, C, *window) to (N, heads, *window). The logits of
            the folds are averaged.
        window: Size of a window; two numbers for a network of slices (B, C).
        heads: Number of output channels.
        step: Largest distance of two windows, as a fraction of a window.
        mirror_axes: Logits are averaged over windows mirrored along all combinations of these axes of the
            window.
        batch: Number of windows that are run at once.
        part: The box of the prepared scan whose logits are wanted; None: all of it. Only windows that meet it
            are run.

    Yields:
        The number of the first plane along A, and float16 (heads, planes, B, C), of the image's kind; B and C
        as in the part. If a GPU has no memory left for the sums, tensors are in main memory, with a notice.
    """
    flat = len(window) == 2
    size = (1, *window) if flat else tuple(window)
    padded: Array
    padded, inner = _padded(image, size)
    math, device = namespace(image), image.device
    del image  # only the padded one is needed
    lead = 0
    if part is not None:
        lead = part[0].start
        inner = cast(Box, tuple(_moved(own, by.start) for own, by in zip(part, inner, strict=True)))
    along = range(padded.shape[1]) if flat else starts(padded.shape[1], size[0], step)
    across = [starts(padded.shape[axis + 1], size[axis], step) for axis in (1, 2)]
    boxes: list[Box] = [_box(corner, size) for corner in product(along, *across)]
    boxes = [box for box in boxes if _meets(box, inner)]
    weight = importance(tuple(window)).reshape(size)
    deep, *wide = (part.stop - part.start for part in inner)
    shape = (len(networks), heads, min(size[0], deep), *wide)
    try:
        sums = _Sums(math, device, shape, weight, inner, lead)
    except out_of_memory_errors():
        tell_out_of_memory("logits are added up in main memory")
        sums = _Sums(math, "cpu", shape, weight, inner, lead)

    def gather(places: Sequence[Box]) -> Array:
        return gathered(padded, places, 0, flat=False)

    runners = [WindowRunner(_mirrored(each, mirror_axes, flat=flat), gather, batch) for each in networks]
    constant = _levels(padded, boxes)
    for first in range(0, len(boxes), batch):
        waiting = boxes[first : first + batch]
        yield from sums.before(waiting[0])  # while no window's logits are held
        values = list(islice(constant, len(waiting)))
        try:
            found = [runner.run(waiting, values) for runner in runners]
        except out_of_memory_errors():
            if str(sums.device) == "cpu":
                raise
            tell_out_of_memory("logits are added up in main memory")
            sums.to_cpu()
            found = [runner.run(waiting, values) for runner in runners]
        for number, box in enumerate(waiting):
            yield from sums.before(box)
            sums.add(box, [each[number] for each in found])
        del found
        show_step(first + len(waiting), len(boxes), "windows")
    yield from sums.rest()


class _Sums:
    """Sums of weighted logits and of weights, rounded to 16 bits, for as many planes as a window is deep.

    Args:
        math: numpy, or torch for tensors.
        device: Where the sums are.
        shape: (folds, heads, planes, B, C), B and C as the scan, not as the padded one.
        weight: Weight of each voxel of a window.
        inner: The place of the scan, or of a part of it, in the padded one.
        lead: Number of its first plane.
    """

    def __init__(
        self, math: Any, device: object, shape: Sequence[int], weight: Halves, inner: Box, lead: int = 0
    ) -> None:
        self._math, self._inner, self._first, self._lead = math, inner, 0, lead
        self.device = device
        kind = math.float32 if math is np else math.float16
        self._weight: Any = math.asarray(weight, dtype=kind, device=device)
        self._total: Any = math.zeros(tuple(shape), dtype=kind, device=device)
        self._weights: Any = math.zeros(tuple(shape[2:]), dtype=kind, device=device)

    def to_cpu(self) -> None:
        """Moves the sums, which are tensors, to main memory."""
        self.device, self._weight = "cpu", self._weight.to("cpu")
        self._total, self._weights = self._total.to("cpu"), self._weights.to("cpu")

    def before(self, box: Box) -> Iterator[tuple[int, Any]]:
        """The planes that are final once windows begin at this one's, which makes room for it."""
        following = box[0].start - self._inner[0].start
        if following > self._first:
            yield from self._final(following)
            self._advance(following - self._first)
            self._first = following

    def rest(self) -> Iterator[tuple[int, Any]]:
        """The remaining planes."""
        yield from self._final(self._inner[0].stop - self._inner[0].start)

    def add(self, box: Box, logits: Sequence[Any]) -> None:
        """Adds the logits (heads, A, B, C) of each fold for a window."""
        place, inside = _inside(box, self._inner)
        place = (slice(place[0].start - self._first, place[0].stop - self._first), *place[1:])
        weight = self._weight[inside]
        for total, found in zip(self._total, logits, strict=True):
            if isinstance(found, np.ndarray):
                for sums, values in zip(total, found, strict=True):  # one class at a time: less memory
                    _add(sums[place], values[inside], weight)
            else:
                total[:, *place] += found[:, *inside].to(total.device) * weight
        if self._math is np:
            _add(self._weights[place], weight)
        else:
            self._weights[place] += weight

    def _final(self, stop: int) -> Iterator[tuple[int, Any]]:
        """Mean logits over windows, then folds, of the planes before ``stop``."""
        for first in range(self._first, stop, _YIELDED):
            some = slice(first - self._first, min(first + _YIELDED, stop) - self._first)
            yield self._lead + first, self._mean(self._total[:, :, some], self._weights[some])

    def _mean(self, sums: Any, weights: Any) -> Any:
        if self._math is np:
            return _mean(sums, weights)
        total = sums[0] / weights
        for other in sums[1:]:
            total += other / weights
        if len(sums) > 1:
            total /= len(sums)
        return total

    def _advance(self, planes: int) -> None:
        """Drops the first planes and adds as many of zeros at the end, in place."""
        kept = self._weights.shape[0] - planes
        for values in (*(channel for total in self._total for channel in total), self._weights):
            values[:kept] = self._math.asarray(values[planes:], copy=True)
            values[kept:] = 0


def _add(total: Floats, values: Floats, weight: Floats | None = None) -> None:
    """Adds values, or weighted values, to sums (A, B, C), a few planes at a time, and rounds the sums."""
    for plane in range(0, len(total), _PLANES):
        part = slice(plane, plane + _PLANES)
        added = values[part] if weight is None else values[part] * weight[part]
        added = added + total[part]
        round_to_half(added)
        total[part] = added


def _mean(sums: Floats, weights: Floats) -> Halves:
    """Mean logits over windows, then folds, of (folds, heads, A, B, C), rounded after each step."""
    mean = np.empty(sums.shape[1:], dtype=np.float16)
    total, each = np.empty_like(weights), np.empty_like(weights) if len(sums) > 1 else None
    for head in range(sums.shape[1]):
        np.divide(sums[0, head], weights, out=total)
        round_to_half(total)
        for other in sums[1:, head]:
            each = np.divide(other, weights, out=each)
            round_to_half(each)
            total += each
            round_to_half(total)
        if len(sums) > 1:
            total /= np.float32(len(sums))
        mean[head] = total
    return mean


def _inside(box: Box, inner: Box) -> tuple[Box, Box]:
    """The part of a box that lies in another one: its place in the other one, and in the box itself."""
    both = [(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(box, inner, strict=True)]
    a, b, c = (
        (slice(low - around.start, high - around.start), slice(low - own.start, high - own.start))
        for (low, high), own, around in zip(both, box, inner, strict=True)
    )
    return (a[0], b[0], c[0]), (a[1], b[1], c[1])


def _moved(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


def _meets(box: Box, other: Box) -> bool:
    """Whether two boxes have a voxel in common."""
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(box, other, strict=True))


def _levels(image: Array, boxes: Sequence[Box]) -> Iterator[Level]:
    """The values of constant windows, compared in main memory if a GPU has no room for that."""
    try:
        yield from levels(image, boxes, 0, flat=False)
    except out_of_memory_errors():
        tell_out_of_memory("windows are compared in main memory")
        # None of a GPU's windows is yielded before all are compared.
        in_memory: Any = image
        yield from levels(in_memory.to("cpu").numpy(), boxes, 0, flat=False)


def _box(corner: Sequence[int], size: Sequence[int]) -> Box:
    a, b, c = (slice(first, first + n) for first, n in zip(corner, size, strict=True))
    return a, b, c


def _padded(image: Array, size: Sequence[int]) -> tuple[Array, Box]:
    """The image padded with zeros to at least a window, an odd voxel at the end, and its place in it."""
    short = [max(0, w - n) for n, w in zip(image.shape[1:], size, strict=True)]
    a, b, c = (slice(d // 2, d // 2 + n) for n, d in zip(image.shape[1:], short, strict=True))
    if not any(short):
        return image, (a, b, c)
    sides: list[int] = [n + d for n, d in zip(image.shape[1:], short, strict=True)]
    padded: Array = namespace(image).zeros((len(image), *sides), dtype=image.dtype, device=image.device)
    padded[:, a, b, c] = image
    return padded, (a, b, c)


def _mirrored(
    network: Callable[[Array], Array], axes: Sequence[int], *, flat: bool
) -> Callable[[Array], Array]:
    """A network whose logits are averaged over mirrored windows, (N, C, A, B, C) -> (N, heads, A, B, C).

    Args:
        network: Maps (N, C, *window) to (N, heads, *window).
        axes: Axes of the window to mirror along.
        flat: Whether the network works on slices.
    """
    places = [axis + 2 for axis in axes]
    flips = [some for count in range(1, len(places) + 1) for some in combinations(places, count)]

    def run(windows: Array) -> Array:
        math = namespace(windows)
        given = windows[:, :, 0] if flat else windows
        total = network(_contiguous(given))
        if flips:
            total = math.asarray(total, copy=True)
            for some in flips:
                total += math.flip(network(_contiguous(math.flip(given, some))), some)
            total /= len(flips) + 1
        found: Array = total[:, :, None] if flat else total
        return found

    return run


def _contiguous(values: Array) -> Array:
    return np.ascontiguousarray(values) if isinstance(values, np.ndarray) else values.contiguous()
