"""One run per output folder: a second one is refused; the lock of a dead process is taken over."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from medseg.system.file_lock import acquire_lock, locked

_WHOLE = ".lock"
# Runs that start at once hold one another's locks for a moment, to see whether they are free.
_PROBE_SECONDS = 2.0
_REMEDY = "wait for it, or choose another folder; to share the work, give each run a --shard"


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
    name = _WHOLE if shard is None else f"{_WHOLE}-{shard}"
    others = folder.glob(f"{_WHOLE}*") if shard is None else (folder / _WHOLE,)
    with locked(folder / name, remedy=_REMEDY, wait_seconds=_PROBE_SECONDS):
        for path in others:
            if path.suffix != ".json" and path.name != name and path.exists():
                acquire_lock(path, remedy=_REMEDY, wait_seconds=_PROBE_SECONDS).release()
        yield
