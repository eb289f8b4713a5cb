"""Worker processes on this machine, each with the models loaded once.

Memory is divided among them and each may grow to its share only, so that a case that needs more fails in its
process instead of bringing the machine down. Such a case, and the cases of a process that dies, are tried
once more, alone and with all the memory. If that fails too, the case is reported as failed, with its reason.
"""

from __future__ import annotations

import json
import os
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
from medseg.system.notices import notify
from medseg.system.pipe_reader import PipeReader

WORKER_BYTES = 2 << 30
"""Least memory per worker: 512 x 512 x 300 voxels take 1.2 GB, and some 0.3 GB for the next scan."""

AHEAD_BYTES = 1 << 29
"""Memory of each further scan that is read ahead."""

_MOST_READERS = 8
_MEMORY_REASONS = ("memory", "too-large")
_POLL_SECONDS = 0.2
_START_SECONDS = 300


Report: TypeAlias = Callable[[list[CaseResult]], None]
"""A callback that receives the results of a case, one per model."""


@dataclass(frozen=True)
class PoolSize:
    """Number of workers and their memory.

    Attributes:
        workers: Number of processes.
        ahead: Number of cases that each reads while it segments one.
        worker_bytes: Memory of each worker.
        total_bytes: Memory of all workers together; a case that is tried alone gets it all.
    """

    workers: int
    ahead: int
    worker_bytes: int
    total_bytes: int

    @property
    def jobs(self) -> int:
        """Cases that a worker has at once: one is segmented, and with several readers one is written."""
        return self.ahead + (2 if self.ahead > 1 else 1)

    @classmethod
    def planned(
        cls, *, cases: int, workers: int | None, memory_bytes: int | None, on_gpu: bool = False
    ) -> PoolSize:
        """One worker per core as far as memory allows, and at most one per case; each reads one case ahead.

        On a GPU, each worker reads as many cases ahead as cores and memory allow, so that the GPU need not
        wait.

        Args:
            cases: Number of cases to do.
            workers: Number chosen by the user; None to choose one.
            memory_bytes: Limit chosen by the user; None for nine tenths of the free memory.
            on_gpu: Whether the networks run on GPUs.

        Raises:
            ResourceError: it is less than 1 GiB (``memory``).
        """
        free = memory_budget.available_bytes()
        if memory_bytes is None:
            memory_bytes = int(0.9 * free) if free is not None else 4 * WORKER_BYTES
        if memory_bytes < 1 << 30:
            raise ResourceError(
                f"{memory_bytes / 2**30:.2g} GiB of memory is too little to segment anything",
                remedy="give --memory at least 1G, or close other programs",
                reason="memory",
            )
        if workers is None:
            workers = min(_cores(), max(1, memory_bytes // WORKER_BYTES))
        workers = max(1, min(workers, cases))
        share = memory_bytes // workers
        ahead = int(share >= WORKER_BYTES)
        if on_gpu and ahead:
            room = 1 + (share - WORKER_BYTES) // AHEAD_BYTES
            ahead = max(1, min(_cores() // workers, room, _MOST_READERS))
        return cls(workers, ahead, share, memory_bytes)


@dataclass
class _Worker:
    """A process and its cases."""

    process: subprocess.Popen[bytes]
    stderr: IO[bytes]
    models: list[ModelIdentity] | None = None
    jobs: deque[CaseJob] = field(default_factory=deque)
    since: float = 0.0  # when it was started, or began its current job
    unread: bytes = b""


class ProcessPool:
    """Worker processes of this machine.

    Args:
        config: How every case is processed.
        size: Number of workers and their memory.
        case_seconds: A worker that takes longer for one case is killed.

    Raises:
        MedsegError: the models cannot be loaded; raised by :meth:`models`.
    """

    def __init__(self, config: BatchConfig, size: PoolSize, *, case_seconds: float) -> None:
        self.config, self.size, self.case_seconds = config, size, case_seconds
        self._answers = PipeReader()
        if not processes.can_limit_growth():
            notify(
                "memory-not-limited",
                "this system cannot limit the memory of a process: a scan that is too large slows everything "
                "down instead of failing",
                remedy="choose fewer --workers if that happens",
            )
        self._workers: list[_Worker] = [self._start(0, size.worker_bytes, ahead=size.ahead)]
        self._retries: list[CaseJob] = []

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def models(self) -> list[ModelIdentity]:
        """The identities of the models, once the first worker has loaded them."""
        first = self._workers[0]
        while first.models is None:
            self._poll(StopRequest(), lambda results: None)
        return first.models

    def run(self, jobs: Iterable[CaseJob], report: Report, stop: StopRequest) -> None:
        """Does the jobs; returns early when asked to stop.

        Args:
            jobs: Any number; each is taken when a worker becomes free.
            report: Receives the results of each case, one per model.
            stop: Asked once, running cases are finished; asked twice, they are abandoned.

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
            self._poll(stop, report)
        retries, self._retries = self._retries, []
        if retries and not stop.asked:
            self._retry_alone(retries, report, stop)

    def end(self) -> None:
        """Kills all workers."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            self._close(worker)
        self._workers = []

    def _hand_out(self, waiting: Iterator[CaseJob]) -> bool:
        """Gives jobs to workers that can take one; returns whether jobs may be left."""
        # First one case for each worker, then those to read ahead.
        for depth in range(self.size.jobs):
            for number in range(self.size.workers):
                if number == len(self._workers):
                    if any(worker.models is None for worker in self._workers):
                        break  # if workers cannot start, one failure is enough
                    self._workers.append(self._start(number, self.size.worker_bytes, ahead=self.size.ahead))
                worker = self._workers[number]
                if len(worker.jobs) != depth:
                    continue
                job = next(waiting, None)
                if job is None:
                    return False
                self._give(worker, job)
        return True

    def _retry_alone(self, jobs: Sequence[CaseJob], report: Report, stop: StopRequest) -> None:
        """Tries jobs once more, one at a time in a single worker with all the memory."""
        self.end()
        try:
            for job in jobs:
                if stop.asked:
                    return
                if not self._workers:
                    self._workers = [self._start(0, self.size.total_bytes, ahead=0)]
                (worker,) = self._workers
                self._give(worker, job)
                while worker.jobs and stop.asked < 2:
                    self._poll(stop, report, last=True)
        finally:
            self.end()

    def _start(self, number: int, worker_bytes: int, *, ahead: int) -> _Worker:
        # One thread each: otherwise the order of sums, and so the masks, would depend on the number of
        # workers.
        stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        process = processes.start("-m", "medseg.batch_processing.worker", stderr=stderr)
        devices = self.config.device.split(",")
        config = self.config.plain() | {"device": devices[number % len(devices)]}
        worker = _Worker(process, stderr, since=time.monotonic())
        self._write(worker, config | {"memory_bytes": worker_bytes, "ahead": ahead})
        assert process.stdout is not None
        self._answers.add(id(worker), process.stdout)
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
            return  # it has died, which _poll sees at the end of its output

    def _poll(self, stop: StopRequest, report: Report, *, last: bool = False) -> None:
        """Reads the answers of workers, and detects those that died or hang."""
        workers = {id(worker): worker for worker in self._workers}
        for key, part in self._answers.wait(_POLL_SECONDS):
            worker = workers[key]
            if not part:
                self._died(worker, stop, report, last=last)
                continue
            *lines, worker.unread = (worker.unread + part).split(b"\n")
            for line in lines:
                self._receive(worker, json.loads(line), report, last=last)
        now = time.monotonic()
        for worker in list(self._workers):
            limit = _START_SECONDS if worker.models is None else self.case_seconds
            if (worker.jobs or worker.models is None) and now - worker.since > limit:
                worker.process.kill()
                worker.since = float("inf")  # reported once, at the end of its output

    def _receive(self, worker: _Worker, answer: dict[str, Any], report: Report, *, last: bool) -> None:
        if "error" in answer:
            raise error_from_json(answer["error"])
        if "models" in answer:
            worker.models = [ModelIdentity.from_json(each) for each in answer["models"]]
            worker.since = time.monotonic()
            return
        job = worker.jobs.popleft()
        worker.since = time.monotonic()
        results = [CaseResult.from_json(each) for each in answer["results"]]
        if not last:
            again, results = split_short_of_memory(job, results)
            self._retries += again
        if results:
            report(results)

    def _died(self, worker: _Worker, stop: StopRequest, report: Report, *, last: bool) -> None:
        """Queues the cases of a dead worker to be tried alone; a case that was alone has failed."""
        hung = worker.since == float("inf")
        how = self._close(worker)
        number = self._workers.index(worker)
        if worker.models is None:
            self._workers.remove(worker)
            if stop.asked:  # Ctrl-C while it was starting
                return
            raise ResourceError(
                f"a worker process ended before it was ready: {how}",
                remedy="try one of the cases with medseg segment",
                reason="worker",
            )
        jobs, worker.jobs = list(worker.jobs), deque()
        if last:
            self._workers.remove(worker)
            for job in jobs:
                report(self._lost(worker, job, how, hung=hung))
            return
        if hung and jobs:
            report(self._lost(worker, jobs.pop(0), how, hung=True))
        self._retries += jobs
        ahead = self.size.ahead
        self._workers[number] = self._start(number, self.size.worker_bytes, ahead=ahead)

    def _lost(self, worker: _Worker, job: CaseJob, how: str, *, hung: bool) -> list[CaseResult]:
        """Failures of a case whose process ended without an answer."""
        error: MedsegError = ResourceError(
            f"the worker died on this case: {how}",
            remedy="the scan may be damaged or too large for the memory: try it with medseg segment",
            reason="worker-died",
        )
        if hung:
            error = took_too_long(self.case_seconds)
        assert worker.models is not None
        return lost(job, error, worker.models)

    def _close(self, worker: _Worker) -> str:
        """Closes a process that has ended or is ending; returns how, with its last line on stderr."""
        if worker.process.stdout is not None:
            self._answers.remove(id(worker))
        code = processes.close(worker.process)
        how = processes.describe_exit(code)
        worker.stderr.seek(0)
        lines = worker.stderr.read().decode(errors="replace").strip().splitlines()
        worker.stderr.close()
        return f"{how}: {lines[-1][:200]}" if lines and code > 0 else how


def split_short_of_memory(
    job: CaseJob, results: Sequence[CaseResult]
) -> tuple[list[CaseJob], list[CaseResult]]:
    """The job to try once more with all the memory, if any model lacked memory, and the other results."""
    short = [result.reason in _MEMORY_REASONS for result in results]
    models = tuple(number for number, lacked in zip(job.models, short, strict=True) if lacked)
    others = [result for result, lacked in zip(results, short, strict=True) if not lacked]
    return [CaseJob(job.case, job.images, models)] if models else [], others


def took_too_long(case_seconds: float) -> ResourceError:
    """The error of a case that was not finished in time (``case-time``)."""
    return ResourceError(
        f"not finished after {case_seconds / 60:g} minutes",
        remedy="raise --case-minutes, or find out what is special about this scan",
        reason="case-time",
    )


def _cores() -> int:
    """Number of cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
