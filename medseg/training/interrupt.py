"""A clean end of a training on Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lightning.pytorch.callbacks import Callback


class Interruption(Callback):  # type: ignore[misc]  # lightning has no types
    """Ends the training at the next batch after Ctrl-C, or at once if it is pressed again.

    Python raises KeyboardInterrupt in whatever code is running, and ignores it in a destructor, after
    which a training would simply continue. Here the signal handler only sets a flag.

    Attributes:
        requested: Whether Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handles SIGINT while the block runs, and restores the previous handler afterwards.

        It does nothing outside the main thread, which is the only one to receive signals.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def on_train_batch_start(self, *arguments: Any) -> None:
        """Ends the training if requested."""
        self._stop()

    def on_validation_batch_start(self, *arguments: Any) -> None:
        """Ends the training if requested."""
        self._stop()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def _stop(self) -> None:
        if self.requested:
            raise KeyboardInterrupt
