"""Calls that only POSIX systems or Linux have: each use is listed with what other systems do instead."""

from __future__ import annotations

import ast
import json
import os
import select
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

import medseg
from medseg.batch_processing import process_pool
from medseg.batch_processing.process_pool import ProcessPool
from medseg.cli import early_exit
from medseg.datasets import manifest
from medseg.errors import UsageError
from medseg.serving import server
from medseg.system import file_lock, memory_budget, processes
from medseg.system.atomic_write import replacing
from medseg.system.notices import collect_notices

PACKAGE = Path(medseg.__file__).parent
MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "pty", "tty", "selectors", "posix", "syslog"}
NAMES = {
    "os": {
        "fork", "forkpty", "getuid", "geteuid", "getgid", "setsid", "killpg", "getpgid", "setpgid", "uname",
        "statvfs", "mkfifo", "mknod", "set_blocking", "sched_getaffinity", "sched_setaffinity", "wait4",
        "nice", "pread", "pwrite", "posix_fadvise", "posix_fallocate", "sendfile", "fchmod", "fchown",
        "chown", "sync", "fdatasync", "register_at_fork", "getloadavg", "sysconf", "O_NONBLOCK",
        "O_DIRECTORY", "O_NOFOLLOW",
    },
    "signal": {
        "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGALRM", "SIGPIPE", "SIGCHLD", "alarm", "setitimer",
        "pthread_sigmask", "pthread_kill", "sigwait", "SIG_BLOCK", "SIG_SETMASK", "SIG_UNBLOCK",
    },
    "select": {"select", "poll", "epoll", "kqueue", "POLLOUT", "POLLERR", "POLLHUP"},
}  # fmt: skip
# Where a call is used, and why that is safe on other systems.
ALLOWED = {
    ("batch_processing/process_pool.py", "os.sched_getaffinity"): "AttributeError: all cores",
    ("cli/early_exit.py", "select.poll"): "hasattr",
    ("cli/early_exit.py", "select.POLLOUT"): "hasattr",
    ("cli/early_exit.py", "select.POLLERR"): "hasattr",
    ("cli/early_exit.py", "select.POLLHUP"): "hasattr",
    ("io/decoder/client.py", "os.register_at_fork"): "hasattr: no forks there",
    ("io/decoder/worker.py", "signal.alarm"): "hasattr: a decoder that hangs outlives a killed parent",
    ("system/memory_budget.py", "os.sysconf"): "AttributeError, or no /proc/self/statm: unknown",
    ("system/memory_budget.py", "resource"): "ImportError: no limit",
    ("system/processes.py", "os.sched_getaffinity"): "AttributeError: all cores",
    ("system/processes.py", "resource"): "no /proc/self/status: memory is not limited, with a notice",
    ("system/processes.py", "signal.pthread_sigmask"): "hasattr",
    ("system/processes.py", "signal.SIG_BLOCK"): "hasattr",
    ("system/processes.py", "signal.SIG_SETMASK"): "hasattr",
}


def uses(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in NAMES.get(node.value.id, ()):
                found.add(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in MODULES}
        elif isinstance(node, ast.ImportFrom) and node.module in (*MODULES, *NAMES):
            found |= {
                node.module if node.module in MODULES else f"{node.module}.{alias.name}"
                for alias in node.names
                if node.module in MODULES or alias.name in NAMES[node.module]
            }
    return found


def test_calls_of_posix_systems_are_listed_with_what_others_do():
    found = {
        (path.relative_to(PACKAGE).as_posix(), use) for path in PACKAGE.rglob("*.py") for use in uses(path)
    }
    assert found == set(ALLOWED)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import os\nos.fork()", {"os.fork"}),
        ("import fcntl", {"fcntl"}),
        ("from os import fork, path", {"os.fork"}),
        ("def f():\n    import resource\n", {"resource"}),
        ("import select\nselect.select([], [], [])", {"select.select"}),
        ("from select import select", {"select.select"}),
        ("import os\nos.path.join('a')", set()),
    ],
)
def test_the_search_finds_such_calls(tmp_path, text, found):
    path = tmp_path / "a.py"
    path.write_text(text)
    assert uses(path) == found


def test_a_file_is_flushed_through_a_handle_that_can_write(tmp_path, monkeypatch):
    """Windows refuses to flush a file that is open for reading only."""
    import fcntl
    import os

    modes = []

    def fsync(descriptor):
        modes.append(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE)

    monkeypatch.setattr(os, "fsync", fsync)
    with replacing(tmp_path / "a.txt") as fresh:
        fresh.write_text("x")
    assert modes
    assert os.O_RDONLY not in modes


def test_without_poll_only_standard_output_is_taken_as_closed(monkeypatch):
    monkeypatch.delattr(select, "poll")
    assert early_exit._closed_outputs() == [1]


def test_without_proc_memory_is_not_limited(monkeypatch):
    import resource

    monkeypatch.setattr(processes, "status_bytes", lambda field: 0)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    assert not processes.can_limit_growth()
    processes.limit_growth(1)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_without_signal_masks_a_process_starts(monkeypatch):
    import signal
    import subprocess

    monkeypatch.delattr(signal, "pthread_sigmask")
    process = processes.start("-c", "print('ready')", stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.read() == b"ready\n"
    assert processes.close(process) == 0


def test_without_limits_a_batch_says_that_memory_is_not_limited(monkeypatch):
    monkeypatch.setattr(processes, "status_bytes", lambda field: 0)
    monkeypatch.setattr(ProcessPool, "_start", lambda *_, **__: SimpleNamespace())
    with collect_notices() as notices:
        ProcessPool(SimpleNamespace(), SimpleNamespace(worker_bytes=0, ahead=False), case_seconds=1.0)
    assert [notice.reason for notice in notices] == ["memory-not-limited"]
    assert "choose fewer --workers" in str(notices[0])


def test_without_resource_only_system_memory_limits(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert memory_budget._own(Path("/")) is None


@pytest.mark.parametrize("count", [process_pool._cores, processes.thread_count])
def test_without_affinity_all_cores_count(monkeypatch, count):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    assert count() == 7


def test_on_windows_no_signal_asks_whether_the_owner_of_a_lock_lives(tmp_path, monkeypatch):
    """There, ``os.kill`` ends the process, whatever the signal."""

    def kill(*_: int) -> None:
        pytest.fail("a process was killed")

    path = tmp_path / "lock"
    facts = {"pid": 2**22 + 1, "host": file_lock.socket.gethostname()}  # no such process
    path.with_name("lock.json").write_text(json.dumps(facts))
    assert file_lock._owner_is_dead(path)
    monkeypatch.setattr(file_lock, "os", SimpleNamespace(name="nt", kill=kill))
    assert not file_lock._owner_is_dead(path)


def test_on_windows_a_port_is_not_shared_with_another_program(monkeypatch):
    options = []

    class Listener:
        def __init__(self, family: int) -> None: ...

        def setsockopt(self, *option: int) -> None:
            options.append(option)

        def bind(self, address: object) -> None: ...

    monkeypatch.setattr(server.socket, "socket", Listener)
    for platform, shared in (("linux", 1), ("win32", 0)):
        options.clear()
        monkeypatch.setattr(sys, "platform", platform)
        server._opened(SimpleNamespace(host="127.0.0.1", port=0))
        assert len(options) == shared


@pytest.mark.parametrize("system", ["nt", "posix"])
def test_a_path_of_a_windows_drive_is_one_only_on_windows(monkeypatch, tmp_path, system):
    monkeypatch.setattr(manifest, "os", SimpleNamespace(name=system, path=os.path))
    read = partial(manifest._path, r"C:\scans\a.nii.gz", "image", tmp_path, "cases.csv")
    if system == "nt":
        read()
    else:
        with pytest.raises(UsageError, match="Windows drive"):
            read()
