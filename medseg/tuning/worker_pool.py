"""The worker processes of a study: each trains one trial at a time, and is replaced when it dies."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from medseg.system import processes
from medseg.system.pipe_reader import PipeReader

LOG = "workers.log"


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    number: int | None = None
    received: bytearray = field(default_factory=bytearray)


class WorkerPool:
    """Up to ``count`` workers, started when they are needed.

    Args:
        count: Number of workers.
        log: File to which what workers print is appended.
    """

    def __init__(self, count: int, log: Path) -> None:
        self._log = log
        self._workers: dict[int, _Worker | None] = dict.fromkeys(range(count))
        self._reader = PipeReader()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for slot, worker in self._workers.items():
            if worker is not None:
                worker.process.kill()  # checkpoints are written atomically
                self._closed(slot, worker)

    def idle(self) -> list[int]:
        """Slots without a trial."""
        return [slot for slot, each in self._workers.items() if each is None or each.number is None]

    def trials(self) -> list[int]:
        """Numbers of the trials at work."""
        return [each.number for each in self._workers.values() if each and each.number is not None]

    def process_id(self, slot: int) -> int:
        """Id of the process in a slot."""
        worker = self._workers[slot]
        assert worker is not None  # it has just been heard from
        return worker.process.pid

    def give(self, slot: int, number: int, request: Mapping[str, Any]) -> None:
        """Sends a trial to an idle slot, whose process is started if necessary."""
        worker = self._workers[slot]
        if worker is None:
            with self._log.open("ab") as log:
                worker = _Worker(processes.start("-m", "medseg.tuning.worker", stderr=log))
            self._workers[slot] = worker
            assert worker.process.stdout is not None  # a pipe
            self._reader.add(slot, worker.process.stdout)
        worker.number = number
        self.reply(slot, request)

    def reply(self, slot: int, message: Mapping[str, Any]) -> None:
        """Sends a message to a worker; one that has died meanwhile is noticed by :meth:`wait`."""
        worker = self._workers[slot]
        if worker is not None and worker.process.stdin is not None:
            with contextlib.suppress(OSError):
                processes.send(message, worker.process.stdin)

    def wait(self, seconds: float) -> list[tuple[int, int, dict[str, Any]]]:
        """Slot, trial and message of what has arrived; ``{"event": "died"}`` if a worker has ended."""
        found: list[tuple[int, int, dict[str, Any]]] = []
        for slot, part in self._reader.wait(seconds):
            worker = self._workers[slot]
            if worker is None:
                continue
            worker.received += part
            *lines, rest = bytes(worker.received).split(b"\n")
            worker.received = bytearray(rest)
            number = worker.number
            for message in map(json.loads, lines):
                if number is not None:
                    found.append((slot, number, message))
                if message["event"] != "epoch":
                    worker.number = None
            if not part:
                how = processes.describe_exit(self._closed(slot, worker))
                if worker.number is not None:
                    found.append((slot, worker.number, {"event": "died", "how": how}))
        return found

    def _closed(self, slot: int, worker: _Worker) -> int:
        """Removes a worker and returns its exit code."""
        self._workers[slot] = None
        if worker.process.poll() is None:
            worker.process.kill()
        worker.process.wait()
        self._reader.remove(slot)
        return processes.close(worker.process)
