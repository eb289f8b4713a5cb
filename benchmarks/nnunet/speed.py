"""medseg beside nnU-Net with the same weights: one scan from file to mask, and logits to mask.

    python benchmarks/nnunet/speed.py --scan SCAN.nii.gz --peer PYTHON_OF_NNUNET --out FOLDER \
        [--rounds 2] [--classes 12 --logits]

Processes run one after the other, A B A B. Each line has wall seconds, CPU seconds and peak memory. With
``--logits`` only restoring is compared, from synthetic logits at 1.5 mm, float16, that both read from a file.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import medseg

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scan", type=Path, required=True)
    parser.add_argument("--peer", help="a Python with nnunetv2; without it only medseg runs")
    parser.add_argument("--out", type=Path, default=Path("runs/nnunet"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--classes", type=int, default=12)
    parser.add_argument("--logits", action="store_true")
    parser.add_argument("--restore-only", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.restore_only:
        restore(arguments.restore_only, arguments.scan, arguments.out / "ours.nii.gz")
        return
    ours, theirs = commands(arguments)
    for _ in range(arguments.rounds):
        if arguments.peer:
            print("nnU-Net", measured([arguments.peer, str(HERE / "peer.py"), *theirs]), flush=True)
        print("medseg ", measured([sys.executable, *ours]), flush=True)
    if arguments.peer:
        masks = [
            np.asarray(medseg.read(arguments.out / f"{name}.nii.gz").array) for name in ("ours", "theirs")
        ]
        print(f"{np.count_nonzero(masks[0] != masks[1])} of {masks[0].size} voxels differ")


def commands(arguments: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The arguments of both programs."""
    out, scan = arguments.out, str(arguments.scan)
    mine, other = str(out / "ours.nii.gz"), str(out / "theirs.nii.gz")
    if arguments.logits:
        file = out / f"logits_{arguments.classes}.npy"
        if not file.exists():
            np.save(file, synthetic(arguments.classes, medseg.read(scan).grid))
        again = [__file__, "--scan", scan, "--out", str(out), "--restore-only", str(file)]
        return again, ["restore", str(file), scan, other]
    folder, model = out / "nnUNetTrainer__nnUNetPlans__3d_fullres", out / "model.safetensors"
    if not folder.exists():
        subprocess.run([arguments.peer, HERE / "peer.py", "make", folder], check=True)
    medseg.import_model(folder, output=model, mirror=False)  # as peer.py
    command = ["-m", "medseg.cli", "segment", scan, "-o", mine, "--model", str(model)]
    return command, ["segment", str(folder), scan, other]


def measured(command: list[str]) -> str:
    """Wall time, CPU time and peak memory of a process."""
    begin = time.perf_counter()
    pid = os.posix_spawn(
        command[0],
        command,
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - begin
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    cpu, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20
    return f"{wall:7.1f} s wall {cpu:7.1f} s CPU {peak:6.2f} GiB"


def synthetic(classes: int, grid: medseg.Grid) -> np.ndarray:
    """Smooth logits of organs that exclude one another, float16 (classes, z, y, x) at 1.5 mm."""
    x, y, z = (round(n * mm / 1.5) for n, mm in zip(grid.shape, grid.spacing_mm, strict=True))
    rng = np.random.default_rng(0)
    axes = [np.arange(n, dtype=np.float32) / n for n in (z, y, x)]
    made = np.empty((classes, z, y, x), dtype=np.float16)
    made[0] = 2
    for values in made[1:]:
        centre, width = rng.uniform(0.2, 0.8, 3), rng.uniform(0.04, 0.12, 3)
        d, h, w = (((a - c) / s) ** 2 for a, c, s in zip(axes, centre, width, strict=True))
        values[...] = 8 - 6 * np.sqrt(d[:, None, None] + h[:, None] + w)
    return made


def restore(file: Path, scan: Path, mask: Path) -> None:
    """Writes a mask from logits by medseg's restoring."""
    from medseg.inference.nnunet.restoring import paint_classes, tiles
    from medseg.preprocessing.nnunet import frame
    from medseg.recipe.pipeline import Configuration

    volume = medseg.read(scan)
    classes, depth = np.load(file, mmap_mode="r").shape[:2]
    rules = Configuration.model_validate({"spacing_mm": [1.5] * 3, "intensity": [{"kind": "none"}]})
    whole = frame([volume], rules)
    labels = [medseg.Label(name=f"label {n}", values=(n,)) for n in range(1, classes)]
    grid, source = volume.grid, volume.source
    del volume
    painted = np.zeros(grid.shape, dtype=np.uint8, order="F")
    # Mapped anew for each portion: pages that were read would count as memory of the process.
    portions = ((n, np.array(np.load(file, mmap_mode="r")[:, n : n + 16])) for n in range(0, depth, 16))
    paint_classes(tiles(portions, whole, rules), whole.view(painted), np.arange(classes))
    medseg.write(medseg.Mask(painted, grid, tuple(labels), source), mask)


if __name__ == "__main__":
    main()
