"""Compares designs on the same held-out patients: 2D slices, 3D patches, and the mean of both.

    python benchmarks/lungs/model.py --data ../shared/data --out runs/lungs --folds 0 -- cases cross
    python benchmarks/lungs/model.py --data ../shared/data --out runs/lungs --folds 0 \\
        --recipe benchmarks/lungs/lungs_3d.yaml -- cross
    python benchmarks/lungs/designs.py --out runs/lungs --fold 0

Prints, for each design, the mean and worst Dice of both lungs together on the original scans and with
simulated disease, and the seconds per scan on this machine, without reading and writing.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from statistics import mean

import numpy as np

import medseg
from medseg.evaluation.metrics import dice
from medseg.images.grid import Grid
from medseg.images.run_length import Runs
from medseg.inference.model import Model
from medseg.inference.postprocessing import postprocess
from medseg.inference.segmenter import Segmenter


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/lungs"))
    parser.add_argument("--fold", type=int, default=0)
    arguments = parser.parse_args()
    folders = [arguments.out / name / f"fold{arguments.fold}" for name in ("lung_ct", "lungs_3d")]
    flat, deep = (Segmenter(Model.load(folder / "run" / "model.safetensors")) for folder in folders)
    with (folders[0] / "held_out.csv").open(newline="") as file:
        cases = list(csv.DictReader(file))
    found: dict[str, list[tuple[bool, float, float]]] = {"2D": [], "3D": [], "2D + 3D": []}
    for case in cases:
        scan = medseg.read(folders[0] / case["image"])
        truth = np.asarray(medseg.read(folders[0] / case["label"]).array) > 0
        maps, seconds = [], []
        for segment in (flat, deep):
            started = time.perf_counter()
            named = segment.prepare(scan).predict(probabilities=True).probabilities
            seconds.append(time.perf_counter() - started)
            maps.append(named["lungs"])
        maps.append((maps[0] + maps[1]) / 2)
        for name, values, took in zip(found, maps, [*seconds, sum(seconds)], strict=True):
            score = dice(cleaned(values >= 0.5, scan.grid), truth)
            found[name].append((case["id"].startswith("disease"), score, took))
        print(case["id"], {name: round(rows[-1][1], 4) for name, rows in found.items()}, flush=True)
    print("| design | Dice as it is | worst | Dice with disease | worst | s a scan |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, rows in found.items():
        plain, ill = ([score for sick, score, _ in rows if sick is kind] for kind in (False, True))
        scores = f"{mean(plain):.4f} | {min(plain):.4f} | {mean(ill):.4f} | {min(ill):.4f}"
        print(f"| {name} | {scores} | {mean(took for _, _, took in rows):.1f} |")


def cleaned(lungs: np.ndarray, grid: Grid) -> np.ndarray:
    """The two largest components, with holes filled."""
    return postprocess(Runs.of(lungs), grid, keep_components=2, fill_holes=True, min_volume_ml=5).binary()


if __name__ == "__main__":
    main()
