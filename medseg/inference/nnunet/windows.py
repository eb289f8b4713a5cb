"""The sliding window of nnU-Net v2, with its steps, its Gaussian, and its sums in half precision.

nnU-Net keeps sums of weighted logits as 16-bit floats, also on a CPU. Rounding decides ties, of which there
are some thousand on a surface, so the same mask needs the same rounding in the same order. Windows advance
along the first axis, and planes that no later window changes are given away: memory is as deep as a window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import combinations, product
from math import ceil
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
Halves: TypeAlias = npt.NDArray[np.float16]
Network: TypeAlias = Callable[[Floats], Floats]

_PEAK = 10.0  # `value_scaling_factor` of nnU-Net's Gaussian


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
    image: Floats,
    networks: Sequence[Network],
    *,
    window: Sequence[int],
    heads: int,
    step: float = 0.5,
    mirror_axes: Sequence[int] = (),
) -> Iterator[tuple[int, Halves]]:
    """Logits of a prepared scan, a few planes at a time, as soon as they are final.

    Args:
        image: The prepared scan, (C, A, B, C).
        networks: The network of each fold, which maps (1, C, *window) to (1, heads, *window). The logits of
            the folds are averaged.
        window: Size of a window; two numbers for a network of slices (B, C).
        heads: Number of output channels.
        step: Largest distance of two windows, as a fraction of a window.
        mirror_axes: Logits are averaged over windows mirrored along all combinations of these axes of the
            window.

    Yields:
        The number of the first plane along A, and float16 (heads, planes, B, C).
    """
    size = (1, *window) if len(window) == 2 else tuple(window)
    padded, inner = _padded(image, size)
    runners = [_Mirrored(network, mirror_axes, flat=len(window) == 2) for network in networks]
    weight = importance(tuple(window)).reshape(size)
    along = range(padded.shape[1]) if len(window) == 2 else starts(padded.shape[1], size[0], step)
    across = [starts(padded.shape[axis + 1], size[axis], step) for axis in (1, 2)]
    sums = np.zeros((len(networks), heads, size[0], *padded.shape[2:]), dtype=np.float16)
    weights = np.zeros((size[0], *padded.shape[2:]), dtype=np.float16)
    for number, first in enumerate(along):
        for at_b, at_c in product(*across):
            b, c = slice(at_b, at_b + size[1]), slice(at_c, at_c + size[2])
            part = padded[None, :, first : first + size[0], b, c]
            for total, runner in zip(sums, runners, strict=True):
                found = runner(part)
                found *= weight
                place = total[:, :, b, c]
                np.add(place, found, out=place, casting="unsafe")
            weights[:, b, c] += weight
        following = along[number + 1] if number + 1 < len(along) else first + size[0]
        done = following - first
        low, high = max(first, inner[0].start), min(following, inner[0].stop)
        if low < high:
            final = slice(low - first, high - first)
            b, c = inner[1:]
            yield low - inner[0].start, _mean(sums[:, :, final, b, c], weights[final, b, c])
        _advance(sums, weights, done)


def _mean(sums: Halves, weights: Halves) -> Halves:
    """Mean logits over windows, then folds."""
    total: Halves = sums[0] / weights
    for other in sums[1:]:
        total += other / weights
    if len(sums) > 1:
        np.divide(total, np.float32(len(sums)), out=total, casting="unsafe")
    return total


def _advance(sums: Halves, weights: Halves, planes: int) -> None:
    """Drops the first planes and adds as many of zeros at the end, in place."""
    kept = weights.shape[0] - planes
    for values in (*(channel for total in sums for channel in total), weights):
        values[:kept] = values[planes:].copy()
        values[kept:] = 0


def _padded(image: Floats, size: Sequence[int]) -> tuple[Floats, tuple[slice, slice, slice]]:
    """The image padded with zeros to at least a window, an odd voxel at the end, and its place in it."""
    short = [max(0, w - n) for n, w in zip(image.shape[1:], size, strict=True)]
    a, b, c = (slice(d // 2, d // 2 + n) for n, d in zip(image.shape[1:], short, strict=True))
    if any(short):
        image = np.pad(image, [(0, 0), *((d // 2, d - d // 2) for d in short)])
    return image, (a, b, c)


class _Mirrored:
    """A network whose logits are averaged over mirrored windows, (C, A, B, C) -> (heads, A, B, C).

    All windows that are constant in each channel, such as air, share one result if their values are equal.

    Args:
        network: Maps (1, C, *window) to (1, heads, *window).
        axes: Axes of the window to mirror along.
        flat: Whether the network works on slices.
    """

    def __init__(self, network: Network, axes: Sequence[int], *, flat: bool) -> None:
        self._network, self._flat = network, flat
        places = [axis + 2 for axis in axes]
        self._flips = [axes for count in range(1, len(places) + 1) for axes in combinations(places, count)]
        self._level: tuple[float, ...] | None = None
        self._answer: Floats | None = None

    def __call__(self, part: Floats) -> Floats:
        """Mean logits, float32; the caller may overwrite them."""
        level = _level(part[0])
        if level is not None and level == self._level and self._answer is not None:
            return self._answer.copy()
        windows = part[:, :, 0] if self._flat else part
        windows = np.ascontiguousarray(windows)
        total = np.array(self._network(windows), dtype=np.float32)
        for axes in self._flips:
            found = self._network(np.ascontiguousarray(np.flip(windows, axes)))
            total += np.flip(found, axes)
        if self._flips:
            total /= np.float32(len(self._flips) + 1)
        answer: Floats = total[0][:, None] if self._flat else total[0]
        if level is not None:
            self._level, self._answer = level, answer.copy()
        return answer


def _level(window: Floats) -> tuple[float, ...] | None:
    """The value of each channel of a constant window; None if any channel varies."""
    first = window[:, 0, 0, 0]
    for channel, value in zip(window, first, strict=True):
        # A corner usually differs, so that the whole window is rarely looked at.
        if channel[-1, -1, -1] != value or not (channel == value).all():
            return None
    return tuple(float(value) for value in first)
