"""How long a network ran inside of a process: wall and CPU seconds of every call."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class NetworkTime:
    """Seconds that the functions wrapped by :meth:`timed` took together."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose calls are counted."""

        def call(*given: Any, **named: Any) -> Any:
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                return function(*given, **named)
            finally:
                self.wall += time.perf_counter() - wall
                self.cpu += time.process_time() - cpu

        return call

    def write(self) -> None:
        """Writes the seconds to the file that the environment's ``NETWORK_TIMES`` names, if it names one."""
        if path := os.environ.get("NETWORK_TIMES"):
            Path(path).write_text(json.dumps({"wall": self.wall, "cpu": self.cpu}))
