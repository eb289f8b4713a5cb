"""What the fault-injecting test works on: small data, the commands, and their outputs without a fault."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_OVERRIDES = 0b110
"""The capabilities CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH of Linux, by which root may write anywhere."""


@dataclass(frozen=True)
class Job:
    """A command; ``{data}`` and ``{out}`` stand for the folders of a run.

    Attributes:
        name: Name in the table.
        arguments: What follows ``medseg``.
        share: Share of the runs.
        inputs: Files in the data folder that a fault may hit.
        begun: Another job whose outputs are in the output folder before.
        recover: Options that continue after an interruption.
        imports: How long a new process loads libraries, as a multiple of the time for the command line.
    """

    name: str
    arguments: str
    share: float
    inputs: tuple[str, ...] = ("images/c0.nii.gz", "images/c1.nii.gz")
    begun: str = ""
    recover: str = ""
    imports: float = 1.5

    def words(self, folder: Path, *more: str) -> list[str]:
        text = self.arguments.format(data=folder / "data", out=folder / "out")
        return [*text.split(), *more]


_LABELS = ("labels/c0.nii.gz", "labels/c1.nii.gz")
_BATCH = "batch {data}/cases.csv -o {out} --model threshold --any-modality"
_TABLES = "{data}/cases.csv -o {out} --split all"
JOBS = {
    job.name: job
    for job in (
        Job("batch", f"{_BATCH} --workers 1 --json", 0.14, recover="--retry-failed"),
        Job("batch 2", f"{_BATCH} --workers 2 --overlays", 0.1, recover="--retry-failed"),
        Job(
            "segment",
            "segment {data}/images/c0.nii.gz -o {out}/c0.nii.gz --stats {out}/stats.json --model threshold",
            0.2,
            ("images/c0.nii.gz",),
        ),
        Job("evaluate", f"evaluate {_TABLES} --model threshold", 0.12, ("images/c0.nii.gz", *_LABELS)),
        Job(
            "evaluate masks",
            f"evaluate {_TABLES} --masks {{data}}/labels --recipe {{data}}/recipe.yaml",
            0.05,
            _LABELS,
        ),
        Job(
            "train",
            "train {data}/recipe.yaml {data}/cases.csv -o {out} --workers 0",
            0.1,
            ("images/c0.nii.gz", *_LABELS, "recipe.yaml", "cases.csv"),
            recover="--resume",
            imports=8,
        ),
        Job("convert", "convert {data}/images/c0.nii.gz -o {out}/c0.nrrd", 0.05, ("images/c0.nii.gz",)),
        Job("convert mask", "convert {data}/labels/c0.nii.gz -o {out}/c0.mha --as-mask", 0.05, _LABELS[:1]),
        Job("check", "check {data}/cases.csv", 0.05, ("images/c0.nii.gz", *_LABELS, "cases.csv")),
        Job("manifest", "manifest {data} -o {out}/cases.csv", 0.04, ("images/c0.nii.gz", *_LABELS)),
        Job("report", "report {out}", 0.03, (), begun="batch"),
        Job(
            "preview",
            "preview {data}/images/c0.nii.gz {data}/labels/c0.nii.gz -o {out}/c0.png",
            0.03,
            ("images/c0.nii.gz", *_LABELS[:1]),
        ),
    )
}  # fmt: skip


def write_data(folder: Path) -> None:
    """Four chests with their lungs, a manifest, a recipe, and a scan to exchange for another."""
    from support.batches import chest
    from support.worlds import tiny

    import medseg

    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    rows = ["id,image,label,split"]
    for number, split in enumerate(("train", "train", "val", "test")):
        name = f"c{number}.nii.gz"
        chest(number).save(folder / "images" / name)
        medseg.segment(folder / "images" / name, model="threshold").save(folder / "labels" / name)
        rows.append(f"c{number},images/{name},labels/{name},{split}")
    (folder / "cases.csv").write_text("\n".join(rows) + "\n")
    (folder / "recipe.yaml").write_text(tiny(train={"steps_per_epoch": 2}).yaml())


def load_libraries() -> None:
    """Imports what the commands import, so that forked ones begin with their work."""
    import lightning  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import pandas  # noqa: F401

    import medseg.batch_processing.launcher
    import medseg.cli.app
    import medseg.evaluation.model_evaluation
    import medseg.reporting.folder_report
    import medseg.training.session  # noqa: F401


@dataclass
class Child:
    """A running command, and what it has printed so far by file descriptor (1 and 2)."""

    pid: int
    pipes: dict[int, int]

    @classmethod
    def started(
        cls, words: Sequence[str], environment: Mapping[str, str], *, fresh: bool, prepare: Callable[[], None]
    ) -> Child:
        """Starts ``medseg`` as a new process, or forks it from this one with its libraries loaded.

        Args:
            words: What follows ``medseg``.
            environment: Variables of the process.
            fresh: Whether a new interpreter starts.
            prepare: Called in the process before anything else, such as to set limits.
        """
        outputs, errors = os.pipe(), os.pipe()
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            for pipe in (outputs, errors):
                os.close(pipe[1])
                os.set_blocking(pipe[0], False)
            return cls(pid, {1: outputs[0], 2: errors[0]})
        code = 1
        try:
            os.setsid()
            for pipe, number in ((outputs, 1), (errors, 2)):
                os.dup2(pipe[1], number)
                os.close(pipe[0])
                os.close(pipe[1])
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.environ.clear()
            os.environ.update(environment)
            prepare()
            _obey_permissions()
            if fresh:
                os.execve(sys.executable, [sys.executable, "-m", "medseg.cli", *words], environment)
            code = _main(words)
        except BaseException:
            traceback.print_exc()
        os._exit(code)

    def poll(self) -> int | None:
        """The exit code as a shell gives it, negative for a signal; None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return None if pid == 0 else os.waitstatus_to_exitcode(status)

    def session(self) -> list[int]:
        """Processes of the command that are still alive."""
        alive = []
        for place in Path("/proc").iterdir():
            try:
                facts = (place / "stat").read_text().rpartition(")")[2].split()
            except (OSError, ValueError):
                continue
            if facts and int(facts[3]) == self.pid and facts[0] != "Z":
                alive.append(int(place.name))
        return alive


def _main(words: Sequence[str]) -> int:
    from medseg.cli import main

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    sys.argv = ["medseg", *words]
    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def _obey_permissions() -> None:
    """Makes read-only folders read-only for this process, even if it is root's."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for number in (1, 2):
        libc.prctl(24, number, 0, 0, 0)  # PR_CAPBSET_DROP, for the programs that it starts
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    for each in range(3):
        sets[each] &= ~_OVERRIDES
    libc.capset(header, sets)


def fresh_copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)
