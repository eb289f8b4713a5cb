"""Compares versions of medseg from file to mask: whole processes of `medseg segment`, alternating.

    git worktree add --detach ../before fe552fc
    python benchmarks/speed/versions.py ../before . --scan runs/speed/ct_512x512x300.nii.gz --rounds 5

The first folder is the version before. Each version first segments the scan once without being counted, so
that its compiled files and the scan are in memory; then they take turns. The table has the minimum, median
and maximum of wall and CPU seconds and of peak memory, each also as ratio to the version before in the same
round, and the number of voxels in which the masks differ.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np

FIGURES = ("wall s", "CPU s", "peak MB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", help="Checkouts, the version before first.")
    parser.add_argument("--scan", type=Path, required=True)
    parser.add_argument("--model", default="lung_ct")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    folders = [folder.resolve() for folder in given.folders]
    with tempfile.TemporaryDirectory() as kept:
        masks = [Path(kept) / str(number) / "mask.nii.gz" for number in range(len(folders))]
        for folder, mask in zip(folders, masks, strict=True):
            mask.parent.mkdir()
            segmented(folder, given.scan, mask, given.model)
        rounds = []
        for number in range(given.rounds):
            pairs = zip(folders, masks, strict=True)
            rounds.append([segmented(folder, given.scan, mask, given.model) for folder, mask in pairs])
            print(
                number + 1, *(" ".join(f"{x:.2f}" for x in row) for row in rounds[-1]), sep="  ", flush=True
            )
        first, *others = (np.asarray(nibabel.load(mask).dataobj) for mask in masks)
        differing = [0, *(int(np.count_nonzero(first != other)) for other in others)]
    for number, folder in enumerate(folders):
        print(f"{folder}: {differing[number]} of {first.size} voxels differ")
        for figure, name in enumerate(FIGURES):
            values = [row[number][figure] for row in rounds]
            ratios = [row[number][figure] / row[0][figure] for row in rounds]
            print(f"  {name:8s} {spread(values)}   ratio {spread(ratios)}")


def spread(values: list[float]) -> str:
    """Minimum, median and maximum."""
    return " ".join(f"{x:8.2f}" for x in (min(values), statistics.median(values), max(values)))


def segmented(folder: Path, scan: Path, mask: Path, model: str) -> tuple[float, float, float]:
    """Wall and CPU seconds and peak memory in MB of one process."""
    started = time.perf_counter()
    with subprocess.Popen(
        # -P: not the version of the current folder.
        [sys.executable, "-P", "-m", "medseg.cli", "segment", scan, "-o", mask, "--model", model],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(folder)},
    ) as process:
        assert process.stderr
        told = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{folder}: {told.decode(errors='replace')}")
    return time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


if __name__ == "__main__":
    main()
