"""Commands under faults by chance: signals, closed pipes, vanished files, full disks, wrong clocks.

    python tests/support/fault_injection.py --count 500 --seed 7   # what `make inject` runs; prints a table
    python tests/support/fault_injection.py --only 17 --seed 7     # one run again; its folder is kept

A run is known by its seed and number; the moment of its fault is a share of the time that the command took
without one. A third of the commands are new processes, so that faults fall into their imports too; the others
are forked with the libraries loaded, so that faults fall into their work. After each: no traceback, a
documented exit code, no half-written file under a final name, inputs and the user's files as they were, and
the same command, with --resume where there is such an option, ends with the outputs of an intact run.
"""

from __future__ import annotations

import argparse
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

TESTS = Path(__file__).parents[1]
if str(TESTS) not in sys.path:
    sys.path.insert(0, str(TESTS))

from support import fault_checks as checks  # noqa: E402 - found by the line above
from support.fault_world import JOBS, Child, Job, fresh_copy, load_libraries, write_data  # noqa: E402
from support.faults import FAULTS, Rng, Run  # noqa: E402

HANG_SECONDS = 600.0
"""On a machine with many times the work it can do."""

CODES = (0, 1, 2, 3, 4, 5)
"""Exit codes in the help of medseg; 128 + n after a signal, 141 after a closed pipe."""


class Injector:
    """Runs commands under faults, in folders below one of its own.

    Args:
        folder: An empty folder.
        jobs: Names of the commands to choose from.

    Attributes:
        seconds: Time that a command takes without a fault, by its name and whether it is a new process.
    """

    def __init__(self, folder: Path, jobs: Sequence[str] = tuple(JOBS)) -> None:
        load_libraries()
        self.folder, self.jobs = folder, list(jobs)
        self.home = folder / "home"
        self.home.mkdir()
        write_data(folder / "data")
        self.seconds: dict[tuple[str, bool], float] = {}
        begun = time.monotonic()
        subprocess.run([sys.executable, "-c", "import medseg.cli.app"], check=True)
        self.start_seconds = time.monotonic() - begun
        folder.chmod(0o755)

    def run(self, number: int, seed: int) -> tuple[Run, int, list[str]]:
        """A run, its exit code, and what is wrong with it."""
        rng = np.random.default_rng([seed, number])
        job = JOBS[str(rng.choice(self.jobs, p=_shares([JOBS[name].share for name in self.jobs])))]
        fault = str(rng.choice(list(FAULTS), p=_shares([share for share, _ in FAULTS.values()])))
        early = rng.random() < 0.15
        return self.one(job, fault, rng, moment=float(rng.random()) * (0.2 if early else 1.1))

    def one(self, job: Job, fault: str, rng: Rng, *, moment: float) -> tuple[Run, int, list[str]]:
        """One command under one fault: the run, its exit code, and what is wrong with it."""
        for name in filter(None, (job.begun, job.name)):
            if (name, False) not in self.seconds:
                self._intact(JOBS[name])
        run = Run(job, self.folder / "run", rng.random() < 0.35, moment, fault=fault)
        run.again = bool(job.begun) or (not job.recover and rng.random() < 0.3)
        self._folders(run)
        FAULTS[fault][1](run, rng)
        mine = checks.digests(run.data)
        code = self._command(run, job.words(run.folder))
        problems = self._judged(run, code, mine)
        self._repair(run)
        problems += self._recovered(run)
        if run.tmpfs:
            subprocess.run(["umount", "-l", str(run.out)], check=False)
        return run, code, problems

    def _folders(self, run: Run) -> None:
        fresh_copy(self.folder / "data", run.data)
        before = self.folder / "intact" / (run.job.begun or run.job.name)
        if run.again:
            fresh_copy(before, run.out)
        else:
            run.out.mkdir(parents=True)
        (run.out / "notes.txt").write_text("the user's own")

    def _intact(self, job: Job) -> None:
        run = Run(job, self.folder / "run", fresh=False, moment=0.0, again=bool(job.begun))
        shutil.rmtree(run.folder, ignore_errors=True)
        self._folders(run)
        begun = time.monotonic()
        code = self._command(run, job.words(run.folder))
        if code:
            raise RuntimeError(f"{job.name} fails without a fault, exit {code}: {run.text}")
        self.seconds[job.name, False] = time.monotonic() - begun
        self.seconds[job.name, True] = self.seconds[job.name, False] + job.imports * self.start_seconds
        (run.out / "notes.txt").unlink()
        target = self.folder / "intact" / job.name
        target.parent.mkdir(exist_ok=True)
        run.out.rename(target)

    def _command(self, run: Run, words: list[str], *, calm: bool = False) -> int:
        """The exit code of a command whose faults come in time; what it printed is kept."""
        environment = {
            **os.environ,
            "HOME": str(self.home),
            "MPLCONFIGDIR": str(self.home / "matplotlib"),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "CUDA_VISIBLE_DEVICES": "",
        }
        usual = self.seconds.get((run.job.name, run.fresh), 1.0)
        actions = [] if calm else sorted(((usual * at, each) for at, each in run.actions), key=lambda a: a[0])
        if calm:
            run.printed = {1: b"", 2: b""}
        begun = time.monotonic()
        child = Child.started(
            words, environment, fresh=run.fresh and not calm, prepare=(lambda: None) if calm else run.prepare
        )
        code = None
        while code is None:
            now = time.monotonic() - begun
            while actions and actions[0][0] <= now:
                run.is_late = b"Research use only" in run.printed[2] or b"wrote" in run.printed[2]
                try:
                    actions.pop(0)[1](child)
                except OSError:  # it has ended, or another process was faster
                    run.is_late = True
            self._read(run, child)
            code = child.poll()
            if now > HANG_SECONDS:
                os.killpg(child.pid, signal.SIGKILL)
                code = -1000
        self._read(run, child)
        if child.pipes:
            self._wait_for_workers(run, child)
        for pipe in child.pipes.values():
            os.close(pipe)
        run.is_late |= bool(actions)
        return code

    def _read(self, run: Run, child: Child) -> None:
        ready, _, _ = select.select(list(child.pipes.values()), [], [], 0.01)
        for number, pipe in child.pipes.items():
            while pipe in ready:
                try:
                    part = os.read(pipe, 1 << 16)
                except BlockingIOError:
                    break
                if not part:
                    ready.remove(pipe)
                run.printed[number] += part
        if not child.pipes:
            time.sleep(0.01)
        elif not ready:
            time.sleep(0.002)

    def _wait_for_workers(self, run: Run, child: Child) -> None:
        begun = time.monotonic()
        while child.session():
            if time.monotonic() - begun > 60:
                run.printed[2] += b"\nORPHANS\n"
                os.killpg(child.pid, signal.SIGKILL)
                return
            time.sleep(0.02)
            self._read(run, child)

    def _judged(self, run: Run, code: int, mine: dict[str, str]) -> list[str]:
        """What is wrong after the fault."""
        found = checks.traces(run.text) + (["orphaned workers"] if "ORPHANS" in run.text else [])
        if code not in {*CODES, *run.codes}:
            found.append(f"exit code {code}" if code != -1000 else "hangs")
        if "this is a bug in medseg" in run.text:
            found.append("unexpected error")
        if not run.killed and code >= 0 and run.fault != "output read-only":
            found += [f"left over: {name}" for name in checks.passing(run.out)]
        found += [f"damaged: {text}" for text in checks.damaged(run.out, killed=run.killed or bool(code))]
        now = checks.digests(run.data)
        changed = {name for name in {*mine, *now} if mine.get(name) != now.get(name)}
        found += [f"changed or made in the data folder: {name}" for name in sorted(changed - run.hit)]
        if run.fault != "output deleted" and (run.out / "notes.txt").read_text() != "the user's own":
            found.append("the user's notes have changed")
        if code == 0 and not run.hit and not run.is_late:
            found += [f"exit 0, but {text}" for text in self._differences(run)]
        return found

    def _differences(self, run: Run) -> list[str]:
        return checks.differences(self.folder / "intact" / run.job.name, run.out)

    def _repair(self, run: Run) -> None:
        """Everything is as it was before the fault, except for the outputs."""
        if run.tmpfs:
            subprocess.run(["mount", "-o", "remount,size=256m", str(run.out)], check=True)
        for path in (run.out, *run.out.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)
        for name in run.hit:
            path = run.data / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            shutil.copy(self.folder / "data" / name, path)
        begun = self.folder / "intact" / run.job.begun
        if run.job.begun and not (run.out / "results.csv").exists():
            shutil.copytree(begun, run.out, dirs_exist_ok=True)
        run.out.mkdir(exist_ok=True)

    def _recovered(self, run: Run) -> list[str]:
        """What is wrong with the same command, or its continuation, after the repair."""
        printed = run.printed
        tried = [run.job.words(run.folder, *run.job.recover.split())]
        if run.job.name == "train":
            tried.append(run.job.words(run.folder))
        code, before = 0, checks.passing(run.out)
        for words in tried:
            code = self._command(run, words, calm=True)
            if "nothing to resume" not in run.text:
                break
        text, run.printed = run.text, printed
        if run.job.name == "train" and run.hit and code == 2 and "since this training began" in text:
            return []  # it had begun with other data: refused rightly
        if run.job.name == "convert" and run.hit and code == 2 and "was not written by medseg" in text:
            return []  # a scan that was made from other data is not replaced
        if code:
            return [f"cannot be continued, exit {code}: {text[-300:]}"]
        return [f"continued: {each}" for each in checks.traces(text) + self._differences(run)] + [
            f"continued, left over: {name}" for name in checks.passing(run.out) if name not in before
        ]


def _shares(values: Sequence[float]) -> list[float]:
    return [value / sum(values) for value in values]


def table(rows: Sequence[tuple[Run, int, list[str]]], jobs: Sequence[str]) -> str:
    """Runs by fault: how many, on which commands, and their exit codes."""
    lines = []
    for fault in FAULTS:
        mine = [row for row in rows if row[0].fault == fault]
        if not mine:
            continue
        codes = Counter(code for _, code, _ in mine)
        ends = ", ".join(f"{code} x {times}" for code, times in sorted(codes.items()))
        bad = sum(bool(problems) for _, _, problems in mine)
        lines.append(f"{fault:20s} {len(mine):4d} runs  {bad:3d} with problems  exit {ends}")
    for name in jobs:
        mine = [row for row in rows if row[0].job.name == name]
        lines.append(f"{name:20s} {len(mine):4d} runs  {sum(bool(p) for _, _, p in mine):3d} with problems")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", type=int, help="number of one run, whose folder is kept")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS), help="commands to choose from")
    given = parser.parse_args()
    first, count = (given.first, given.count) if given.only is None else (given.only, 1)
    folder = Path(tempfile.mkdtemp(prefix="medseg-inject-"))
    injector = Injector(folder, given.jobs)
    rows = []
    for number in range(first, first + count):
        run, code, problems = injector.run(number, given.seed)
        rows.append((run, code, problems))
        how = "new" if run.fresh else "forked"
        print(
            f"{number:4d} {run.job.name:15s} {run.fault:18s} {how:6s} at {run.moment:4.2f} exit {code}",
            *(["again"] if run.again else []),
            flush=True,
        )
        for problem in problems:
            print(f"     PROBLEM {problem}", flush=True)
        if problems:
            print("     | " + run.text.strip()[-1500:].replace("\n", "\n     | "), flush=True)
        if given.only is None:
            shutil.rmtree(run.folder, ignore_errors=True)
    print(table(rows, given.jobs))
    bad = sum(bool(problems) for _, _, problems in rows)
    print(f"seed {given.seed}: {len(rows)} runs, {bad} with problems")
    if given.only is None:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
