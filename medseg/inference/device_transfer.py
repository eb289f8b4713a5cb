"""Scans on their way to a device, and results on their way back to main memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medseg.inference.window_runner import tell_out_of_memory

if TYPE_CHECKING:
    import torch


def sent(image: npt.NDArray[np.float32], device: str) -> Any:
    """A prepared scan on a device: a tensor, or the array itself for the CPU.

    If the device has no memory left, the tensor is in main memory, with a notice.
    """
    if device == "cpu":
        return image
    torch: Any = sys.modules["torch"]  # imported by the engine that works on a device
    try:
        return torch.from_numpy(image).to(device)
    except torch.OutOfMemoryError:
        tell_out_of_memory("the scan is held in main memory")
        return torch.from_numpy(image)


def on_cpu(portions: Iterator[tuple[int, torch.Tensor]]) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """The same portions as arrays in main memory.

    The next portion is queued on a GPU before the last one is waited for, so that the GPU keeps computing
    while that one is used.
    """
    queue: list[tuple[int, torch.Tensor, torch.cuda.Event | None]] = []
    for first, values in portions:
        queue.append((first, *_sent(values)))
        if len(queue) > 1 or queue[0][2] is None:
            yield _arrived(*queue.pop(0))
    for each in queue:
        yield _arrived(*each)


def _sent(values: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event | None]:
    """A copy on its way to main memory, and the event that marks its arrival."""
    if values.device.type != "cuda":
        return values.cpu(), None
    math: Any = sys.modules["torch"]
    copy = math.empty(values.shape, dtype=values.dtype, pin_memory=True)
    copy.copy_(values, non_blocking=True)
    event = math.cuda.Event()
    event.record(math.cuda.current_stream(values.device))
    return copy, event


def _arrived(
    first: int, values: torch.Tensor, event: torch.cuda.Event | None
) -> tuple[int, npt.NDArray[np.float32]]:
    if event is None:
        return first, values.numpy()
    event.synchronize()
    return first, values.clone().numpy()  # releases the page-locked memory for the next copy
