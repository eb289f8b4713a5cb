"""Locks of the operating system by which one process at a time works in a folder."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from filelock import BaseFileLock

# Worker processes share the lock of the process that started them, and notice its death after some seconds.
_ORPHANS_SECONDS = 30


def acquire_lock(path: Path, *, remedy: str, wait_seconds: float = 0.0) -> BaseFileLock:
    """The acquired lock of a file, which the caller releases.

    The lock (flock) ends with its process, however that ends. If the process that is recorded as its owner
    is dead, the lock is held by orphaned worker processes, and this waits for their end.

    Args:
        path: The lock file. Its folder exists.
        remedy: What to do if another process holds the lock.
        wait_seconds: How long to wait for another process.

    Raises:
        UsageError: another process holds it (``in-use``).
        ResourceError: the folder cannot be written to (``disk``).
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    start = time.monotonic()
    try:
        while True:
            try:
                lock.acquire(blocking=False)
            except Timeout:
                limit = max(wait_seconds, _ORPHANS_SECONDS if _owner_is_dead(path) else 0)
                if time.monotonic() - start >= limit:
                    raise _in_use(path, remedy) from None
                time.sleep(0.01)
            else:
                return lock
    except OSError as error:
        raise ResourceError(
            f"cannot write to the output folder: {error.strerror or error}",
            where=path.parent,
            remedy="correct its permissions, or choose another folder",
            reason="disk",
        ) from error


@contextlib.contextmanager
def locked(path: Path, *, remedy: str, wait_seconds: float = 0.0) -> Iterator[None]:
    """Holds the lock of a file while the block runs, and records this process as its owner.

    Raises:
        UsageError: another process holds it (``in-use``).
        ResourceError: the folder cannot be written to (``disk``).
    """
    lock = acquire_lock(path, remedy=remedy, wait_seconds=wait_seconds)
    owner = _owner_file(path)
    try:
        facts = {"pid": os.getpid(), "host": socket.gethostname()}
        with contextlib.suppress(OSError):  # disk full: the lock works without it
            owner.write_text(json.dumps(facts), encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            owner.unlink(missing_ok=True)
        lock.release()


def _owner_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _owner(path: Path) -> tuple[int, str] | None:
    """Process id and host of the owner; None if they are not recorded."""
    try:
        facts = json.loads(_owner_file(path).read_text(encoding="utf-8"))
        return int(facts["pid"]), str(facts["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _owner_is_dead(path: Path) -> bool:
    owner = _owner(path)
    if owner is None or owner[1] != socket.gethostname() or os.name != "posix":
        return False
    try:
        os.kill(owner[0], 0)  # signal 0 only asks whether the process exists
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _in_use(path: Path, remedy: str) -> UsageError:
    owner = _owner(path)
    by = f"process {owner[0]} on {owner[1]}" if owner else "another process"
    return UsageError(f"in use by {by}", where=path.parent, remedy=remedy, reason="in-use")
