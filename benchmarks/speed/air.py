"""What `predict.air_hu` saves and changes: each scan segmented without and with it, in turn.

    python benchmarks/speed/air.py --model MODEL [--air-hu -800] SCAN [SCAN ...]

Prints the windows of the network, those that ran, the seconds of each, and of each label the Dice between
both masks.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import torch

import medseg
from medseg.model import Model
from medseg.segmenter import Segmenter


class Counted:
    """An engine that counts the windows it is given."""

    def __init__(self, engine: object) -> None:
        self.engine, self.name, self.windows = engine, engine.name, 0

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        self.windows += len(windows)
        return self.engine(windows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--air-hu", type=float, default=-800.0)
    parser.add_argument("scans", type=Path, nargs="+")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print(
        "| scan | windows | run with air_hu | s | s with air_hu | Dice between both |\n"
        "|---|---:|---:|---:|---:|---|"
    )
    for path in arguments.scans:
        scan = medseg.read(path)
        found = [segmented(arguments.model, air_hu, scan) for air_hu in (None, arguments.air_hu)]
        (every, all_s, whole), (some, some_s, part) = found
        told = ", ".join(
            f"{label.name} {dice(whole.of(label.name), part.of(label.name)):.6f}" for label in whole.labels
        )
        print(f"| {path.name} | {every} | {some} | {all_s:.1f} | {some_s:.1f} | {told} |", flush=True)


def segmented(name: str, air_hu: float | None, scan: medseg.Volume) -> tuple[int, float, medseg.Mask]:
    """Windows that ran, seconds, and the mask."""
    model = Model.load(name)
    predict = model.recipe.predict.model_copy(update={"air_hu": air_hu})
    segment = Segmenter(Model(model.recipe.model_copy(update={"predict": predict}), model.folds))
    counted = Counted(segment._engines[0])
    segment._engines[0] = counted
    started = time.perf_counter()
    mask = segment(scan)
    return counted.windows, time.perf_counter() - started, mask


def dice(one: np.ndarray, other: np.ndarray) -> float:
    both = one.sum() + other.sum()
    return float(2 * (one & other).sum() / both) if both else 1.0


if __name__ == "__main__":
    main()
