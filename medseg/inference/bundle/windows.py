"""Sliding windows as MONAI's ``SlidingWindowInferer`` places, weights and averages them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from medseg.system.progress import show_step

Floats: TypeAlias = npt.NDArray[np.float32]
Network: TypeAlias = Callable[[Floats], Floats]


def starts(length: int, window: int, overlap: float) -> tuple[int, ...]:
    """Where windows start along an axis: in equal steps, the last one moved back to the end."""
    if length <= window:
        return (0,)
    step = max(int(window * (1 - overlap)), 1)
    count = -(-(length - window) // step) + 1
    return tuple(min(number * step, length - window) for number in range(count))


def importance(window: Sequence[int], gaussian: float | None) -> Floats:
    """The weight of each voxel of a window; a Gaussian of so many sides, or all 1."""
    weight = np.ones((), dtype=np.float32)
    if gaussian is None:
        return np.ones(tuple(window), dtype=np.float32)
    for n in window:
        at = np.arange(n, dtype=np.float32) - np.float32((n - 1) / 2)
        weight = weight[..., None] * np.exp(at**2 / np.float32(-2 * (gaussian * n) ** 2))
    return np.maximum(weight, np.float32(max(float(weight.min()), 1e-3)))


def mean_logits(
    image: Floats,
    networks: Sequence[Network],
    *,
    window: Sequence[int],
    overlap: float,
    gaussian: float | None,
    fill: float,
    batch: int = 1,
) -> Floats:
    """Logits of a whole image, float32 (heads, X, Y, Z).

    Args:
        image: float32 (C, X, Y, Z).
        networks: The network of each fold, from float32 (N, C, *window) to logits (N, heads, *window); their
            logits are averaged.
        window: Size of the windows.
        overlap: Share of a window that its neighbour covers.
        gaussian: See :func:`importance`.
        fill: Value around images that are smaller than a window.
        batch: Largest N.
    """
    inner = image.shape[1:]
    before = [max(w - n, 0) // 2 for n, w in zip(inner, window, strict=True)]
    after = [max(w - n, 0) - b for n, w, b in zip(inner, window, before, strict=True)]
    if any(after):
        image = np.pad(image, [(0, 0), *zip(before, after, strict=True)], constant_values=fill)
    weight = importance(window, gaussian)
    count = np.zeros(image.shape[1:], dtype=np.float32)
    total: Floats | None = None
    places = [
        tuple(slice(first, first + w) for first, w in zip(at, window, strict=True))
        for at in product(*(starts(n, w, overlap) for n, w in zip(image.shape[1:], window, strict=True)))
    ]
    for first in range(0, len(places), batch):
        waiting = places[first : first + batch]
        parts = np.stack([image[:, *place] for place in waiting])
        logits = np.array(networks[0](parts), dtype=np.float32)
        for network in networks[1:]:
            logits += network(parts)
        if len(networks) > 1:
            logits /= np.float32(len(networks))
        if total is None:
            total = np.zeros((logits.shape[1], *image.shape[1:]), dtype=np.float32)
        logits *= weight
        for place, part in zip(waiting, logits, strict=True):
            total[:, *place] += part
            count[place] += weight
        show_step(first + len(waiting), len(places), "windows")
    if total is None:
        raise ValueError("an image without voxels")
    total /= count
    kept = tuple(slice(first, first + n) for first, n in zip(before, inner, strict=True))
    return total[:, *kept]
