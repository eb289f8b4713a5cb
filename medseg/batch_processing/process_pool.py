"""Worker processes on this machine, each with the models loaded once and a case or two at hand.

Memory is divided among them and each may grow to its share only, so that a case that needs more fails in
its process instead of ending the machine. Such a case, and those at hand when a process dies, are tried once
more, alone and with all the memory there is: what fails then is told as failed, with its reason.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, TypeAlias

from medseg.batch_processing.messages import BatchConfig, CaseJob, StopRequest, error_from_json, lost
from medseg.errors import MedsegError, ResourceError
from medseg.inference.case_result import CaseResult, ModelIdentity
from medseg.system import memory_budget, processes

WORKER_BYTES = 2 << 30
"""What a worker gets at least: a chest CT of 512 x 512 x 300 takes 1.1 GB, with the next one read ahead."""

_FOR_MEMORY = ("memory", "too-large")
_LOOK_SECONDS = 0.2
_START_SECONDS = 300


Tell: TypeAlias = Callable[[list[CaseResult]], None]
"""Given the results of a case, one a model."""


@dataclass(frozen=True)
class PoolSize:
    """How many workers there are, and what each may take.

    Attributes:
        workers: Processes.
        ahead: Whether each reads its next case while it segments one.
        room_bytes: Memory of each.
        all_bytes: Memory of all together, which a case that is tried alone gets.
    """

    workers: int
    ahead: bool
    room_bytes: int
    all_bytes: int

    @classmethod
    def planned(cls, *, cases: int, workers: int | None, memory_bytes: int | None) -> PoolSize:
        """One worker a core where memory allows, and at most one a case.

        Args:
            cases: How many there are to do.
            workers: As the user says; None to choose.
            memory_bytes: As the user says; None for nine tenths of what is free.

        Raises:
            ResourceError: less than 1 GiB (``memory``).
        """
        free = memory_budget.available_bytes()
        if memory_bytes is None:
            memory_bytes = int(0.9 * free) if free is not None else 4 * WORKER_BYTES
        if memory_bytes < 1 << 30:
            raise ResourceError(
                f"{memory_bytes / 2**30:.2g} GiB of memory are not enough to segment anything",
                remedy="give --memory at least 1G, or close other programs",
                reason="memory",
            )
        if workers is None:
            workers = min(_cores(), max(1, memory_bytes // WORKER_BYTES))
        workers = max(1, min(workers, cases))
        room = memory_bytes // workers
        return cls(workers, room >= WORKER_BYTES, room, memory_bytes)


@dataclass
class _Worker:
    """A process, and what it has at hand."""

    process: subprocess.Popen[bytes]
    said: IO[bytes]  # what it writes to stderr
    models: list[ModelIdentity] | None = None
    jobs: deque[CaseJob] = field(default_factory=deque)
    since: float = 0.0  # when it was started, or its first job became the first
    unread: bytes = b""


class ProcessPool:
    """Workers that do jobs.

    Args:
        order: What to do with every case.
        size: How many workers, and their memory.
        case_seconds: After so long with one case a worker is ended, as one that hangs.

    Raises:
        MedsegError: the models cannot be loaded; raised by :meth:`models`.
    """

    def __init__(self, order: BatchConfig, size: PoolSize, *, case_seconds: float) -> None:
        self.order, self.size, self.case_seconds = order, size, case_seconds
        self._selector = selectors.DefaultSelector()
        self._workers: list[_Worker] = [self._started(0, size.room_bytes, ahead=size.ahead)]
        self._again: list[CaseJob] = []

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def models(self) -> list[ModelIdentity]:
        """What the models are, once the first worker has loaded them."""
        first = self._workers[0]
        while first.models is None:
            self._look(StopRequest(), lambda results: None)
        return first.models

    def run(self, jobs: Iterable[CaseJob], tell: Tell, stop: StopRequest) -> None:
        """Does the jobs; ends early, with nothing at hand, when it is asked to stop.

        Args:
            jobs: In any order and number; they are taken as workers become free.
            tell: Given the results of a case, one a model.
            stop: Asked once, the cases at hand are finished; twice, they are dropped.

        Raises:
            MedsegError: a worker cannot be started.
        """
        waiting = iter(jobs)
        more = True
        while more or any(worker.jobs for worker in self._workers):
            if stop.asked > 1:
                return
            if stop.asked:
                more = False
            elif more:
                more = self._hand_out(waiting)
            self._look(stop, tell)
        alone, self._again = self._again, []
        if alone and not stop.asked:
            self._alone(alone, tell, stop)

    def end(self) -> None:
        """Ends all workers, at once."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            self._forget(worker)
        self._workers = []

    def _hand_out(self, waiting: Iterator[CaseJob]) -> bool:
        """Gives jobs to workers that have room for one; whether there may be more."""
        at_hand = 2 if self.size.ahead else 1
        # One after another, or the first would have two cases while the last has none.
        for depth in range(at_hand):
            for number in range(self.size.workers):
                if number == len(self._workers):
                    if any(worker.models is None for worker in self._workers):
                        break  # a worker that cannot be started is enough
                    self._workers.append(self._started(number, self.size.room_bytes, ahead=self.size.ahead))
                worker = self._workers[number]
                if len(worker.jobs) != depth:
                    continue
                job = next(waiting, None)
                if job is None:
                    return False
                self._give(worker, job)
        return True

    def _alone(self, jobs: Sequence[CaseJob], tell: Tell, stop: StopRequest) -> None:
        """Tries jobs once more: one at a time, with nobody beside and all the memory."""
        self.end()
        try:
            for job in jobs:
                if stop.asked:
                    return
                if not self._workers:
                    self._workers = [self._started(0, self.size.all_bytes, ahead=False)]
                (worker,) = self._workers
                self._give(worker, job)
                while worker.jobs and stop.asked < 2:
                    self._look(stop, tell, last=True)
        finally:
            self.end()

    def _started(self, number: int, room_bytes: int, *, ahead: bool) -> _Worker:
        # One thread each: sums in another order would make masks depend on the number of workers.
        said = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the worker is forgotten
        process = processes.start("-m", "medseg.batch_processing.worker", stderr=said)
        devices = self.order.device.split(",")
        order = self.order.plain() | {"device": devices[number % len(devices)]}
        worker = _Worker(process, said, since=time.monotonic())
        self._write(worker, order | {"room_bytes": room_bytes, "ahead": ahead})
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)
        return worker

    def _give(self, worker: _Worker, job: CaseJob) -> None:
        if not worker.jobs:
            worker.since = time.monotonic()
        worker.jobs.append(job)
        self._write(worker, {"case": job.case, "images": job.images, "models": job.models})

    def _write(self, worker: _Worker, data: dict[str, Any]) -> None:
        assert worker.process.stdin is not None
        try:
            processes.send(data, worker.process.stdin)
        except OSError:
            return  # it has died; the end of its answers tells

    def _look(self, stop: StopRequest, tell: Tell, *, last: bool = False) -> None:
        """Takes what workers answer, and notices those that died or hang."""
        for key, _ in self._selector.select(_LOOK_SECONDS):
            worker: _Worker = key.data
            part = os.read(key.fd, 1 << 20)
            if not part:
                self._died(worker, stop, tell, last=last)
                continue
            *lines, worker.unread = (worker.unread + part).split(b"\n")
            for line in lines:
                self._answered(worker, json.loads(line), tell, last=last)
        now = time.monotonic()
        for worker in list(self._workers):
            limit = _START_SECONDS if worker.models is None else self.case_seconds
            if (worker.jobs or worker.models is None) and now - worker.since > limit:
                worker.process.kill()
                worker.since = float("inf")  # its death is told once, by the end of its answers

    def _answered(self, worker: _Worker, answer: dict[str, Any], tell: Tell, *, last: bool) -> None:
        if "error" in answer:
            raise error_from_json(answer["error"])
        if "models" in answer:
            worker.models = [ModelIdentity.from_json(each) for each in answer["models"]]
            worker.since = time.monotonic()
            return
        job = worker.jobs.popleft()
        worker.since = time.monotonic()
        results = [CaseResult.from_json(each) for each in answer["results"]]
        short = [result for result in results if result.reason in _FOR_MEMORY]
        if short and not last:
            models = tuple(
                number for number, result in zip(job.models, results, strict=True) if result in short
            )
            self._again.append(CaseJob(job.case, job.images, models))
            results = [result for result in results if result not in short]
        if results:
            tell(results)

    def _died(self, worker: _Worker, stop: StopRequest, tell: Tell, *, last: bool) -> None:
        """Puts what a dead worker had at hand back; alone it is the case's own fault."""
        hung = worker.since == float("inf")
        how = self._forget(worker)
        number = self._workers.index(worker)
        if worker.models is None:
            self._workers.remove(worker)
            if stop.asked:  # Ctrl-C reached it while it was starting
                return
            raise ResourceError(
                f"a worker process ended before it was ready: {how}",
                remedy="see what medseg segment says of one of the cases",
                reason="worker",
            )
        jobs, worker.jobs = list(worker.jobs), deque()
        if last:
            self._workers.remove(worker)
            for job in jobs:
                tell(self._lost(worker, job, how, hung=hung))
            return
        if hung and jobs:
            tell(self._lost(worker, jobs.pop(0), how, hung=True))
        self._again += jobs
        ahead = self.size.ahead
        self._workers[number] = self._started(number, self.size.room_bytes, ahead=ahead)

    def _lost(self, worker: _Worker, job: CaseJob, how: str, *, hung: bool) -> list[CaseResult]:
        """Results of a case that nothing is known of but how its process ended."""
        error: MedsegError = ResourceError(
            f"the process that segmented it ended: {how}",
            remedy="its scan may be damaged, or larger than the memory; see what medseg segment says",
            reason="worker-died",
        )
        if hung:
            error = ResourceError(
                f"not done after {self.case_seconds / 60:g} minutes",
                remedy="give --case-minutes more time, or see what is special about this scan",
                reason="case-time",
            )
        assert worker.models is not None
        return lost(job, error, worker.models)

    def _forget(self, worker: _Worker) -> str:
        """Lets go of a process that has ended or is ending; how it ended, with its last words."""
        if worker.process.stdout is not None:
            self._selector.unregister(worker.process.stdout)
        code = processes.close(worker.process)
        how = processes.describe_exit(code)
        worker.said.seek(0)
        words = worker.said.read().decode(errors="replace").strip().splitlines()
        worker.said.close()
        return f"{how}: {words[-1][:200]}" if words and code > 0 else how


def _cores() -> int:
    """Cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
