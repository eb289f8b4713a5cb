"""Time and memory of `medseg measure` with all lung measures, reading included: a row of docs/performance.md.

    python benchmarks/speed/measures.py SCAN MASK [--rounds 3]

Each round is a process of its own. Peak memory is the largest of all rounds.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PEAK_BYTES = 1 if sys.platform == "darwin" else 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scan", type=Path)
    parser.add_argument("mask", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "medseg", "measure", str(options.scan), str(options.mask)]
        for _ in range(options.rounds):
            before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run(
                [*command, "-o", f"{folder}/measures.csv"],
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(
                f"{wall:.1f} s, {cpu:.1f} s of CPU, peak {after.ru_maxrss * PEAK_BYTES / 1e9:.3f} GB",
                flush=True,
            )


if __name__ == "__main__":
    main()
