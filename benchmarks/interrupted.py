"""Kills a short training at random moments with SIGKILL and resumes it until it finishes.

The final weights must equal those of an uninterrupted training, bit for bit.

    python benchmarks/interrupted.py --kills 10 --seed 1
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from medseg.inference.model import Model
from medseg.phantom.demo import make_phantom
from medseg.recipe import Recipe

RECIPE = """
name: interrupted
modality: CT
channels: [CT]
labels: [{name: right_lung, values: [1, 3], side: right}, {name: left_lung, values: [2, 4], side: left}]
prepare: {spacing_mm: [8, 8, 10], intensity: {kind: window, low_hu: -1024, high_hu: 276}}
patch: {size: [32, 32, 16]}
network: {widths: [8, 16], norm: batch, dropout: 0.1}
train: {epochs: 12, steps_per_epoch: 4, batch_size: 2, accumulate: 2, validate_every: 2, ema_decay: 0.9}
"""


def command(folder: Path, run: Path) -> list[str]:
    words = [sys.executable, "-m", "medseg.cli", "train", folder / "recipe.yaml"]
    words += [folder / "cases" / "manifest.csv", "-o", run, "--cache", folder / "cache"]
    return [str(word) for word in words]


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--kills", type=int, default=10)
    options.add_argument("--seed", type=int, default=0)
    asked = options.parse_args()
    chance = random.Random(asked.seed)
    folder = Path(tempfile.mkdtemp(prefix="interrupted-"))
    Recipe.parse(RECIPE)
    (folder / "recipe.yaml").write_text(RECIPE)
    make_phantom(folder / "cases", 4, seed=0)
    began = time.monotonic()
    subprocess.run(command(folder, folder / "whole"), check=True, capture_output=True)
    length = time.monotonic() - began
    print(f"uninterrupted: {length:.1f} s")
    parts = folder / "parts"
    kills = starts = 0
    while True:
        resume = ["--resume"] if (parts / "recipe.yaml").exists() else []
        child = subprocess.Popen(
            [*command(folder, parts), *resume], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        starts += 1
        if kills < asked.kills:
            # Most of a run's time is imports: moments are drawn from the time of a few epochs.
            moment = chance.uniform(0.2, 1.0) * length * 0.8
            try:
                child.wait(moment)
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGKILL)
                child.wait()
                kills += 1
                rows = parts / "history.csv"
                done = len(rows.read_text().splitlines()) - 1 if rows.exists() else 0
                print(f"killed after {moment:.1f} s, {done} epochs done", flush=True)
                continue
        _, stderr = child.communicate()
        if child.returncode:
            sys.exit(f"exit {child.returncode}: {stderr}")
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
