"""A clean end of a training on Ctrl-C and SIGTERM."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lightning.pytorch.callbacks import Callback

from medseg.system.signals import handled_signals


class Terminated(KeyboardInterrupt):
    """SIGTERM ended the training; SLURM, containers and `kill` send it."""


class Interruption(Callback):  # type: ignore[misc]  # lightning has no types
    """Ends the training at the next batch after Ctrl-C or SIGTERM, or at once after a second one.

    Python raises KeyboardInterrupt in whatever code is running, and ignores it in a destructor, after
    which a training would simply continue. Here the signal handler only sets a flag.

    Attributes:
        received: The signal, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._handling = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handles SIGINT and SIGTERM while the block runs, and restores the previous handlers afterwards.

        It does nothing outside the main thread, which is the only one to receive signals.
        """
        with handled_signals(self._note, signal.SIGINT, signal.SIGTERM) as self._handling:
            try:
                yield
            finally:
                self._handling = False

    def error(self) -> KeyboardInterrupt:
        """The exception of the received signal: `Terminated` for SIGTERM, KeyboardInterrupt otherwise."""
        return Terminated() if self.received == signal.SIGTERM else KeyboardInterrupt()

    def on_train_start(self, *arguments: Any) -> None:
        """Replaces Lightning's handler of SIGTERM, which ends a training with a traceback."""
        if self._handling:
            signal.signal(signal.SIGTERM, self._note)

    def on_train_batch_start(self, *arguments: Any) -> None:
        """Ends the training if requested."""
        self._stop()

    def on_validation_batch_start(self, *arguments: Any) -> None:
        """Ends the training if requested."""
        self._stop()

    def _note(self, number: int, frame: FrameType | None) -> None:
        again = self.received is not None
        self.received = number
        if again:
            raise self.error()

    def _stop(self) -> None:
        if self.received is not None:
            raise self.error()


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Raises `Terminated` on SIGTERM while the block runs in the main thread."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated

    with handled_signals(end, signal.SIGTERM):
        yield
