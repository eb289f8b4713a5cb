"""The same cases on a Ray cluster: actors that hold the models, wherever there is a core or a GPU for one."""

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

# A node that is preempted takes its cases with it; the third time it is the case's own doing.
ATTEMPTS = 3
_LOOK_SECONDS = 0.5


class Actor:
    """A station in a process of the cluster."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.error: MedsegError | None = None
        try:
            from medseg.batch_processing.case_pipeline import CasePipeline

            self.station = CasePipeline(BatchConfig.of(order))
        except Exception as error:
            # Raised in a constructor it would come as a death of the actor.
            self.error = as_medseg_error(error)

    def models(self) -> dict[str, Any]:
        """What the models are, or the error that loading them gave."""
        if self.error is not None:
            return {"error": error_to_json(self.error)}
        return {"models": self.station.models()}

    def do(self, job: CaseJob) -> list[CaseResult]:
        """The results of a case."""
        return self.station.finish(self.station.load(job))


class RayPool:
    """Actors of a Ray cluster; the journal and the table stay with the process that asks.

    The folder of the outputs and the scans must have the same paths on all nodes.

    Args:
        order: What to do with every case.
        cases: How many there are.
        address: Of the cluster; None for one on this machine alone, which ends with the batch.
        workers: Actors; by default as many as the cluster has cores (or GPUs, with ``gpus``).
        gpus: That each actor takes, such as 0.5; then networks run on ``cuda``.

    Raises:
        ResourceError: Ray is not installed (``missing-extra``), or there is no such cluster (``cluster``).
    """

    def __init__(
        self, order: BatchConfig, *, cases: int, address: str | None, workers: int | None, gpus: float
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
        # Ray reports no use of a cluster that `ray.init` starts; of another one its head node decides.
        own: dict[str, Any] = {} if address else {"include_dashboard": False, "num_cpus": workers}
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", **own)
        except Exception as error:
            raise ResourceError(
                f"no Ray cluster answers: {str(error).splitlines()[0][:200]}",
                where=address or "this machine",
                remedy="start one with `ray start --head`, or leave --address out",
                reason="cluster",
            ) from error
        # A GPU that an actor has is the only one it sees.
        plain = order.plain() | ({"device": "cuda"} if gpus else {})
        there = ray.cluster_resources()
        most = int(there.get("GPU", 0) / gpus) if gpus else int(there.get("CPU", 1))
        count = max(1, min(workers or most, cases))
        remote = ray.remote(num_cpus=1, num_gpus=gpus)(Actor)
        self._start: Callable[[], Any] = lambda: remote.remote(plain)
        self._actors = [self._start() for _ in range(count)]
        self._models: list[ModelIdentity] = []

    def models(self) -> list[ModelIdentity]:
        """What the models are, once the first actor has loaded them."""
        if not self._models:
            try:
                answer = self._ray.get(self._actors[0].models.remote())
            except self._ray.exceptions.RayError as error:
                raise ResourceError(
                    f"no worker starts in the cluster: {str(error).splitlines()[0][:200]}",
                    remedy="check that medseg is installed on its nodes, and a core or GPU free",
                    reason="cluster",
                ) from error
            if "error" in answer:
                raise error_from_json(answer["error"])
            self._models = answer["models"]
        return self._models

    def run(
        self, jobs: Sequence[CaseJob], tell: Callable[[list[CaseResult]], None], stop: StopRequest
    ) -> None:
        """See :meth:`medseg.batch_processing.process_pool.ProcessPool.run`.

        Each actor has one case at hand, and one that waits.
        """
        waiting = deque((job, 1) for job in jobs)
        at_hand: dict[Any, tuple[Any, CaseJob, int]] = {}
        while (waiting and not stop.asked) or at_hand:
            if stop.asked > 1:
                return
            for actor in [] if stop.asked else self._actors:
                while waiting and sum(one is actor for one, _, _ in at_hand.values()) < 2:
                    job, attempt = waiting.popleft()
                    at_hand[actor.do.remote(job)] = actor, job, attempt
            ready, _ = self._ray.wait(list(at_hand), timeout=_LOOK_SECONDS)
            for answer in ready:
                if answer not in at_hand:
                    continue
                actor, job, attempt = at_hand.pop(answer)
                try:
                    tell(self._ray.get(answer))
                except self._ray.exceptions.RayError as error:
                    others = [key for key, (one, _, _) in at_hand.items() if one is actor]
                    # Its second case had only been waiting: that is no attempt.
                    waiting.extend(at_hand.pop(key)[1:] for key in others)
                    self._actors[self._actors.index(actor)] = self._start()
                    if attempt < ATTEMPTS:
                        waiting.append((job, attempt + 1))
                    else:
                        tell(self._lost(job, error))

    def end(self) -> None:
        """Lets go of the cluster; one that was started here ends."""
        self._ray.shutdown()

    def _lost(self, job: CaseJob, error: Exception) -> list[CaseResult]:
        named = ResourceError(
            f"the process that segmented it ended {ATTEMPTS} times: {str(error).splitlines()[0][:200]}",
            remedy="its scan may be damaged, or larger than the memory; see what medseg segment says",
            reason="worker-died",
        )
        return lost(job, named, self.models())
