"""The process that segments cases for a batch: it may crash or be killed, the batch goes on.

``python -m medseg.batch_processing.worker`` reads one line of JSON a request from standard input: first the
order, then a job each. It answers with one line each: what it has loaded, then the records of a case. While a
case is segmented the next one is already read and prepared. Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from medseg.batch_processing.messages import BatchConfig, CaseJob, told
from medseg.errors import as_ours
from medseg.system.memory import no_gc, raise_thresholds

_LEAST_BYTES = 256 << 20
"""Room for small cases, whatever was asked for."""


def main() -> None:
    """Answers requests until standard input ends; then ends at once, whatever it is doing."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # They reach the whole group of processes; the parent decides what becomes of the case.
        signal.signal(number, signal.SIG_IGN)
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):  # libraries in C print; what they say of a crash is kept (stderr)
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
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
        _tell(answers, {"error": told(as_ours(error))})
        return
    _limit(max(room_bytes - _status("VmRSS"), _LEAST_BYTES))
    _tell(answers, {"ready": station.facts()})
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
        records = station.finish(case)
        del case
        _tell(answers, {"records": records})


def _listen(requests: BinaryIO, jobs: queue.Queue[Any]) -> None:
    """Hands on what is asked for. When the parent is gone, nothing more may be written."""
    for line in requests:
        jobs.put(json.loads(line))
    os._exit(0)


def _tell(answers: BinaryIO, facts: dict[str, Any]) -> None:
    try:
        answers.write(json.dumps(facts).encode() + b"\n")
        answers.flush()
    except OSError:  # the parent is gone
        os._exit(0)


def _status(field: str) -> int:
    """Bytes of this process by a field of /proc/self/status; 0 elsewhere than on Linux."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split(f"{field}:")[1].split()[0])
    return 0


def _limit(grow_bytes: int) -> None:
    """Lets this process grow by so much; beyond, allocations fail and the case with them (Linux)."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = _status("VmData") + grow_bytes
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


if __name__ == "__main__":
    main()
