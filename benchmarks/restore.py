"""Time and memory to turn probabilities on a 3 mm grid into the labels of a 512 x 512 x N scan.

    python benchmarks/restore.py --labels 2 25 118 --slices 300 450
    python benchmarks/restore.py --labels 25 --slices 300 --peer .venv-peers/bin/python

``--peer`` is a Python environment with nnU-Net v2. Its export of the same logits (default resampling, then
argmax) alternates with medseg's. Every run is a separate process. The scan has voxels of 0.8 x 0.8 x 1 mm;
each label is a ball with soft edges.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
import torch

SPACING_MM, PREPARED_MM, THICK = (0.8, 0.8, 1.0), 3.0, 12


def logits(labels: int, shape: tuple[int, int, int], first: int, last: int) -> torch.Tensor:
    """Logits of some planes of the prepared grid: float32, (1 + labels, X, Y, planes), background first."""
    random = np.random.default_rng(7)
    at = np.stack(np.meshgrid(*[np.arange(n) for n in (*shape[:2], last - first)], indexing="ij"))
    at = at.astype(np.float32)
    at[2] += first
    values = torch.zeros((1 + labels, *at.shape[1:]))
    for label in range(1, 1 + labels):
        centre, radius = random.uniform(0, shape), random.uniform(3, 15)
        away = np.sqrt(((at - centre.reshape(3, 1, 1, 1).astype(np.float32)) ** 2).sum(0))
        values[label] = torch.from_numpy(np.clip((radius - away) * 2, -12, 12).astype(np.float32))
    return values


def ours(labels: int, slices: int) -> float:
    """Seconds for restoring, without making the logits."""
    from medseg.images.grid import Grid
    from medseg.inference.label_decision import LabelDecision
    from medseg.inference.native_grid import label_map

    source = Grid.from_spacing((512, 512, slices), SPACING_MM)
    prepared = Grid.from_spacing(_prepared(slices), (PREPARED_MM,) * 3)
    waited = 0.0

    def planes() -> object:
        nonlocal waited
        for first in range(0, prepared.shape[2], THICK):
            started = time.perf_counter()
            last = min(first + THICK, prepared.shape[2])
            values = torch.softmax(logits(labels, prepared.shape, first, last), 0)[1:].numpy()
            waited += time.perf_counter() - started
            yield first, values

    started = time.perf_counter()
    decision = LabelDecision(tuple(range(1, labels + 1)))
    label_map(planes(), prepared, source, decision=decision)  # type: ignore[arg-type]
    return time.perf_counter() - started - waited


def nnunet(labels: int, slices: int) -> float:
    """Seconds for nnU-Net's own export of the same logits."""
    from nnunetv2.preprocessing.resampling.default_resampling import (  # type: ignore[import-not-found]
        resample_data_or_seg_to_shape,
    )

    values = logits(labels, _prepared(slices), 0, _prepared(slices)[2]).numpy()
    spacings = [PREPARED_MM] * 3, list(SPACING_MM)
    started = time.perf_counter()
    whole = resample_data_or_seg_to_shape(
        values, (512, 512, slices), *spacings, is_seg=False, order=1, order_z=0, force_separate_z=None
    )
    whole.argmax(0)
    return time.perf_counter() - started


def _prepared(slices: int) -> tuple[int, int, int]:
    sizes = (512, 512, slices)
    x, y, z = (int(np.ceil(n * mm / PREPARED_MM)) for n, mm in zip(sizes, SPACING_MM, strict=True))
    return x, y, z


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--labels", type=int, nargs="+", default=[25])
    parser.add_argument("--slices", type=int, nargs="+", default=[300])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peer", help="A Python that has nnU-Net v2.")
    parser.add_argument("--side", choices=["ours", "nnunet"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        seconds = {"ours": ours, "nnunet": nnunet}[arguments.side](arguments.labels[0], arguments.slices[0])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(json.dumps({"seconds": round(seconds, 2), "peak_gb": round(peak, 2)}))
        return
    for slices in arguments.slices:
        for labels in arguments.labels:
            for _ in range(arguments.rounds):
                for side in ("ours", "nnunet") if arguments.peer else ("ours",):
                    python = arguments.peer if side == "nnunet" else sys.executable
                    asked = ["--side", side, "--labels", labels, "--slices", slices]
                    words = [python, __file__, *map(str, asked)]
                    done = subprocess.run(words, capture_output=True, text=True, check=True).stdout
                    print(side, f"{labels} labels, 512 x 512 x {slices}:", done.splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
