"""Windows of a prepared scan on their way through a network."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Generic

from medseg.inference.window_gathering import Box, Level
from medseg.system.arrays import Array
from medseg.system.notices import notify


class WindowRunner(Generic[Array]):
    """Runs windows through a network in batches; constant windows of one value are run once.

    Args:
        network: Maps (N, C, ...) to (N, heads, ...).
        gather: Gives the windows (N, C, ...) at some places.
        most: Largest N; it becomes smaller if a GPU has no memory left.
    """

    def __init__(
        self, network: Callable[[Array], Array], gather: Callable[[Sequence[Box]], Array], most: int
    ) -> None:
        self.network: Callable[[Array], Array] = network
        self.gather: Callable[[Sequence[Box]], Array] = gather
        self.most = most
        self.constant: Level = None
        self.answer: Array

    def run(self, boxes: Sequence[Box], values: Sequence[Level]) -> list[Array]:
        """Logits (heads, ...) of each window, which must not be changed.

        Args:
            boxes: Places of the windows.
            values: For each of them, its values if it is constant.
        """
        fresh = [n for n, level in enumerate(values) if level is None or level != self.constant]
        found = self._outputs([boxes[n] for n in fresh]) if fresh else []
        outs = dict(zip(fresh, found, strict=True))
        # Not `get`: there is no answer before the first constant window.
        done = [outs[n] if n in outs else self.answer for n in range(len(boxes))]  # noqa: SIM401
        for n in fresh:
            if values[n] is not None:
                self.constant, self.answer = values[n], outs[n]
        return done

    def _outputs(self, boxes: Sequence[Box]) -> list[Array]:
        while True:
            try:
                parts = [boxes[n : n + self.most] for n in range(0, len(boxes), self.most)]
                return [out for part in parts for out in self.network(self.gather(part))]
            except out_of_memory_errors():
                if self.most == 1 or len(boxes) == 1:
                    raise
                self.most = max(1, min(self.most, len(boxes)) // 2)
                tell_out_of_memory(f"{self.most} windows are run at once")


def out_of_memory_errors() -> tuple[type[BaseException], ...]:
    """What torch raises if a device has no memory left; nothing if torch was never imported."""
    return (sys.modules["torch"].OutOfMemoryError,) if "torch" in sys.modules else ()


def tell_out_of_memory(action: str) -> None:
    """Frees what torch keeps of a GPU's memory, and gives notice of what is done instead."""
    sys.modules["torch"].cuda.empty_cache()
    notify("device-memory", f"the device is out of memory: now {action}, which is slower")
