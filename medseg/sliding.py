"""The sliding window: a network that sees patches, applied to a whole prepared scan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import torch
from torch.nn import functional as F

from medseg.recipe import Patch, Predict, Recipe

Network = Callable[[torch.Tensor], torch.Tensor]

# Of a 2D network's slices so many are given on together; of any network at most so many bytes.
_FEWEST_PLANES = 16
_BYTES_AT_ONCE = 2**27


def starts(length: int, window: int, overlap: float) -> tuple[int, ...]:
    """Where windows begin along an axis: evenly placed, covering it, overlapping at least ``overlap``.

    Args:
        length: Voxels of the axis, at least ``window``.
        window: Voxels of a window.
        overlap: Smallest share of a window that its neighbour covers, in 0..0.9.
    """
    if length <= window:
        return (0,)
    step = max(1, int(window * (1 - overlap)))
    count = -(-(length - window) // step) + 1
    # Evenly spaced rather than a last window pushed back: the same cost, more overlap everywhere.
    return tuple(round(i * (length - window) / (count - 1)) for i in range(count))


def importance(window: Sequence[int]) -> torch.Tensor:
    """Weight of each voxel of a window: a Gaussian, 1 at the centre and never under 1e-3.

    Its standard deviation is an eighth of the window, as in nnU-Net: predictions near the
    border of a window see less context and count less.
    """
    weight = torch.ones(())
    for n in window:
        at = torch.arange(n, dtype=torch.float32) - (n - 1) / 2
        weight = weight[..., None] * torch.exp(-0.5 * (at / (n / 8)) ** 2)
    return weight.clamp_min(1e-3)


def logits(
    image: torch.Tensor, network: Network, *, labels: int, patch: Patch, predict: Predict, divisor: int = 1
) -> torch.Tensor:
    """Logits of a whole scan, float32 (labels, X, Y, Z): all of :func:`planes`, with the same arguments."""
    whole = image.new_empty((labels, *image.shape[1:]))
    rules = {"labels": labels, "divisor": divisor}
    for first, values in planes(image, network, patch=patch, predict=predict, **rules):
        whole[..., first : first + values.shape[-1]] = values
    return whole


@torch.inference_mode()
def planes(
    image: torch.Tensor, network: Network, *, labels: int, patch: Patch, predict: Predict, divisor: int = 1
) -> Iterator[tuple[int, torch.Tensor]]:
    """Logits of a scan, windows averaged with Gaussian weights, as soon as no further window changes them.

    Scans smaller than a window are padded with their smallest value (air, background). Only as many
    planes are held as a window is deep.

    Args:
        image: float32 (C, X, Y, Z), prepared, on the network's device.
        network: Maps (N, in_channels, *window) to (N, labels, *window).
        labels: Channels of the network's output.
        patch: Window size, and neighbouring slices of a 2D network.
        predict: Overlap, window batch, and whether a window is a whole plane.
        divisor: Of the sides of a window that is a whole plane.

    Yields:
        The number of the first plane along the third axis, and float32 (labels, X, Y, planes).
    """
    flat = len(patch.size) == 2
    if predict.whole_planes:
        wide, deep = (-(-n // divisor) * divisor for n in image.shape[1:3])
        patch = patch.model_copy(update={"size": (wide, deep)})
    window = (*patch.size, 1) if flat else patch.size
    padded, inner = _padded(image, window)
    x, y, z = padded.shape[1:]
    depth = min(z, max(window[2], _FEWEST_PLANES))
    total = padded.new_zeros((labels, x, y, depth))
    weight_sum = padded.new_zeros((x, y, depth))
    weight = importance(patch.size).to(padded)
    weight = weight[..., None] if flat else weight
    most = max(1, _BYTES_AT_ONCE // (4 * labels * x * y))
    boxes = list(_boxes((x, y, z), window, predict.overlap))
    base = 0

    def complete(stop: int) -> Iterator[tuple[int, torch.Tensor]]:
        """The planes from ``base`` to ``stop``, without the padding."""
        low, high = max(base, inner[2].start), min(stop, inner[2].stop)
        for first in range(low, high, most):
            part = slice(first - base, min(first + most, high) - base)
            values = total[..., part] / weight_sum[..., part]
            yield first - inner[2].start, values[:, inner[0], inner[1]]

    for first in range(0, len(boxes), predict.window_batch):
        batch = boxes[first : first + predict.window_batch]
        inputs = torch.stack([_gather(padded, box, patch.neighbours, flat) for box in batch])
        for box, out in zip(batch, network(inputs), strict=True):
            if box[2].stop > base + depth:
                yield from complete(box[2].start)
                _advance(total, box[2].start - base)
                _advance(weight_sum[None], box[2].start - base)
                base = box[2].start
            place = (box[0], box[1], slice(box[2].start - base, box[2].stop - base))
            total[(slice(None), *place)] += weight * (out[..., None] if flat else out)
            weight_sum[place] += weight
    yield from complete(z)


def _advance(values: torch.Tensor, planes: int) -> None:
    """Moves (C, X, Y, Z) towards the start by so many planes, in place; zeros follow."""
    kept = max(0, values.shape[-1] - planes)
    for channel in values:
        channel[..., :kept] = channel[..., planes:].clone()
        channel[..., kept:] = 0


def probabilities_of(logits: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Probabilities (L, ...) of labels: a sigmoid each, or a softmax with the background (logit 0)."""
    if not recipe.exclusive:
        return torch.sigmoid(logits)
    return torch.softmax(torch.cat([torch.zeros_like(logits[:1]), logits]), 0)[1:]


def labels_of(logits: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Where each label is found, bool (L, ...): above the threshold, or more probable than all others."""
    if not recipe.exclusive:
        return torch.sigmoid(logits) >= recipe.predict.threshold
    best = torch.cat([torch.zeros_like(logits[:1]), logits]).argmax(0)
    return torch.stack([best == number for number in range(1, len(logits) + 1)])


def stacked_slices(image: torch.Tensor, z: int, neighbours: int) -> torch.Tensor:
    """2D input of slice ``z``: (C * (2n + 1), X, Y) from (C, X, Y, Z), lowest slice first.

    Beyond the first and last slice the outermost one is repeated.
    """
    depth = image.shape[-1]
    at = [min(max(z + k, 0), depth - 1) for k in range(-neighbours, neighbours + 1)]
    return torch.cat([image[..., i] for i in at])


Box = tuple[slice, slice, slice]


def _boxes(shape: Sequence[int], window: Sequence[int], overlap: float) -> Iterator[Box]:
    places = [starts(n, w, overlap) for n, w in zip(shape, window, strict=True)]
    for z, x, y in product(places[2], places[0], places[1]):
        yield slice(x, x + window[0]), slice(y, y + window[1]), slice(z, z + window[2])


def _gather(image: torch.Tensor, box: Box, neighbours: int, flat: bool) -> torch.Tensor:
    x, y, z = box
    return stacked_slices(image[:, x, y], z.start, neighbours) if flat else image[:, x, y, z]


def _padded(image: torch.Tensor, window: Sequence[int]) -> tuple[torch.Tensor, Box]:
    """The image padded to at least a window, and the box of the image inside it."""
    short = [max(0, w - n) for n, w in zip(image.shape[1:], window, strict=True)]
    before = [s // 2 for s in short]
    x, y, z = (slice(b, b + n) for b, n in zip(before, image.shape[1:], strict=True))
    if any(short):
        sides = [side for b, s in zip(before, short, strict=True) for side in (b, s - b)]
        # F.pad counts from the last axis; one value a channel needs one call a channel.
        pads = [*sides[4:6], *sides[2:4], *sides[0:2]]
        image = torch.stack([F.pad(c, pads, value=float(c.min())) for c in image])
    return image, (x, y, z)
