"""A process that segments cases for a batch. If it crashes or is killed, the batch continues.

``python -m medseg.batch_processing.worker`` reads requests from standard input, one line of JSON each: first
the configuration, then jobs. It answers each with one line: the loaded models, then the results of a case.
While one case is segmented, the next are already being read and prepared, and on a GPU the last one is being
written: the process owns the GPU, and only one case at a time is on it. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, BinaryIO

from medseg.batch_processing.messages import BatchConfig, CaseJob, error_to_json
from medseg.system.error_conversion import as_medseg_error
from medseg.system.memory import no_gc, raise_thresholds
from medseg.system.processes import ignore_signals, limit_growth, send, status_bytes, take_pipes

if TYPE_CHECKING:
    from medseg.batch_processing.case_pipeline import CasePipeline
    from medseg.inference.case_result import CaseResult

# One is segmented, the other one is written.
_FINISHERS = 2

_LEAST_BYTES = 256 << 20
"""Memory that a worker may use beyond its models in any case, enough for small scans."""


def main() -> None:
    """Answers requests until standard input is closed; then exits at once, even in the middle of a case."""
    ignore_signals(signal.SIGINT, signal.SIGTERM)
    # What libraries print before a crash explains it: the parent reads it.
    requests, answers = take_pipes(silence_stderr=False)
    serve(requests, answers)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answers requests; see :func:`main`."""
    config = json.loads(requests.readline())
    memory_bytes = config.pop("memory_bytes")
    ahead = config.pop("ahead")
    raise_thresholds()
    try:
        with no_gc():
            from medseg.batch_processing.case_pipeline import CasePipeline

            pipeline = CasePipeline(BatchConfig.of(config))
    except Exception as error:
        _answer(answers, {"error": error_to_json(as_medseg_error(error))})
        return
    limit_memory(memory_bytes)
    _answer(answers, {"models": [each.to_json() for each in pipeline.models()]})
    jobs: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_listen, args=(requests, jobs), daemon=True).start()
    for results in _results(pipeline, _cases(pipeline, jobs, ahead)):
        _answer(answers, {"results": [each.to_json() for each in results]})


def _cases(pipeline: CasePipeline, jobs: queue.Queue[Any], ahead: int) -> Iterator[Any]:
    """The loaded cases in the order of the jobs; so many threads read and prepare those that follow."""

    def load(data: dict[str, Any]) -> Any:
        try:
            return pipeline.load(CaseJob(data["case"], tuple(data["images"]), tuple(data["models"])))
        except BaseException:  # otherwise the process would wait forever
            traceback.print_exc()
            os._exit(1)

    if not ahead:
        yield from map(load, iter(jobs.get, None))
        return
    loading: queue.Queue[Future[Any]] = queue.Queue(maxsize=ahead)
    readers = ThreadPoolExecutor(ahead)

    def feed() -> None:
        for data in iter(jobs.get, None):
            loading.put(readers.submit(load, data))

    threading.Thread(target=feed, daemon=True).start()
    while True:
        yield loading.get().result()


def _results(pipeline: CasePipeline, cases: Iterator[Any]) -> Iterator[list[CaseResult]]:
    """The results in the order of the cases. On a GPU a case is written while the next one is segmented."""
    if not pipeline.shares_device:
        for case in cases:
            results = pipeline.finish(case)
            del case
            yield results
        return
    done: queue.Queue[Future[list[CaseResult]]] = queue.Queue(maxsize=_FINISHERS)

    def feed() -> None:
        with ThreadPoolExecutor(_FINISHERS) as finishers:
            for case in cases:
                future = finishers.submit(pipeline.finish, case)
                del case
                done.put(future)

    threading.Thread(target=feed, daemon=True).start()
    while True:
        yield done.get().result()


def limit_memory(memory_bytes: int) -> None:
    """Limits this process, once its models are loaded, to so much memory; small scans fit in any case."""
    limit_growth(max(memory_bytes - status_bytes("VmRSS"), _LEAST_BYTES))


def _listen(requests: BinaryIO, jobs: queue.Queue[Any]) -> None:
    """Puts requests into the queue. When the parent is gone, exits without writing anything more."""
    for line in requests:
        jobs.put(json.loads(line))
    os._exit(0)


def _answer(answers: BinaryIO, facts: dict[str, Any]) -> None:
    try:
        send(facts, answers)
    except OSError:  # the parent is gone
        os._exit(0)


if __name__ == "__main__":
    main()
