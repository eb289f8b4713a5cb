"""Measures the throughput of ``medseg batch``, and its overhead on a manifest of 10,000 rows.

    python benchmarks/batch.py throughput --out runs/batch [--data ../shared/data]
    python benchmarks/batch.py rows --out runs/batch [--rows 10000]

``throughput`` segments 20 chest CTs (real ones if ``--data`` is given, and phantoms with realistic noise)
with ``medseg batch``, with one process that loads the model once and works through the cases, and with one
``medseg segment`` process per case. The three alternate; ratios are computed within each round.

``rows`` segments tiny volumes with the threshold model; 97 rows are bad, in four ways. Prints the seconds
until the first case, the memory of the main process after every 1,000 rows, the failures, and the same for
a second run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from medseg import Grid, Volume
from medseg.phantom.thorax import Thorax, default_grid

IN_ONE_PROCESS = """
import sys
from pathlib import Path
from medseg.system.memory import raise_thresholds
raise_thresholds()
import medseg
from medseg.inference.segmenter import Segmenter
segment, out = Segmenter("lung_ct"), Path(sys.argv[1])
for scan in sys.argv[2:]:
    segment(medseg.read(scan)).save(out / (scan.replace("/", "_").lstrip("._")))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["throughput", "rows"])
    parser.add_argument("--out", type=Path, default=Path("runs/batch"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--bad", type=int, default=97)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.what == "throughput":
        throughput(arguments.out, arguments.data, arguments.cases, arguments.rounds)
    else:
        rows(arguments.out, arguments.rows, arguments.bad)


def throughput(out: Path, data: Path | None, cases: int, rounds: int) -> None:
    scans = chests(out / "scans", data, cases)
    manifest = out / "throughput.csv"
    manifest.write_text("id,image\n" + "".join(f"{case_name(p)},{p.resolve()}\n" for p in scans))
    found = []
    for number in range(rounds):
        times = {}
        for name in ("batch", "one process", "a process a case"):
            target = out / f"{name.replace(' ', '_')}_{number}"
            subprocess.run(["rm", "-rf", target], check=True)
            if name != "batch":
                target.mkdir()
            started = time.perf_counter()
            if name == "batch":
                call("-m", "medseg.cli", "batch", manifest, "-o", target)
            elif name == "one process":
                call("-c", IN_ONE_PROCESS, target, *scans)
            else:
                for scan in scans:
                    call("-m", "medseg.cli", "segment", scan, "-o", target / f"{case_name(scan)}.nii.gz")
            times[name] = time.perf_counter() - started
            print(f"round {number + 1}: {name}: {times[name]:.1f} s", flush=True)
        found.append(times)
    for name in ("one process", "a process a case"):
        ratios = [times[name] / times["batch"] for times in found]
        spread = f"{min(ratios):.2f} / {statistics.median(ratios):.2f} / {max(ratios):.2f}"
        print(f"batch of {len(scans)} against {name}: {spread} times as fast (min / median / max)")


def chests(folder: Path, data: Path | None, cases: int) -> list[Path]:
    """Paths of real scans at 2 mm, then of phantoms of 522 x 405 x 134 voxels, 0.75 x 0.75 x 2.5 mm."""
    folder.mkdir(exist_ok=True)
    real = sorted(data.glob("lung_ct_2mm/*/ct.nii.gz"))[: cases // 2] if data else []
    made = []
    for number in range(cases - len(real)):
        path = folder / f"phantom_{number:02d}.nii.gz"
        if not path.is_file():
            Thorax.random(number).scan(default_grid((0.75, 0.75, 2.5), "LPS"), seed=number).save(path)
        made.append(path)
    return [*real, *made]


def case_name(scan: Path) -> str:
    """Case name: the folder's name for real scans, whose files are all called ct.nii.gz, else the file's."""
    return scan.parent.name if scan.name == "ct.nii.gz" else scan.name.removesuffix(".nii.gz")


def rows(out: Path, count: int, bad: int) -> None:
    folder = out / "rows"
    folder.mkdir(exist_ok=True)
    lines = ["id,image"]
    for number in range(10):
        tiny(number).save(folder / f"{number}.nii.gz")
    (folder / "cut.nii.gz").write_bytes((folder / "0.nii.gz").read_bytes()[:300])
    (folder / "empty.nii.gz").write_bytes(b"")
    wrong = ["cut.nii.gz", "empty.nii.gz", "missing.nii.gz", "0.nii.gz,one cell too many"]
    places = set(np.linspace(0, count - 1, bad).astype(int).tolist())
    for number in range(count):
        image = wrong[number % len(wrong)] if number in places else f"{number % 10}.nii.gz"
        lines.append(f"c{number:05d},{image}")
    manifest = folder / "rows.csv"
    manifest.write_text("\n".join(lines) + "\n")
    target = out / "rows_out"
    subprocess.run(["rm", "-rf", target], check=True)
    for turn in ("first", "again"):
        words = ("batch", manifest, "-o", target, "--model", "threshold", "--json", "--resume")
        command = [sys.executable, "-m", "medseg.cli", *map(str, words)]
        started = time.perf_counter()
        memory: dict[int, float] = {}
        seen = 0
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                event = json.loads(line)
                if event["event"] == "start":
                    print(f"{turn}: checked {event['cases']} rows in {time.perf_counter() - started:.1f} s")
                seen += event["event"] == "case"
                if event["event"] == "case" and seen % 1000 == 0:
                    memory[seen] = resident_mb(process.pid)
        spent = time.perf_counter() - started
        print(
            f"{turn}: exit {process.returncode}, {seen} cases in {spent:.1f} s, memory MB by case: {memory}"
        )
        if memory:
            print(f"{turn}: growth from the 1,000th to the last: {memory[max(memory)] - memory[1000]:.1f} MB")
    table = pd.read_csv(target / "results.csv")
    print("rows of the table:", len(table), "failed:", dict(Counter(table["reason"].dropna())))


def tiny(number: int) -> Volume:
    """A small volume with two dark boxes inside a grey one."""
    array = np.full((24, 24, 10), -1000, np.int16)
    array[2:-2, 2:-2] = 40 + number
    array[4:8, 6:18, 2:8] = -800
    array[14:20, 6:18, 2:8] = -800
    return Volume(array, Grid((24, 24, 10), np.diag([12.0, 12.0, 20.0, 1.0])))


def resident_mb(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return round(int(status.split("VmRSS:")[1].split()[0]) / 1024, 1)


def call(*words: object) -> None:
    subprocess.run([sys.executable, *map(str, words)], check=True, capture_output=True)


if __name__ == "__main__":
    main()
