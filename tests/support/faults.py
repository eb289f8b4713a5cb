"""The faults that happen to a command, each planned for a moment of its run."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from support.fault_world import Child, Job

Rng = np.random.Generator


@dataclass
class Run:
    """A command in a folder of its own, and what happens to it.

    Attributes:
        job: The command.
        folder: Holds ``data`` and ``out``.
        fresh: Whether it is a new process rather than a forked one.
        moment: When the fault comes, as a share of the usual time.
        codes: Exit codes that the fault explains, besides those of `CODES`.
        hit: Inputs that the fault has changed.
        again: Whether the outputs of an earlier run are there already.
    """

    job: Job
    folder: Path
    fresh: bool
    moment: float
    codes: set[int] = field(default_factory=set)
    hit: set[str] = field(default_factory=set)
    prepare: Callable[[], None] = lambda: None
    actions: list[tuple[float, Callable[[Child], None]]] = field(default_factory=list)
    again: bool = False
    killed: bool = False
    fault: str = ""
    printed: dict[int, bytes] = field(default_factory=lambda: {1: b"", 2: b""})
    is_late: bool = False  # the fault came when the work was done
    tmpfs: bool = False

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def text(self) -> str:
        return b"\n".join(self.printed.values()).decode(errors="replace")

    def at(self, action: Callable[[Child], None], moment: float | None = None) -> None:
        self.actions.append((self.moment if moment is None else moment, action))


def _signal(number: int, *, twice: bool = False) -> Callable[[Run, Rng], None]:
    def plan(run: Run, rng: Rng) -> None:
        # Ctrl-C reaches all processes of a terminal; kill and schedulers reach one or all.
        everyone = number == signal.SIGINT or rng.random() < 0.5

        def send(child: Child) -> None:
            os.killpg(child.pid, number) if everyone else os.kill(child.pid, number)

        run.at(send)
        # A process that is only starting or already ending dies of the signal itself.
        run.codes |= {128 + number, -number}
        run.killed = number == signal.SIGKILL
        if twice:
            run.at(send, run.moment + float(rng.random()) * 0.3)
            run.killed = True

    return plan


def _closed(*outputs: int) -> Callable[[Run, Rng], None]:
    def plan(run: Run, rng: Rng) -> None:
        def close(child: Child) -> None:
            for number in outputs:
                if number in child.pipes:
                    os.close(child.pipes.pop(number))

        run.at(close, 0.0 if rng.random() < 0.5 else None)
        run.codes |= {141}

    return plan


def _input(change: Callable[[Path, Rng], None]) -> Callable[[Run, Rng], None]:
    def plan(run: Run, rng: Rng) -> None:
        if not run.job.inputs:
            return
        name = str(rng.choice(run.job.inputs))
        run.hit.add(name)
        run.at(lambda child: change(run.data / name, rng), 0.0 if rng.random() < 0.2 else None)

    return plan


def _truncate(path: Path, rng: Rng) -> None:
    os.truncate(path, int(path.stat().st_size * rng.random()))


def _exchange(path: Path, rng: Rng) -> None:
    """By another whole file of the same kind, with a rename as editors do, or written in place."""
    other = path.parent / ("c3.nii.gz" if path.suffix == ".gz" else path.name)
    content = other.read_bytes()
    if path.suffix == ".csv":
        content = content.replace(b"c1,", b"c9,")
    if rng.random() < 0.5:
        path.write_bytes(content)
    else:
        fresh = path.with_name("fresh")
        fresh.write_bytes(content)
        fresh.replace(path)


def _as_folder(path: Path, rng: Rng) -> None:
    path.unlink()
    path.mkdir()


def _delete_output(run: Run, rng: Rng) -> None:
    def delete(child: Child) -> None:
        gone = run.folder / "gone"
        run.out.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    run.at(delete)


def _read_only(run: Run, rng: Rng) -> None:
    def protect(child: Child) -> None:
        for path in (run.out, *run.out.rglob("*")):
            if path.is_dir():
                path.chmod(0o555)

    run.at(protect, 0.0 if rng.random() < 0.3 else None)


def _full_disk(run: Run, rng: Rng) -> None:
    """A file system that is too small, by the system's own limit if mounting is not possible."""
    size = int(4096 * 2 ** (rng.random() * 8))
    if os.geteuid() == 0 and _mounted(run.out, size):
        run.tmpfs = True
    else:
        _file_limit(run, rng)


def _mounted(folder: Path, size: int) -> bool:
    kept = folder.with_name("kept")
    folder.rename(kept)
    folder.mkdir()
    size += sum(path.stat().st_size + 4096 for path in kept.rglob("*"))
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, check=False).returncode == 0
    shutil.copytree(kept, folder, dirs_exist_ok=True)
    shutil.rmtree(kept)
    return done


def _file_limit(run: Run, rng: Rng) -> None:
    limit = int(2 ** (rng.random() * 16))
    run.prepare = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def _clock(run: Run, rng: Rng) -> None:
    """The clock of the command's own process jumps by up to two days; its workers' clocks are right."""
    run.fresh = False
    jump, calls = (rng.random() - 0.5) * 4 * 86400, int(rng.integers(1, 200))

    def prepare() -> None:
        real, count = time.time, 0

        def shifted() -> float:
            nonlocal count
            count += 1
            return real() + (jump if count > calls else 0.0)

        time.time = shifted

    run.prepare = prepare


FAULTS: dict[str, tuple[float, Callable[[Run, Rng], None]]] = {
    "SIGKILL": (0.16, _signal(signal.SIGKILL)),
    "SIGTERM": (0.14, _signal(signal.SIGTERM)),
    "SIGINT": (0.14, _signal(signal.SIGINT)),
    "SIGINT twice": (0.05, _signal(signal.SIGINT, twice=True)),
    "stdout closed": (0.06, _closed(1)),
    "stderr closed": (0.04, _closed(2)),
    "both closed": (0.04, _closed(1, 2)),
    "input deleted": (0.05, _input(lambda path, rng: path.unlink())),
    "input truncated": (0.06, _input(_truncate)),
    "input exchanged": (0.05, _input(_exchange)),
    "input unreadable": (0.02, _input(lambda path, rng: path.chmod(0))),
    "input now a folder": (0.02, _input(_as_folder)),
    "output deleted": (0.05, _delete_output),
    "output read-only": (0.05, _read_only),
    "disk full": (0.05, _full_disk),
    "file size limit": (0.04, _file_limit),
    "clock jump": (0.03, _clock),
}
