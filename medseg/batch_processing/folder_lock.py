"""One run per output folder: a second one is refused; the lock of a dead process is taken over."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from medseg.errors import ResourceError, UsageError

_WHOLE = ".lock"
_PROBE_SECONDS = 2.0
# Runs that start at once hold one another's locks for a moment, to see whether they are free.


@contextlib.contextmanager
def lock_folder(folder: Path, shard: str | None = None) -> Iterator[None]:
    """Locks the folder, or one shard of it, while the block runs.

    It is a lock of the operating system (flock), released when its process ends, however that ends.

    Args:
        folder: The output folder; it exists.
        shard: Such as ``3-of-10``. Different shards may run at once, but not beside a run of the whole.

    Raises:
        UsageError: another process has locked it (``in-use``).
        ResourceError: the folder cannot be written to (``disk``).
    """
    from filelock import FileLock, Timeout

    name = _WHOLE if shard is None else f"{_WHOLE}-{shard}"
    others = folder.glob(f"{_WHOLE}*") if shard is None else (folder / _WHOLE,)
    with contextlib.ExitStack() as stack:
        for path in dict.fromkeys((folder / name, *others)):
            if path.suffix == ".json" or not (path.name == name or path.exists()):
                continue
            lock = FileLock(path)
            try:
                lock.acquire(timeout=_PROBE_SECONDS, poll_interval=0.01)
            except Timeout:
                raise _in_use(folder, path) from None
            except OSError as error:
                raise ResourceError(
                    f"cannot write to the output folder: {error.strerror or error}",
                    where=folder,
                    remedy="correct its permissions, or choose another folder",
                    reason="disk",
                ) from error
            if path.name == name:
                stack.callback(lock.release)
            else:
                lock.release()
        owner = folder / f"{name}.json"
        facts = {"pid": os.getpid(), "host": socket.gethostname()}
        with contextlib.suppress(OSError):  # disk full: the lock works without it
            owner.write_text(json.dumps(facts), encoding="utf-8")
        stack.callback(owner.unlink, missing_ok=True)
        yield


def _in_use(folder: Path, path: Path) -> UsageError:
    try:
        facts = json.loads((folder / f"{path.name}.json").read_text(encoding="utf-8"))
        by = f"process {facts['pid']} on {facts['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        by = "another process"
    return UsageError(
        f"in use by {by}",
        where=folder,
        remedy="wait for it, or choose another folder; to share the work, give each run a --shard",
        reason="in-use",
    )
