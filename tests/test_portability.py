"""Calls that only POSIX systems or Linux have: each use is listed with what other systems do instead."""

from __future__ import annotations

import ast
import select
from pathlib import Path

import pytest

import medseg
from medseg.cli import early_exit
from medseg.system import processes
from medseg.system.atomic_write import replacing

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
    "select": {"poll", "epoll", "kqueue", "POLLOUT", "POLLERR", "POLLHUP"},
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
