"""Sliding-window inference: a network trained on patches, applied to a whole prepared scan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import torch
from torch.nn import functional as F

from medseg.recipe import Patch, Predict
from medseg.system.notices import notify

Network = Callable[[torch.Tensor], torch.Tensor]

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


def importance(window: Sequence[int]) -> torch.Tensor:
    """Weight of each voxel of a window: a Gaussian, 1 at the centre and at least 1e-3.

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
    """Logits of a whole scan, float32 (labels, X, Y, Z); arguments as in :func:`planes`."""
    whole = image.new_empty((labels, *image.shape[1:]))
    found = planes(image, network, labels=labels, patch=patch, predict=predict, divisor=divisor)
    for first, values in found:
        whole[..., first : first + values.shape[-1]] = values
    return whole


@torch.inference_mode()
def planes(
    image: torch.Tensor,
    network: Network,
    *,
    labels: int,
    patch: Patch,
    predict: Predict,
    divisor: int = 1,
    device: torch.device | None = None,
) -> Iterator[tuple[int, torch.Tensor]]:
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
        device: Device to hold the image and the planes if they fit; the image's device if None.

    Yields:
        The number of the first plane along the third axis, and float32 (labels, X, Y, planes).
    """
    flat = len(patch.size) == 2
    if predict.whole_planes:
        wide, deep = (-(-n // divisor) * divisor for n in image.shape[1:3])
        patch = patch.model_copy(update={"size": (wide, deep)})
    window = (*patch.size, 1) if flat else patch.size
    padded, inner = _padded(image, window)
    shape = (*padded.shape[1:3], min(padded.shape[3], max(window[2], _FEWEST_PLANES)))
    weight = importance(patch.size)
    weight = weight[..., None] if flat else weight
    try:
        sums = _Sums(padded.to(device or padded.device), inner, labels, shape, weight)
    except torch.OutOfMemoryError:
        _out_of_memory("the scan is held in main memory")
        sums = _Sums(padded, inner, labels, shape, weight)
    runner = _Runner(network, predict.window_batch)

    def gathered(image: torch.Tensor, boxes: list[Box]) -> list[torch.Tensor]:
        return [_gather(image, box, patch.neighbours, flat) for box in boxes]

    def run(boxes: list[Box]) -> list[torch.Tensor]:
        windows = gathered(padded, boxes)
        # Computed from the copy in main memory: reading values back from a GPU would wait for it.
        levels = [_level(window) for window in windows]
        try:
            return runner.run(windows if sums.image is padded else gathered(sums.image, boxes), levels)
        except torch.OutOfMemoryError:
            if sums.image.device.type == "cpu":
                raise
            _out_of_memory("the scan is held in main memory")
            sums.to(torch.device("cpu"))
            return runner.run(gathered(sums.image, boxes), levels)

    waiting: list[Box] = []
    for box in _boxes(padded.shape[1:], window, predict.overlap):
        waiting.append(box)
        if len(waiting) == predict.window_batch:
            for place, out in zip(waiting, run(waiting), strict=True):
                yield from sums.before(place)
                sums.add(place, out[..., None] if flat else out)
            waiting = []
    for place, out in zip(waiting, run(waiting), strict=True):
        yield from sums.before(place)
        sums.add(place, out[..., None] if flat else out)
    yield from sums.rest()


class _Sums:
    """The scan, with sums of weighted logits and of weights for as many planes as a window is deep."""

    def __init__(
        self, image: torch.Tensor, inner: Box, labels: int, shape: Sequence[int], weight: torch.Tensor
    ) -> None:
        self.image, self.inner, self.depth, self.base = image, inner, shape[2], 0
        self.total = image.new_zeros((labels, *shape))
        self.weights = image.new_zeros(tuple(shape))
        self.weight = weight.to(image)
        self.most = max(1, _BYTES_AT_ONCE // (4 * labels * shape[0] * shape[1]))

    def to(self, device: torch.device) -> None:
        """Moves all tensors to a device."""
        self.image, self.total = self.image.to(device), self.total.to(device)
        self.weights, self.weight = self.weights.to(device), self.weight.to(device)

    def add(self, box: Box, out: torch.Tensor) -> None:
        """Adds a window's logits (labels, ...)."""
        place = (box[0], box[1], slice(box[2].start - self.base, box[2].stop - self.base))
        self.total[(slice(None), *place)] += self.weight * out.to(self.total)
        self.weights[place] += self.weight

    def before(self, box: Box) -> Iterator[tuple[int, torch.Tensor]]:
        """The planes that must make room for this window; they are final because windows come in order."""
        if box[2].stop > self.base + self.depth:
            yield from self._complete(box[2].start)
            _advance(self.total, box[2].start - self.base)
            _advance(self.weights[None], box[2].start - self.base)
            self.base = box[2].start

    def rest(self) -> Iterator[tuple[int, torch.Tensor]]:
        """The remaining planes."""
        yield from self._complete(self.image.shape[3])

    def _complete(self, stop: int) -> Iterator[tuple[int, torch.Tensor]]:
        """The planes from ``base`` to ``stop``, without the padding."""
        x, y, z = self.inner
        low, high = max(self.base, z.start), min(stop, z.stop)
        for first in range(low, high, self.most):
            part = slice(first - self.base, min(first + self.most, high) - self.base)
            values = self.total[..., part] / self.weights[..., part]
            yield first - z.start, values[:, x, y]


def _advance(values: torch.Tensor, planes: int) -> None:
    """Shifts (C, X, Y, Z) towards the start by so many planes, in place, and fills up with zeros."""
    kept = max(0, values.shape[-1] - planes)
    for channel in values:
        channel[..., :kept] = channel[..., planes:].clone()
        channel[..., kept:] = 0


class _Runner:
    """Runs windows through a network in batches; constant windows of one value are run once."""

    def __init__(self, network: Network, most: int) -> None:
        self.network, self.most = network, most
        self.constant: tuple[float, ...] | None = None
        self.answer = torch.empty(0)

    def run(
        self, windows: Sequence[torch.Tensor], levels: Sequence[tuple[float, ...] | None]
    ) -> list[torch.Tensor]:
        """Logits (labels, ...) of each window (channels, ...), given its :func:`_level`."""
        fresh = [n for n, level in enumerate(levels) if level is None or level != self.constant]
        found = self._outputs(torch.stack([windows[n] for n in fresh])) if fresh else ()
        outs = dict(zip(fresh, found, strict=True))
        done = [outs.get(n, self.answer) for n in range(len(windows))]
        for n in fresh:
            if levels[n] is not None:
                self.constant, self.answer = levels[n], outs[n]
        return done

    def _outputs(self, windows: torch.Tensor) -> torch.Tensor:
        while True:
            try:
                if len(windows) <= self.most:
                    return self.network(windows)
                return torch.cat([self.network(part) for part in torch.split(windows, self.most)])
            except torch.OutOfMemoryError:
                if self.most == 1 or len(windows) == 1:
                    raise
                self.most = max(1, min(self.most, len(windows)) // 2)
                _out_of_memory(f"{self.most} windows are run at once")


def on_cpu(portions: Iterator[tuple[int, torch.Tensor]]) -> Iterator[tuple[int, torch.Tensor]]:
    """The same portions in main memory.

    The next portion is queued on a GPU before the last one is waited for, so that the GPU keeps computing
    while that one is used.
    """
    sent: list[tuple[int, torch.Tensor, torch.cuda.Event | None]] = []
    for first, values in portions:
        sent.append((first, *_sent(values)))
        if len(sent) > 1 or sent[0][2] is None:
            yield _arrived(*sent.pop(0))
    for each in sent:
        yield _arrived(*each)


def _sent(values: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event | None]:
    """A copy on its way to main memory, and the event that marks its arrival."""
    if values.device.type != "cuda":
        return values.cpu(), None
    copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    copy.copy_(values, non_blocking=True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(values.device))
    return copy, event


def _arrived(first: int, values: torch.Tensor, event: torch.cuda.Event | None) -> tuple[int, torch.Tensor]:
    if event is None:
        return first, values
    event.synchronize()
    return first, values.clone()  # releases the page-locked memory for the next copy


def _level(window: torch.Tensor) -> tuple[float, ...] | None:
    """The value of each channel of a constant window; None if any channel varies."""
    axes = tuple(range(1, window.ndim))
    low, high = window.amin(axes), window.amax(axes)
    return tuple(low.tolist()) if torch.equal(low, high) else None


def _out_of_memory(action: str) -> None:
    torch.cuda.empty_cache()
    notify("device-memory", f"the device is out of memory: now {action}, which is slower")


def stacked_slices(image: torch.Tensor, z: int, neighbours: int) -> torch.Tensor:
    """2D input of slice ``z``: (C * (2n + 1), X, Y) from (C, X, Y, Z), lowest slice first.

    The first and the last slice are repeated beyond the ends.
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
        # F.pad counts from the last axis; a value per channel needs a call per channel.
        pads = [*sides[4:6], *sides[2:4], *sides[0:2]]
        image = torch.stack([F.pad(c, pads, value=float(c.min())) for c in image])
    return image, (x, y, z)
