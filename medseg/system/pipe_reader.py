"""Reading the pipes of several processes at once, on every system.

``select`` takes no pipes on Windows, and pipes there cannot be made non-blocking before Python 3.12, so each
pipe is read by a thread of its own.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from typing import IO

_AT_ONCE = 1 << 20
_LAST_SECONDS = 10.0


class PipeReader:
    """What arrives from pipes, each known by a key."""

    def __init__(self) -> None:
        self._arrived: queue.SimpleQueue[tuple[threading.Thread, bytes]] = queue.SimpleQueue()
        self._threads: dict[int, threading.Thread] = {}

    def add(self, key: int, pipe: IO[bytes]) -> None:
        """Starts to read a pipe, which must stay open until :meth:`remove`."""
        thread = threading.Thread(target=self._read, args=(pipe.fileno(),), daemon=True)
        self._threads[key] = thread
        thread.start()

    def remove(self, key: int) -> None:
        """Forgets a pipe whose process has ended or was killed; what it sent since is dropped."""
        self._threads.pop(key).join(_LAST_SECONDS)

    def wait(self, seconds: float) -> list[tuple[int, bytes]]:
        """What has arrived, after at most ``seconds``; an empty part is the end of a pipe."""
        found: list[tuple[int, bytes]] = []
        until = time.monotonic() + seconds
        while not found and (left := until - time.monotonic()) > 0:
            try:
                parts = [self._arrived.get(timeout=left)]
            except queue.Empty:
                break
            while not self._arrived.empty():
                parts.append(self._arrived.get())
            keys = {thread: key for key, thread in self._threads.items()}
            found = [(keys[thread], part) for thread, part in parts if thread in keys]
        return found

    def _read(self, descriptor: int) -> None:
        part = b"x"
        while part:
            try:
                part = os.read(descriptor, _AT_ONCE)
            except OSError:  # Windows: the other end is gone
                part = b""
            self._arrived.put((threading.current_thread(), part))
