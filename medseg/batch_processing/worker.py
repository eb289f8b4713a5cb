"""The process that segments cases for a batch: it may crash or be killed, the batch goes on.

``python -m medseg.batch_processing.worker`` reads one line of JSON a request from standard input: first the
order, then a job each. It answers with one line each: what it has loaded, then the results of a case. While a
case is segmented the next one is already read and prepared. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
import traceback
from collections.abc import Iterator
from typing import Any, BinaryIO

from medseg.batch_processing.messages import BatchConfig, CaseJob, error_to_json
from medseg.system.error_conversion import as_medseg_error
from medseg.system.memory import no_gc, raise_thresholds
from medseg.system.processes import ignore_signals, limit_growth, send, status_bytes, take_pipes

_LEAST_BYTES = 256 << 20
"""Room for small cases, whatever was asked for."""


def main() -> None:
    """Answers requests until standard input ends; then ends at once, whatever it is doing."""
    ignore_signals(signal.SIGINT, signal.SIGTERM)
    # What libraries say before a crash is kept: the parent reads it.
    requests, answers = take_pipes(silence_stderr=False)
    serve(requests, answers)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """See :func:`main`."""
    order = json.loads(requests.readline())
    room_bytes = order.pop("room_bytes")
    ahead = order.pop("ahead")
    raise_thresholds()
    try:
        with no_gc():
            from medseg.batch_processing.case_pipeline import CasePipeline

            station = CasePipeline(BatchConfig.of(order))
    except Exception as error:
        _tell(answers, {"error": error_to_json(as_medseg_error(error))})
        return
    limit_growth(max(room_bytes - status_bytes("VmRSS"), _LEAST_BYTES))
    _tell(answers, {"models": [each.to_json() for each in station.models()]})
    jobs: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_listen, args=(requests, jobs), daemon=True).start()
    loaded: queue.Queue[Any] = queue.Queue(maxsize=1)

    def load() -> None:
        try:
            for data in iter(jobs.get, None):
                loaded.put(station.load(CaseJob(data["case"], tuple(data["images"]), tuple(data["models"]))))
        except BaseException:  # without this thread the process would wait for ever
            traceback.print_exc()
            os._exit(1)

    if ahead:
        threading.Thread(target=load, daemon=True).start()
        cases: Iterator[Any] = iter(loaded.get, None)
    else:
        cases = (
            station.load(CaseJob(data["case"], tuple(data["images"]), tuple(data["models"])))
            for data in iter(jobs.get, None)
        )
    for case in cases:
        results = station.finish(case)
        del case
        _tell(answers, {"results": [each.to_json() for each in results]})


def _listen(requests: BinaryIO, jobs: queue.Queue[Any]) -> None:
    """Hands on what is asked for. When the parent is gone, nothing more may be written."""
    for line in requests:
        jobs.put(json.loads(line))
    os._exit(0)


def _tell(answers: BinaryIO, facts: dict[str, Any]) -> None:
    try:
        send(facts, answers)
    except OSError:  # the parent is gone
        os._exit(0)


if __name__ == "__main__":
    main()
