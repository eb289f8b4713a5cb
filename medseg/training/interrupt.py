"""Ctrl-C in a training, noticed between two batches."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lightning.pytorch.callbacks import Callback


class Interruption(Callback):  # type: ignore[misc]  # lightning has no types
    """Ends the training at the next batch after Ctrl-C, or at once when it is pressed again.

    Python raises KeyboardInterrupt wherever it is, and drops it within a destructor: a training
    would go on as if nothing had been pressed. Here the signal is only noted down.

    Attributes:
        asked: Whether Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def noticed(self) -> Iterator[None]:
        """Notes SIGINT while it is open; afterwards it does what it did before.

        In a thread that is not the main one, which no signal reaches, it does nothing.
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
        """Stops here."""
        self._stop()

    def on_validation_batch_start(self, *arguments: Any) -> None:
        """Stops here."""
        self._stop()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def _stop(self) -> None:
        if self.asked:
            raise KeyboardInterrupt
