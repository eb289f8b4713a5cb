"""Trainings killed with SIGKILL, shared by two processes, and stopped with Ctrl-C: as a user runs them."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.commands import invoke, output
from support.processes import MEDSEG, PATIENCE, environment, forked
from support.worlds import phantoms, tiny

from medseg.datasets.manifest import Manifest
from medseg.training.dataloaders import Loader
from medseg.training.hardware import Hardware
from medseg.training.trainer import train

ROOT = Path(__file__).parents[2]
ENVIRONMENT = environment(OMP_NUM_THREADS="1")


@pytest.fixture
def world(tmp_path):
    rows = [f"{c.id},{c.images[0]},{c.label},{c.split}" for c in phantoms(tmp_path, "train", "train", "val")]
    (tmp_path / "manifest.csv").write_text("\n".join(["id,image,label,split", *rows]))
    return tmp_path


def command(world: Path, run: str, **train) -> list[str]:
    recipe = world / f"{run}.yaml"
    recipe.write_text(tiny(train={"epochs": 4, "steps_per_epoch": 3, **train}).yaml())
    words = ["train", recipe, world / "manifest.csv", "-o", world / run]
    return [*map(str, words), "--cache", str(world / "cache"), "--device", "cpu"]


def medseg(*arguments: str) -> list[str]:
    """The command that runs in a separate process."""
    return [sys.executable, "-m", "medseg.cli", *arguments]


def losses(run: Path) -> list[float]:
    with (run / "history.csv").open() as file:
        return [float(row["train_loss"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DataLoader worker (pid 7) exited unexpectedly"),
        ConnectionResetError(104, "Connection reset by peer"),  # it ended while it sent a batch
        FileNotFoundError(2, "No such file or directory"),
        EOFError(),
    ],
)
def test_a_worker_that_ends_first_does_not_hide_the_signal(world, monkeypatch, error):
    def interrupted(loader):
        signal.raise_signal(signal.SIGINT)
        raise error

    monkeypatch.setattr(Loader, "__iter__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(
            tiny(),
            Manifest.read(world / "manifest.csv").cases,
            world / "run",
            hardware=Hardware("cpu", workers=0),
        )


@pytest.mark.slow
def test_killed_trainings_end_with_the_same_bits():
    script = [sys.executable, "benchmarks/interrupted.py", "--kills", "2", "--seed", "3"]
    done = subprocess.run(
        script, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kills" in done.stdout
    assert "weights bitwise equal" in done.stdout


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_with_the_doubled_batch(world):
    invoke(*command(world, "one", batch_size=4))
    done = subprocess.run(
        medseg(*command(world, "two", batch_size=2), "--devices", "2"),
        env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wrote") == 1  # one of the processes speaks
    assert losses(world / "two") == pytest.approx(losses(world / "one"), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "workers"),
    [(signal.SIGINT, 130, 1), (signal.SIGTERM, 143, 1), (signal.SIGTERM, 143, 0)],
)
def test_a_signal_explains_how_to_resume_and_leaves_a_complete_run(world, number, code, workers):
    words = [*command(world, "run", epochs=500), "--workers", str(workers)]
    child = forked(MEDSEG, *words, output=world / "output.txt")
    last = world / "run" / "checkpoints" / "last.ckpt"
    while not last.exists():
        assert child.is_alive(), (world / "output.txt").read_text()
        time.sleep(0.1)
    os.killpg(child.pid, number)  # to the workers, too, as terminals and SLURM do
    child.join(PATIENCE)
    message = (world / "output.txt").read_text()
    assert child.exitcode == code, message
    assert "with --resume to continue" in message
    assert "Traceback" not in message
    assert "wrote" in output(*words, "--resume", "--max-time", "1s")


def test_sigterm_while_cases_are_prepared_ends_cleanly(world):
    code = """
import os, signal
import medseg.training.session as session
def train(*arguments, **options):
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
session.train = train
"""
    child = forked(code + MEDSEG, *command(world, "run"), output=world / "output.txt")
    child.join(PATIENCE)
    message = (world / "output.txt").read_text()
    assert child.exitcode == 143, message
    assert "with --resume to continue" in message
    assert "Traceback" not in message
