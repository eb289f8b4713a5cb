"""Workers on a Ray cluster: actors with the models loaded, one per free core or share of a GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from medseg.batch_processing.messages import (
    BatchConfig,
    CaseJob,
    StopRequest,
    error_from_json,
    error_to_json,
    lost,
)
from medseg.errors import MedsegError, ResourceError
from medseg.inference.case_result import CaseResult, ModelIdentity
from medseg.system.error_conversion import as_medseg_error

# A preempted node loses its cases; after the third time the case itself is to blame.
ATTEMPTS = 3
_LOOK_SECONDS = 0.5


class Actor:
    """A case pipeline in a process of the cluster."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.error: MedsegError | None = None
        try:
            from medseg.batch_processing.case_pipeline import CasePipeline

            self.pipeline = CasePipeline(BatchConfig.of(config))
        except Exception as error:
            # An error in the constructor would look like the death of the actor.
            self.error = as_medseg_error(error)

    def models(self) -> dict[str, Any]:
        """The identities of the models, or the error raised while loading them."""
        if self.error is not None:
            return {"error": error_to_json(self.error)}
        return {"models": self.pipeline.models()}

    def do(self, job: CaseJob) -> list[CaseResult]:
        """The results of a case."""
        return self.pipeline.finish(self.pipeline.load(job))


class RayPool:
    """Actors of a Ray cluster; the journal and the table are written by the calling process.

    The output folder and the scans must have the same paths on all nodes.

    Args:
        config: How every case is processed.
        cases: Number of cases.
        address: Address of the cluster; None to start one on this machine, which ends with the batch.
        workers: Number of actors; by default one per core, or with ``gpus`` as many as the GPUs allow.
        gpus: GPUs per actor, such as 0.5; networks then run on ``cuda``.

    Raises:
        ResourceError: Ray is not installed (``missing-extra``), or no cluster answers (``cluster``).
    """

    def __init__(
        self, config: BatchConfig, *, cases: int, address: str | None, workers: int | None, gpus: float
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
        self._start: Callable[[], Any] = lambda: remote.remote(plain)
        self._actors = [self._start() for _ in range(count)]
        self._models: list[ModelIdentity] = []

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

        Each actor works on one case and has another one waiting.
        """
        waiting = deque((job, 1) for job in jobs)
        running: dict[Any, tuple[Any, CaseJob, int]] = {}
        while (waiting and not stop.asked) or running:
            if stop.asked > 1:
                return
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
                    report(self._ray.get(answer))
                except self._ray.exceptions.RayError as error:
                    others = [key for key, (one, _, _) in running.items() if one is actor]
                    # Its other case was only waiting, which does not count as an attempt.
                    waiting.extend(running.pop(key)[1:] for key in others)
                    self._actors[self._actors.index(actor)] = self._start()
                    if attempt < ATTEMPTS:
                        waiting.append((job, attempt + 1))
                    else:
                        report(self._lost(job, error))

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
