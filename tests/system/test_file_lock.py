"""Only one process holds a lock; the lock of a dead process is free."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from medseg.errors import UsageError
from medseg.system.file_lock import locked

HOLDER = """
import os, sys, time
from pathlib import Path
from medseg.system.file_lock import locked
with locked(Path(sys.argv[1]), remedy=""):
    if len(sys.argv) > 2 and os.fork() == 0:
        time.sleep(float(sys.argv[2]))  # an orphaned worker, which shares the lock
        os._exit(0)
    print("held", flush=True)
    time.sleep(100)
"""


def holder(path, *arguments):
    child = subprocess.Popen([sys.executable, "-c", HOLDER, path, *arguments], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    return child


def test_a_second_process_is_refused_and_a_dead_one_does_not_block(tmp_path):
    path = tmp_path / ".lock"
    with holder(path) as other:
        with (
            pytest.raises(UsageError, match=f"process {other.pid} on ") as caught,
            locked(path, remedy="wait"),
        ):
            pass
        assert caught.value.reason == "in-use"
        assert caught.value.remedy == "wait"
        other.kill()
    with locked(path, remedy="wait"):
        assert json.loads((tmp_path / ".lock.json").read_text()) == {
            "pid": os.getpid(),
            "host": socket.gethostname(),
        }
    assert not (tmp_path / ".lock.json").exists()


def test_orphaned_workers_of_a_dead_owner_are_waited_for(tmp_path):
    path = tmp_path / ".lock"
    with holder(path, "1.5") as other:
        other.kill()
        other.wait()
        with locked(path, remedy="wait"):
            pass
