"""Workers on a Ray cluster: actors with the models loaded, one per free core or share of a GPU."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from medseg.batch_processing.messages import (
    BatchConfig,
    CaseJob,
    StopRequest,
    error_from_json,
    error_to_json,
    lost,
)
from medseg.batch_processing.process_pool import WORKER_BYTES, split_short_of_memory, took_too_long
from medseg.batch_processing.worker import limit_memory
from medseg.errors import MedsegError, ResourceError
from medseg.inference.case_result import CaseResult, ModelIdentity
from medseg.system import memory_budget
from medseg.system.error_conversion import as_medseg_error

# A preempted node loses its cases; after the third time the case itself is to blame.
ATTEMPTS = 3
_LOOK_SECONDS = 0.5


class Actor:
    """A case pipeline in a process of the cluster."""

    def __init__(self, config: dict[str, Any], memory_bytes: int | None, *, alone: bool = False) -> None:
        self.error: MedsegError | None = None
        try:
            from medseg.batch_processing.case_pipeline import CasePipeline

            self.pipeline = CasePipeline(BatchConfig.of(config))
        except Exception as error:
            # An error in the constructor would look like the death of the actor.
            self.error = as_medseg_error(error)
        limit_memory(memory_bytes or _share_of_node(alone=alone))

    def models(self) -> dict[str, Any]:
        """The identities of the models, or the error raised while loading them."""
        if self.error is not None:
            return {"error": error_to_json(self.error)}
        return {"models": self.pipeline.models()}

    def do(self, job: CaseJob) -> list[CaseResult]:
        """The results of a case."""
        return self.pipeline.finish(self.pipeline.load(job))


@dataclass
class _Clock:
    """How long an actor has worked on its case."""

    loaded: Any  # an answer of the actor that comes when its models are loaded
    is_ready: bool = False
    answer: Any = None
    since: float = 0.0


_Running: TypeAlias = dict[Any, tuple[Any, CaseJob, int]]
"""Actor, case and attempt of every answer that is awaited."""


def _share_of_node(*, alone: bool) -> int:
    """Nine tenths of the free memory of this machine, divided among its cores unless a worker is alone."""
    free = memory_budget.available_bytes()
    if free is None:
        return WORKER_BYTES
    return max(WORKER_BYTES, int(0.9 * free) // (1 if alone else os.cpu_count() or 1))


class RayPool:
    """Actors of a Ray cluster; the journal and the table are written by the calling process.

    The output folder and the scans must have the same paths on all nodes.

    Args:
        config: How every case is processed.
        cases: Number of cases.
        address: Address of the cluster; None to start one on this machine, which ends with the batch.
        workers: Number of actors; by default one per core, or with ``gpus`` as many as the GPUs allow.
        gpus: GPUs per actor, such as 0.5; networks then run on ``cuda``.
        memory_bytes: Limit for all actors together; by default nine tenths of the free memory of
            a node, divided among its cores.
        case_seconds: An actor that takes longer for one case is killed.

    Raises:
        ResourceError: Ray is not installed (``missing-extra``), or no cluster answers (``cluster``).
    """

    def __init__(
        self,
        config: BatchConfig,
        *,
        cases: int,
        address: str | None,
        workers: int | None,
        gpus: float,
        memory_bytes: int | None = None,
        case_seconds: float = 7200.0,
    ) -> None:
        try:
            import ray
        except ImportError:
            raise ResourceError(
                "Ray is not installed",
                where="--engine ray",
                remedy="pip install 'medseg[ray]'",
                reason="missing-extra",
            ) from None
        self._ray = ray
        # Ray sends no usage statistics for a cluster started by `ray.init`; elsewhere its head node decides.
        own: dict[str, Any] = {} if address else {"include_dashboard": False, "num_cpus": workers}
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", **own)
        except Exception as error:
            raise ResourceError(
                f"no Ray cluster answers: {str(error).splitlines()[0][:200]}",
                where=address or "this machine",
                remedy="start one with `ray start --head`, or leave out --address",
                reason="cluster",
            ) from error
        # An actor sees only its own GPU.
        plain = config.plain() | ({"device": "cuda"} if gpus else {})
        total = ray.cluster_resources()
        most = int(total.get("GPU", 0) / gpus) if gpus else int(total.get("CPU", 1))
        count = max(1, min(workers or most, cases))
        remote = ray.remote(num_cpus=1, num_gpus=gpus)(Actor)
        share = memory_bytes and memory_bytes // count
        self.case_seconds = case_seconds
        self._start: Callable[[], Any] = lambda: remote.remote(plain, share)
        self._start_alone: Callable[[], Any] = lambda: remote.remote(plain, memory_bytes, alone=True)
        self._actors = [self._start() for _ in range(count)]
        self._models: list[ModelIdentity] = []
        self._clocks: dict[Any, _Clock] = {}

    def models(self) -> list[ModelIdentity]:
        """The identities of the models, once the first actor has loaded them."""
        if not self._models:
            try:
                answer = self._ray.get(self._actors[0].models.remote())
            except self._ray.exceptions.RayError as error:
                raise ResourceError(
                    f"no worker starts in the cluster: {str(error).splitlines()[0][:200]}",
                    remedy="check that medseg is installed on its nodes, and that a core or GPU is free",
                    reason="cluster",
                ) from error
            if "error" in answer:
                raise error_from_json(answer["error"])
            self._models = answer["models"]
        return self._models

    def run(
        self, jobs: Sequence[CaseJob], report: Callable[[list[CaseResult]], None], stop: StopRequest
    ) -> None:
        """Does the jobs, as :meth:`medseg.batch_processing.process_pool.ProcessPool.run`.

        Each actor works on one case and has another one waiting. Cases that lack memory are tried once more
        at the end, one at a time in a single actor with all the memory.
        """
        retries = self._work(jobs, report, stop, last=False)
        if not retries or stop.asked:
            return
        for actor in self._actors:
            self._ray.kill(actor)
        self._clocks.clear()
        self._start = self._start_alone
        self._actors = [self._start()]
        self._work(retries, report, stop, last=True)

    def _work(
        self,
        jobs: Sequence[CaseJob],
        report: Callable[[list[CaseResult]], None],
        stop: StopRequest,
        *,
        last: bool,
    ) -> list[CaseJob]:
        """Does the jobs with the present actors; unless it is the last time, returns those to try again."""
        waiting = deque((job, 1) for job in jobs)
        running: _Running = {}
        retries: list[CaseJob] = []
        for actor in self._actors:
            self._watch(actor)
        while (waiting and not stop.asked) or running:
            if stop.asked > 1:
                break
            for actor in [] if stop.asked else self._actors:
                while waiting and sum(one is actor for one, _, _ in running.values()) < 2:
                    job, attempt = waiting.popleft()
                    running[actor.do.remote(job)] = actor, job, attempt
            ready, _ = self._ray.wait(list(running), timeout=_LOOK_SECONDS)
            for answer in ready:
                if answer not in running:
                    continue
                actor, job, attempt = running.pop(answer)
                try:
                    results = self._ray.get(answer)
                except self._ray.exceptions.RayError as error:
                    self._replace(actor, running, waiting)
                    if attempt < ATTEMPTS:
                        waiting.append((job, attempt + 1))
                    else:
                        report(self._lost(job, error))
                    continue
                if not last:
                    again, results = split_short_of_memory(job, results)
                    retries += again
                if results:
                    report(results)
            for answer in self._overdue(running):
                actor, job, _ = running.pop(answer)
                self._ray.kill(actor)
                self._replace(actor, running, waiting)
                report(lost(job, took_too_long(self.case_seconds), self.models()))
        return retries

    def _replace(self, actor: Any, running: _Running, waiting: deque[tuple[CaseJob, int]]) -> None:
        """Replaces a dead actor by a new one, and queues the case that was waiting for it again."""
        others = [key for key, (one, _, _) in running.items() if one is actor]
        # Its other case was only waiting, which does not count as an attempt.
        waiting.extend(running.pop(key)[1:] for key in others)
        self._clocks.pop(actor, None)
        self._actors[self._actors.index(actor)] = another = self._start()
        self._watch(another)

    def _watch(self, actor: Any) -> None:
        """Asks an actor, before its first case, for its models; its clock starts with the answer."""
        self._clocks[actor] = _Clock(actor.models.remote())

    def _overdue(self, running: _Running) -> list[Any]:
        """The answers of actors that have worked on one case for too long; loading models does not count."""
        now, found = time.monotonic(), []
        for actor in self._actors:
            answer = next((key for key, (one, _, _) in running.items() if one is actor), None)
            clock = self._clocks[actor]
            if not clock.is_ready:
                clock.is_ready = bool(self._ray.wait([clock.loaded], timeout=0)[0])
                clock.since = now
            if answer is not clock.answer:
                clock.answer, clock.since = answer, now
            if answer is not None and clock.is_ready and now - clock.since > self.case_seconds:
                found.append(answer)
        return found

    def end(self) -> None:
        """Disconnects from the cluster; one that was started here is shut down."""
        self._ray.shutdown()

    def _lost(self, job: CaseJob, error: Exception) -> list[CaseResult]:
        named = ResourceError(
            f"the worker died {ATTEMPTS} times on this case: {str(error).splitlines()[0][:200]}",
            remedy="the scan may be damaged or too large for the memory: try it with medseg segment",
            reason="worker-died",
        )
        return lost(job, named, self.models())
