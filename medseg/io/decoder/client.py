"""Decoding in a worker process, so that a scan that crashes a C library is refused like any other.

Each process has one worker, which starts with the first scan that needs it and ends with the
process. Forked processes (PyTorch DataLoader workers) start their own.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import InputRefused, ResourceError, first_line
from medseg.images.volume import Voxels
from medseg.system.processes import close as close_process
from medseg.system.processes import describe_exit, exit_code, send, start, write_all

_SCRIPT = Path(__file__).with_name("worker.py")
# The slowest decoder (GDCM, JPEG 2000) makes about 20 MB/s on one core; a loaded machine is
# ten times slower. A first import of SimpleITK from a network disk takes up to half a minute.
_SECONDS = 60
_DECODERS = "pip install python-gdcm pylibjpeg pylibjpeg-openjpeg"
_BYTES_PER_SECOND = 2 << 20
_START_SECONDS = 120
# A worker that does not exit in this time is killed.
_END_SECONDS = 5


def decoded(
    source: Path | bytes, frames: Sequence[int], *, shape: tuple[int, int], expected_bytes: int
) -> Voxels:
    """The stored values of some frames of a compressed DICOM file, before any rescaling.

    Args:
        source: The file, or its content.
        frames: Frame indices.
        shape: (rows, columns) of each frame.
        expected_bytes: Decoded size of these frames by the header; limits on memory and time
            are proportional to it.

    Returns:
        Integers (frame, row, column) in native byte order.

    Raises:
        InputRefused: the frames cannot be decoded, are truncated, in colour or of another shape
            (``unreadable``), need far more memory than expected (``too-large``), crash the
            decoder (``reader-crashed``) or take too long (``reader-timeout``).
        ResourceError: no worker can be started (``worker``).
    """
    request = {
        "task": "frames",
        "path": str(source.absolute()) if isinstance(source, Path) else None,
        "frames": [int(n) for n in frames],
        "rows": shape[0],
        "columns": shape[1],
        "expected_bytes": expected_bytes,
    }
    payload = b"" if isinstance(source, Path) else source
    where = source if isinstance(source, Path) else None
    what = "the compressed pixels cannot be decoded"
    _, array = call(request, payload, what=what, where=where, array_shape=(len(frames), *shape))
    if array.dtype.kind not in "iu":
        raise _refused(f"the pixels decode to {array.dtype}, not to integers", where)
    return array


def call(
    request: dict[str, Any],
    payload: bytes = b"",
    *,
    what: str,
    where: Path | None = None,
    array_shape: tuple[int, ...] | None = None,
) -> tuple[dict[str, Any], Voxels]:
    """The worker's answer to ``request``: its facts, and the array (empty if there is none).

    Args:
        request: ``task`` and the arguments of that task in `medseg.io.decoder.worker`. The time
            limit depends on ``expected_bytes``.
        payload: Bytes to send after the request.
        what: The problem if the task fails, such as "this NRRD file cannot be read".
        where: The file, for messages.
        array_shape: The expected shape of the array; None if no array is expected.

    Raises:
        InputRefused: as for :func:`decoded`.
        ResourceError: no worker can be started (``worker``).
    """
    seconds = _SECONDS + int(request.get("expected_bytes", 0)) / _BYTES_PER_SECOND
    with _lock:
        answer, array = _running().ask({**request, "seconds": seconds}, payload, where, array_shape)
    if "error" in answer:
        lacking = "missing dependencies" in answer["error"]  # pydicom's words
        raise InputRefused(
            f"{what}: {_one_line(answer['error'])}",
            where=where,
            reason=answer["reason"],
            remedy=_DECODERS if lacking else "check that the file is complete; export or download it again",
        )
    return answer["facts"], array


def _one_line(message: str) -> str:
    """A library's error message in one line; pydicom's lists the messages of all its decoders."""
    if message.startswith("Unable to decode as exceptions were raised"):
        message = " ".join(message.partition(":")[2].split()) or message
    return first_line(ValueError(message))


class _Worker:
    """A running worker process and the pipes to it."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes]
        self.to: Any  # Any: Popen's types do not guarantee that these pipes exist
        self.back: Any
        try:
            # Single-threaded, because every thread's stack counts against the memory limit. A script,
            # because importing medseg.io as a package takes a second or two.
            self.process = start(str(_SCRIPT), stderr=subprocess.DEVNULL)
        except (OSError, ValueError) as error:
            raise ResourceError(
                f"the process that decodes scans cannot be started: {first_line(error)}",
                reason="worker",
                remedy="check the limits on memory and processes",
            ) from error
        self.to, self.back = self.process.stdin, self.process.stdout
        self._too_slow = False
        search = [os.path.abspath(p) for p in sys.path if p]  # noqa: PTH100 - without links resolved
        request = {"task": "setup", "sys_path": search, "seconds": _START_SECONDS}
        try:
            self.ask(request, b"", None, None)
        except InputRefused as error:
            raise ResourceError(
                f"the process that decodes scans does not start: {error.problem}",
                reason="worker",
                remedy=f"run it by hand to see why: {sys.executable} {_SCRIPT}",
            ) from error

    def ask(
        self,
        request: dict[str, Any],
        payload: bytes,
        where: Path | None,
        shape: tuple[int, ...] | None,
    ) -> tuple[dict[str, Any], Voxels]:
        """Sends one request and returns the answer. If anything goes wrong, the worker is ended."""
        answer: dict[str, Any] | None = None
        array: Voxels = np.empty(0)
        whole = False
        try:
            with self._within(request["seconds"]):
                send({**request, "payload": len(payload)}, self.to)
                write_all(payload, self.to)
                answer = json.loads(self.back.readline() or b"null")
                if answer and "dtype" in answer:
                    array = _announced(answer, shape, where)
                    _fill(array, self.back)
                whole = answer is not None
        except (OSError, EOFError, ValueError):
            whole = False
        finally:
            if not whole:
                self.end(kill=True)
        if answer is None or not whole:
            raise self._death(request["seconds"], where)
        return answer, array

    @contextlib.contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        """A block with a time limit, at which the worker is killed."""

        def kill() -> None:
            self._too_slow = True
            self.process.kill()

        timer = threading.Timer(seconds, kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _death(self, seconds: float, where: Path | None) -> InputRefused:
        if self._too_slow:
            return InputRefused(
                f"the decoder did not finish this file within {seconds:.0f} s",
                where=where,
                reason="reader-timeout",
                remedy="the file is probably damaged: export or download it again",
            )
        how = describe_exit(self.process.returncode)
        return InputRefused(
            f"the decoder crashed on this file ({how}): it is damaged, or larger than its header says",
            where=where,
            reason="reader-crashed",
            remedy="export or download it again, or convert it with the tool that made it",
        )

    def end(self, *, kill: bool = False) -> None:
        """Ends the process by closing its pipe, or by force."""
        # If the worker has died by itself, keep its own exit code.
        if kill and exit_code(self.process, 0.2) is None:
            self.process.kill()
        close_process(self.process, seconds=_END_SECONDS)


def _announced(answer: dict[str, Any], shape: tuple[int, ...] | None, where: Path | None) -> Voxels:
    """An empty array for the announced data, which must have the expected shape."""
    dtype, seen = np.dtype(answer["dtype"]), tuple(answer["shape"])
    if seen != shape:
        raise _refused(f"the voxels decode to an array of shape {seen}, not {shape}", where)
    return np.empty(prod(seen), dtype).reshape(seen)


def _fill(array: Voxels, pipe: Any) -> None:
    """Reads all bytes of ``array`` from ``pipe``."""
    view = memoryview(array.reshape(-1).view(np.uint8).data)
    while view:
        count = pipe.readinto(view)
        if not count:
            raise EOFError("the worker ended within an answer")
        view = view[count:]


def _refused(problem: str, where: Path | None) -> InputRefused:
    return InputRefused(
        problem,
        where=where,
        reason="unreadable",
        remedy="check that the file is complete; export or download it again",
    )


_lock = threading.Lock()
_worker: _Worker | None = None


def _running() -> _Worker:
    """This process's worker, which is started if necessary."""
    global _worker
    if _worker is None or _worker.process.poll() is not None:
        if _worker is not None:
            _worker.end()
        _worker = None
        _worker = _Worker()
    return _worker


@atexit.register
def close() -> None:
    """Ends the worker, if one is running. The next call starts another."""
    global _worker
    if _worker is not None:
        _worker.end()
    _worker = None


def _forget() -> None:
    """In a forked child: drops the parent's worker, and a lock that another thread may hold."""
    global _lock, _worker
    _lock = threading.Lock()
    if _worker is not None:
        # Redirected instead of closed: once closed, the numbers may be reused for another file
        # and be closed a second time.
        nowhere = os.open(os.devnull, os.O_RDWR)
        for pipe in (_worker.to, _worker.back):
            os.dup2(nowhere, pipe.fileno(), inheritable=False)
        os.close(nowhere)
        _worker.process.returncode = 0  # not this process's child, so there is nothing to wait for
    _worker = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
