"""What a parent and its workers share, tried with a small worker."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from medseg.system import processes

WORKER = """
import os, signal, sys
from medseg.system.processes import ignore_signals, limit_growth, send, take_pipes
ignore_signals(signal.SIGINT)
requests, answers = take_pipes(silence_stderr=False)
os.write(1, b"a library prints")
for line in requests:
    if line == b"die\\n":
        os.kill(os.getpid(), signal.SIGSEGV)
    if line == b"limit\\n":
        limit_growth(64 << 20)
        try:
            found = len(bytes(512 << 20))
        except MemoryError:
            found = "no memory"
        send({"found": found, "small": len(bytes(16 << 20))}, answers)
        continue
    if line == b"interrupt\\n":
        os.kill(os.getpid(), signal.SIGINT)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    send({"path": sys.path, "threads": [os.environ[name] for name in names], "echo": line.decode()}, answers)
"""


@pytest.fixture
def worker(tmp_path):
    script = tmp_path / "small_worker.py"
    script.write_text(WORKER)
    process = processes.start(str(script), stderr=subprocess.DEVNULL)
    yield process
    processes.close(process, seconds=5)


def answer_of(worker: subprocess.Popen[bytes], line: str) -> dict[str, object]:
    processes.write_all(f"{line}\n".encode(), worker.stdin)
    return json.loads(worker.stdout.readline())


def test_a_worker_imports_what_its_parent_imports_with_one_thread(worker, tmp_path):
    answer = answer_of(worker, "hello")
    assert answer["echo"] == "hello\n"
    assert answer["threads"] == ["1", "1"]
    assert {os.path.abspath(path) for path in sys.path if path} <= set(answer["path"])  # noqa: PTH100
    assert str(tmp_path) not in answer["path"], "modules must not be imported from the folder of the script"


def test_workers_ignore_ctrl_c(worker):
    assert answer_of(worker, "interrupt")["echo"] == "interrupt\n"


def test_a_worker_ends_with_its_standard_input(worker):
    answer_of(worker, "hello")
    assert processes.close(worker) == 0


def test_a_crash_is_described_by_its_signal(worker):
    processes.write_all(b"die\n", worker.stdin)
    assert worker.stdout.readline() == b""
    assert processes.describe_exit(processes.close(worker)) == "SIGSEGV"
    assert processes.describe_exit(3) == "exit code 3"


def test_a_worker_that_does_not_end_is_killed(tmp_path):
    script = tmp_path / "stubborn.py"
    script.write_text("import time\nprint(flush=True)\ntime.sleep(600)\n")
    process = processes.start(str(script), stderr=subprocess.DEVNULL)
    process.stdout.readline()
    assert processes.exit_code(process, 0.01) is None
    assert processes.close(process, seconds=0.01) == -signal.SIGKILL


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="limits are set on Linux")
def test_a_worker_grows_to_its_limit_only(worker):
    assert answer_of(worker, "limit") == {"found": "no memory", "small": 16 << 20}


def test_partial_writes_to_a_pipe_are_completed():
    class Pieces(io.BytesIO):
        def write(self, data):
            return super().write(data[:3])

    pipe = Pieces()
    processes.send({"ä": 1}, pipe)
    assert pipe.getvalue() == b'{"\\u00e4": 1}\n'


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_does_not_end_a_worker_that_is_starting(number):
    process = processes.start("-c", "print('ready')", stderr=subprocess.DEVNULL)
    process.send_signal(number)
    assert process.stdout is not None
    assert process.stdout.read() == b"ready\n"
    assert processes.close(process) == 0
    assert number not in signal.pthread_sigmask(signal.SIG_BLOCK, ())  # this process still receives it
