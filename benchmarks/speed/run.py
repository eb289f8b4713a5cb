"""Times whole processes of medseg and of other toolkits, alternating.

    make bench-peers
    python benchmarks/speed/run.py --scan SCAN --model MODEL [--rounds 5] [--peers nnunet monai_pipeline]
        [--allocator no yes] [--resume]

medseg and its peers run in separate environments, because MONAI imports every optional package it finds.
Each row of ``rounds.csv`` is one process: wall and CPU seconds, peak memory, seconds per stage, and the GEMM
rate measured just before, which shows how busy the machine was. ``table`` prints medians, and the minimum,
median and maximum of the ratio peer / medseg within each round. A first, cold run of medseg is not counted.
``--allocator no yes`` shows each peer twice: as it ships, and with the thresholds that medseg sets.
``--resume`` continues an interrupted run with the round it was in.

    python benchmarks/speed/run.py --device cuda [--minutes 8] [--slices 300] [--peers monai_pipeline]

needs only medseg, and peers if there are any, in the environment of this script: on a bare machine with a GPU
it makes the scan and a model with random weights, and begins no round that would end after the minutes.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

BEGAN = time.perf_counter()
HERE = Path(__file__).parent
PEERS = ("nnunet", "monai_pipeline", "torchio_pipeline", "lungmask_shaped")
ON_DEVICE = {"nnunet": "nnunetv2", "monai_pipeline": "monai"}
GEMM = """
import time, torch
torch.set_num_threads(2)
a = torch.randn(1536, 1536)
a @ a
best = min((lambda t: (a @ a, time.perf_counter() - t)[1])(time.perf_counter()) for _ in range(8))
print(2 * 1536**3 / best / 1e9)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scan", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/speed/rounds"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS[:3]))
    parser.add_argument("--engines", nargs="+", default=["auto"])
    parser.add_argument("--allocator", nargs="+", choices=["no", "yes"], default=["no"])
    parser.add_argument("--ours", default=".venv-plain/bin/python", help="Where only medseg[fast] is.")
    parser.add_argument("--theirs", default=".venv-peers/bin/python", help="Where the peers are.")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--device", help="Device of all networks, such as cuda.")
    parser.add_argument("--minutes", type=float, default=8.0, help="With --device: the most it may take.")
    parser.add_argument("--slices", type=int, default=300, help="With --device: of the scan that is made.")
    parser.add_argument("--side", type=int, default=512, help="With --device: its width and height.")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.device:
        print("at most", arguments.minutes, "minutes on", arguments.device, flush=True)
        arguments.ours = arguments.theirs = sys.executable
        arguments.peers = [
            peer for peer in arguments.peers if peer in ON_DEVICE and find_spec(ON_DEVICE[peer])
        ]
        prepare(arguments)
    elif arguments.scan is None or arguments.model is None:
        parser.error("--scan and --model are needed without --device")
    rows: list[dict[str, object]] = []
    if arguments.resume and (arguments.out / "rounds.csv").is_file():
        rows = list(pd.read_csv(arguments.out / "rounds.csv").to_dict("records"))
    for number in range(len({row["round"] for row in rows}), arguments.rounds + 1):
        if arguments.device and number > 1:
            last = sum(float(str(row["wall_s"])) for row in rows if row["round"] == number - 1)
            if time.perf_counter() - BEGAN + last > 60 * arguments.minutes:
                print(f"no time is left for round {number}", flush=True)
                break
        print(f"round {number} of {arguments.rounds}", flush=True)
        for engine in arguments.engines:
            # medseg's own process always sets the thresholds, in its command line as here.
            rows.append(
                measured(
                    "ours", number, arguments, ["--allocator", "--engine", engine], name=f"medseg {engine}"
                )
            )
        for peer in arguments.peers if number else ():
            for given in arguments.allocator:
                extra = ["--allocator"] if given == "yes" else []
                name = f"{peer} + allocator" if extra else peer
                rows.append(measured(peer, number, arguments, extra, name=name))
        write(arguments.out / "rounds.csv", rows)
    table(pd.read_csv(arguments.out / "rounds.csv"))


def prepare(arguments: argparse.Namespace) -> None:
    """Makes the scan and the model that were not given."""
    from volumes import chest

    from medseg.inference.model import Model
    from medseg.networks import build
    from medseg.recipe import Recipe

    if arguments.scan is None:
        arguments.scan = arguments.out / f"ct_{arguments.side}x{arguments.side}x{arguments.slices}.nii.gz"
        if not arguments.scan.is_file():
            chest(arguments.slices, arguments.side).save(arguments.scan)
    if arguments.model is None:
        arguments.model = arguments.out / "random.safetensors"
        recipe = Recipe.read(HERE / "speed_3d.yaml")
        Model(recipe, (build(recipe).state_dict(),)).save(arguments.model)


def measured(
    script: str, number: int, arguments: argparse.Namespace, extra: list[str], *, name: str
) -> dict[str, object]:
    """Row for one process."""
    if arguments.device:
        gemm, extra = float("nan"), [*extra, "--device", arguments.device]
    else:
        gemm = float(subprocess.run([sys.executable, "-c", GEMM], capture_output=True, check=True).stdout)
    mask = arguments.out / f"{name.replace(' ', '_')}.nii.gz"
    python = arguments.ours if script == "ours" else arguments.theirs
    words = [python, "-W", "ignore", HERE / "peers" / f"{script}.py", arguments.scan, arguments.model, mask]
    # As many threads for everybody as the machine of the table has cores.
    environment = os.environ | {"OMP_NUM_THREADS": "2", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "2"}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    started = time.perf_counter()
    with subprocess.Popen(
        [*map(str, words), *extra], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout
        stdout = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{name} failed: {words}")
    row = {
        "name": name,
        "round": number,
        "wall_s": time.perf_counter() - started,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mb": used.ru_maxrss / 1024,
        "gemm_gflops": gemm,
        "stages": json.dumps({k: round(v, 2) for k, v in json.loads(stdout.splitlines()[-1]).items()}),
    }
    print(" ".join(f"{k} {v:.1f}" if isinstance(v, float) else f"{v}" for k, v in row.items()), flush=True)
    return row


def write(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def table(frame: pd.DataFrame) -> None:
    """Medians of the warm rounds, with ratios to medseg's first engine within each round."""
    cold = frame[frame["round"] == 0].set_index("name")
    warm = frame[frame["round"] > 0]
    stages = pd.DataFrame([json.loads(s) for s in warm["stages"]], index=warm.index)
    medians = pd.concat([warm[["name", "wall_s", "cpu_s", "peak_mb", "gemm_gflops"]], stages], axis=1)
    print(medians.groupby("name", sort=False).median().round(2).to_string())
    print("cold:", cold["wall_s"].round(1).to_dict())
    first = warm["name"].iloc[0]
    ours = warm[warm["name"] == first].set_index("round")
    for name, theirs in warm.groupby("name", sort=False):
        for key in ("wall_s", "cpu_s", "peak_mb"):
            ratio = theirs.set_index("round")[key] / ours[key]
            print(f"{name:20s} {key:8s} {ratio.min():.2f} {ratio.median():.2f} {ratio.max():.2f}")


if __name__ == "__main__":
    main()
