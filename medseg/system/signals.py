"""Handlers of signals for the duration of a block."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def handled_signals(handler: Callable[[int, FrameType | None], None], *numbers: int) -> Iterator[bool]:
    """Handles signals while the block runs, and restores the previous handlers afterwards.

    Yields:
        Whether they are handled: outside the main thread, the only one to receive signals, they are not.
    """
    if threading.current_thread() is not threading.main_thread():
        yield False
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield True
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
