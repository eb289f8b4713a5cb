"""Worker processes: starting and ending them from the parent, and setting them up.

A worker is a separate Python process, so that a crash, a hang or a lack of memory affects it alone. Parent
and worker communicate over the worker's standard input and output, one line of JSON per message; nothing is
pickled. (`multiprocessing` would import the user's script again, and a fork would inherit torch's threads.)

Only the standard library is imported here: a worker starts quickly.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO

ONE_THREAD: Mapping[str, str] = dict.fromkeys(
    (
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
        "MKL_NUM_THREADS",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
    ),
    "1",
)
"""Environment variables that keep the libraries of a process to one thread."""


def thread_count() -> int:
    """Number of threads for the computations of this process.

    It is torch's if torch has been imported, otherwise ``OMP_NUM_THREADS``, otherwise one per physical core
    that the process may use: hyperthreads share the units that networks need.
    """
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):  # otherwise it is being imported
        return int(torch.get_num_threads())
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if first.isdecimal() and int(first) > 0:
        return int(first)
    try:
        usable = os.sched_getaffinity(0)
        folder = Path("/sys/devices/system/cpu")
        cores = {(folder / f"cpu{n}/topology/thread_siblings_list").read_text() for n in usable}
    except (AttributeError, OSError):  # not Linux, or hidden
        return os.cpu_count() or 1
    return len(cores)


# --- in the parent -----------------------------------------------------------------------


def start(*program: str, stderr: int | IO[bytes]) -> subprocess.Popen[bytes]:
    """A new single-threaded Python process with pipes to it and this process's module search path.

    SIGINT and SIGTERM are blocked in it: it ends when its standard input is closed, or by SIGKILL.

    Args:
        program: Arguments to Python: a script, or ``-m`` and a module.
        stderr: As for :class:`subprocess.Popen`.

    Raises:
        OSError: it cannot be started.
    """
    # Absolute, but with links kept: virtual environments may consist of links.
    search = os.pathsep.join(os.path.abspath(path) for path in sys.path if path)  # noqa: PTH100
    with _blocked(signal.SIGINT, signal.SIGTERM):
        return subprocess.Popen(
            # -P: do not add the script's folder to the search path.
            [sys.executable, "-P", *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": search, **ONE_THREAD},
            bufsize=0,  # no buffer, so no lock and nothing to flush twice after a fork
        )


@contextlib.contextmanager
def _blocked(*numbers: int) -> Iterator[None]:
    """Blocks signals, also in the processes that are started within the block.

    A signal to all processes of a terminal would otherwise end a worker before it can ignore it, and the
    parent would take that for a crash.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def close(process: subprocess.Popen[bytes], *, seconds: float | None = None) -> int:
    """Closes the pipes, waits for the process to end, and returns its exit code.

    Args:
        process: A worker, which exits when its standard input is closed.
        seconds: Kill the process after this time; None to wait indefinitely.
    """
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    code = exit_code(process, seconds)
    if code is None:
        process.kill()
        code = process.wait()
    return code


def exit_code(process: subprocess.Popen[bytes], seconds: float | None) -> int | None:
    """The exit code of a process; None if it is still running after this time."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def describe_exit(code: int | None) -> str:
    """How a process ended, such as ``SIGKILL`` or ``exit code 1``."""
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


# --- in both -----------------------------------------------------------------------------


def send(message: Mapping[str, Any], pipe: BinaryIO | IO[bytes]) -> None:
    """Writes a message as one line of JSON and flushes the pipe.

    Raises:
        OSError: the other end is closed.
    """
    write_all(json.dumps(message).encode() + b"\n", pipe)
    pipe.flush()


def write_all(data: bytes, pipe: BinaryIO | IO[bytes]) -> None:
    """Writes all of ``data``, which an unbuffered pipe may accept in pieces."""
    view = memoryview(data)
    while view:
        view = view[pipe.write(view) :]


# --- in the worker -----------------------------------------------------------------------


def take_pipes(*, silence_stderr: bool) -> tuple[BinaryIO, BinaryIO]:
    """The pipes for requests and answers, moved away from standard input and output.

    C libraries print to standard output, which would corrupt the answers, so it and standard input are
    redirected to the null device.

    Args:
        silence_stderr: Redirect standard error too. Its last lines can explain a crash.
    """
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2) if silence_stderr else (0, 1):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    return requests, answers


def ignore_signals(*numbers: int) -> None:
    """Ignores signals that a terminal sends to all its processes: the parent stops its workers itself."""
    for number in numbers:
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(number, signal.SIG_IGN)


def can_limit_growth() -> bool:
    """Whether :func:`limit_growth` has an effect: on Linux."""
    return bool(status_bytes("VmData"))


def limit_growth(grow_bytes: int) -> None:
    """Limits this process to its present size plus ``grow_bytes`` (Linux); larger allocations fail."""
    used = status_bytes("VmData")
    if not used:
        return
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = used + grow_bytes
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def status_bytes(field: str) -> int:
    """A memory field of /proc/self/status in bytes; 0 on systems other than Linux."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split(f"{field}:")[1].split()[0])
    return 0
