"""Size, start and time of an installation of medseg: run it with the Python of each environment.

    laptop/bin/python benchmarks/speed/footprint.py medseg-runtime --model package --engine onnx --scan SCAN

The size is that of all files of the named distribution and of what it requires, with the compiled files that
pip records, and without pip itself.
"""

from __future__ import annotations

import argparse
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


def required(name: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """Names of a distribution and of all that it requires here, also by its extras."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    waiting = [(name, extras)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        each = waiting.pop()
        if each in seen:
            continue
        seen.add(each)
        try:
            lines = distribution(each[0]).requires or []
        except PackageNotFoundError:
            continue
        found.add(re.sub(r"[-_.]+", "-", each[0]).lower())
        for line in lines:
            wanted = Requirement(line)
            marker = wanted.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *each[1])):
                waiting.append((wanted.name, frozenset(wanted.extras)))
    return found


def megabytes(names: set[str]) -> float:
    """Size of the files of distributions."""
    files = {Path(str(file.locate())) for name in names for file in distribution(name).files or ()}
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def timed(command: list[str], rounds: int) -> tuple[list[float], list[float], float]:
    """Wall and CPU seconds of each run of a command, and the peak memory of all children in GB."""
    wall, cpu = [], []
    for _ in range(rounds):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wall.append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return wall, cpu, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6


def main() -> None:
    """Prints the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("distribution", help="such as medseg-runtime or medseg[fast]")
    parser.add_argument("--scan", type=Path)
    parser.add_argument("--model", default="lung_ct")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    name, _, extra = given.distribution.rstrip("]").partition("[")
    found = required(name, frozenset(extra.split(",")) - {""})
    print(f"{given.distribution}: {len(found)} distributions, {megabytes(found):.0f} MB")
    medseg = [sys.executable, "-m", "medseg"]
    for command in (["--version"], ["--help"]):
        wall, cpu, _ = timed([*medseg, *command], given.rounds)
        print(
            f"medseg {command[0]}: wall {statistics.median(wall):.2f} s, CPU {statistics.median(cpu):.2f} s"
        )
    if given.scan is not None:
        with tempfile.TemporaryDirectory() as folder:
            command = ["segment", str(given.scan), "--model", given.model, "--engine", given.engine]
            wall, cpu, peak = timed([*medseg, *command, "-o", f"{folder}/mask.nii.gz"], given.rounds)
        text = ", ".join(f"{seconds:.1f}" for seconds in wall)
        print(f"segment: wall {text} s, CPU {statistics.median(cpu):.1f} s, peak {peak:.2f} GB")


if __name__ == "__main__":
    main()
