"""Results of a device on their way to main memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch


def on_cpu(portions: Iterator[tuple[int, torch.Tensor]]) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """The same portions as arrays in main memory.

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
