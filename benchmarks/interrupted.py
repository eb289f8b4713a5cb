"""Kills a short training at random moments with SIGKILL and resumes it until it finishes.

The final weights must equal those of an uninterrupted training, bit for bit.

    python benchmarks/interrupted.py --kills 10 --seed 1
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from medseg.inference.model import Model
from medseg.phantom.thorax import Thorax, default_grid
from medseg.recipe import Recipe

RECIPE = """
name: interrupted
modality: CT
channels: [CT]
labels: [{name: right_lung, values: [1, 3], side: right}, {name: left_lung, values: [2, 4], side: left}]
prepare: {spacing_mm: [8, 8, 10], intensity: {kind: window, low_hu: -1024, high_hu: 276}}
patch: {size: [32, 32, 16]}
network: {widths: [8, 16], norm: batch, dropout: 0.1}
train: {epochs: 8, steps_per_epoch: 4, batch_size: 2, accumulate: 2, validate_every: 2, ema_decay: 0.9}
"""


EPOCHS = 8
FORKS = multiprocessing.get_context("forkserver")


def write_cases(folder: Path, *splits: str) -> None:
    """A manifest of coarse phantoms: the recipe needs no finer ones."""
    folder.mkdir()
    grid, rows = default_grid((7.0, 7.0, 9.0)), ["id,image,label,split"]
    for number, split in enumerate(splits):
        patient = Thorax.random(number)
        patient.scan(grid, seed=number).save(folder / f"{number}.nii.gz")
        patient.truth(grid).save(folder / f"{number}_truth.nii.gz")
        rows.append(f"case_{number},{number}.nii.gz,{number}_truth.nii.gz,{split}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")


def start(folder: Path, run: Path, *more: str) -> BaseProcess:
    """A training in a process of its own, forked from one that has imported torch, MONAI and Lightning.

    Imports take most of a short training; without them, kills hit its epochs.
    """
    words = ["medseg", "train", folder / "recipe.yaml", folder / "cases" / "manifest.csv", "-o", run]
    words += ["--cache", folder / "cache", *more]
    child = FORKS.Process(target=train, args=([str(word) for word in words], str(run) + ".txt"))
    child.start()
    return child


def train(argv: list[str], output: str) -> None:
    """The command line in a child process; what it writes goes to a file."""
    from medseg.cli import main

    multiprocessing.set_start_method(None, force=True)  # a user's default again
    with Path(output).open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = argv
    main()


def end(child: BaseProcess, run: Path) -> None:
    """Waits for a training; ends this program if it failed."""
    child.join()
    if child.exitcode:
        sys.exit(f"exit {child.exitcode}: {Path(str(run) + '.txt').read_text()}")


def epochs_done(run: Path) -> int:
    rows = run / "history.csv"
    return max(0, len(rows.read_text().splitlines()) - 1) if rows.exists() else 0


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--kills", type=int, default=10)
    options.add_argument("--seed", type=int, default=0)
    asked = options.parse_args()
    chance = random.Random(asked.seed)
    folder = Path(tempfile.mkdtemp(prefix="interrupted-"))
    Recipe.parse(RECIPE)
    (folder / "recipe.yaml").write_text(RECIPE)
    write_cases(folder / "cases", "train", "train", "train", "val")
    FORKS.set_forkserver_preload(["medseg.training.session"])
    first = FORKS.Process(target=epochs_done, args=(folder,))  # waits for the imports
    first.start()
    first.join()
    began = time.monotonic()
    end(start(folder, folder / "whole"), folder / "whole")
    length = time.monotonic() - began
    print(f"uninterrupted: {length:.1f} s")
    parts = folder / "parts"
    kills = starts = 0
    while True:
        resume = ["--resume"] if (parts / "recipe.yaml").exists() else []
        child = start(folder, parts, *resume)
        starts += 1
        if kills < asked.kills:
            # A moment of the next few epochs.
            epoch = chance.randint(epochs_done(parts), min(epochs_done(parts) + 4, EPOCHS - 2))
            while child.is_alive() and epochs_done(parts) < epoch:
                child.join(0.01)
            child.join(chance.random() * length / EPOCHS)
            if child.is_alive():
                child.kill()
                child.join()
                kills += 1
                print(f"killed in epoch {epoch + 1} or soon after, {epochs_done(parts)} done", flush=True)
                continue
        end(child, parts)
        if kills >= asked.kills:
            break
        print("it ended before it was killed; begun anew")
        for model in parts.glob("*.safetensors"):
            model.unlink()
        parts.rename(folder / f"ended-{starts}")
    whole, again = (Model.load(run / "model.safetensors").folds[0] for run in (folder / "whole", parts))
    same = all(torch.equal(whole[name], again[name]) for name in whole)
    print(f"{kills} kills, {starts} starts: weights {'bitwise equal' if same else 'DIFFER'}")
    sys.exit(not same)


if __name__ == "__main__":
    main()
