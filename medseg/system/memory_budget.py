"""Free memory, and whether a scan fits in it, checked before anything is allocated."""

from __future__ import annotations

import os
from pathlib import Path

from medseg.errors import InputRefused

_GIB = 1 << 30


def check(needed_bytes: int, what: str, *, where: Path | None = None) -> None:
    """Refuses a scan that does not fit in memory, before anything is allocated.

    Args:
        needed_bytes: The most that reading it takes.
        what: What needs the memory (plural), such as ``512 x 512 x 300 voxels``.
        where: The file.

    Raises:
        InputRefused: more is needed than this process can still allocate (``too-large``).
    """
    free = available_bytes()
    if free is not None and needed_bytes > free:
        raise InputRefused(
            f"{what} need {_size(needed_bytes)} of memory, but only {_size(free)} are free",
            where=where,
            reason="too-large",
            remedy="if the scan is really this large, use a machine with more memory or crop it first",
        )


def available_bytes(root: Path = Path("/")) -> int | None:
    """The number of bytes this process can still allocate; None if unknown.

    The minimum of the machine's free memory (/proc/meminfo, MemAvailable), the rest of every
    enclosing control group (cgroup v2 and v1: containers, Slurm), and the rest of the process's
    limit on address space. On systems other than Linux, the machine's total memory.

    Args:
        root: Root of the file system; another folder in tests.
    """
    found = [_machine(root), *_groups(root), _own(root)]
    known = [n for n in found if n is not None]
    return max(0, min(known)) if known else None


def _machine(root: Path) -> int | None:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _groups(root: Path) -> list[int]:
    """The bytes left in each control group of this process."""
    left = []
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers == "":
            names, mount = _V2, root / "sys/fs/cgroup"
        elif "memory" in controllers.split(","):
            names, mount = _V1, root / "sys/fs/cgroup/memory"
        else:
            continue
        folder = mount / group.strip("/")
        # A container sees its own group as the root of the mount, whatever the path says.
        while True:
            if (bytes_left := _left(folder, *names)) is not None:
                left.append(bytes_left)
            if folder == mount or mount not in folder.parents:
                break
            folder = folder.parent
    return left


# Files with the limit and the usage, and the statistic for the file cache that the kernel can
# drop (Linux: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst).
_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _left(folder: Path, limit: str, usage: str, cache: str) -> int | None:
    numbers = [next(iter(_lines(folder / name)), "") for name in (limit, usage)]
    if not all(n.isdigit() for n in numbers):  # "max", or no such file
        return None
    cached = [line.split()[1] for line in _lines(folder / "memory.stat") if line.startswith(f"{cache} ")]
    return int(numbers[0]) - int(numbers[1]) + int((cached or ["0"])[0])


def _own(root: Path) -> int | None:
    """The bytes left under the limit on address space (ulimit -v)."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = next(iter(_lines(root / "proc/self/statm")), "").split()
    if limit == resource.RLIM_INFINITY or not pages:
        return None
    return limit - int(pages[0]) * os.sysconf("SC_PAGE_SIZE")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _size(size: int) -> str:
    return f"{size / _GIB:.3g} GiB" if size < 1 << 60 else f"about 2^{size.bit_length() - 1} bytes"
