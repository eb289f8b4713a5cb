"""medseg beside nnU-Net's own trainer: the same cases and the same time, from a folder of data to masks.

    python benchmarks/nnunet/training.py MANIFEST --peer PYTHON_OF_NNUNET --minutes 15 -o OUTPUT [--batch 2]

Both learn from split train, watch split val, and segment split test, each as its makers meant it: ``medseg
plan`` without an edit; nnU-Net's planner, ``3d_fullres``, default trainer and mirrored prediction. Only the
number of nnU-Net's epochs and of their iterations is chosen, so that its schedule ends with the time.
``--batch`` changes the batch of nnU-Net's plan. The two run at the same time, each on one processor (Linux).
`medseg evaluate` scores the masks of both, and `medseg compare` compares them.

An arm whose ``costs.json`` lies in OUTPUT is not run again. Memory is the largest sum over an arm's processes
(proportional set size, read twice a second).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import psutil

import medseg
from medseg.datasets.manifest import Case, Manifest

PEER = Path(__file__).with_name("training_peer.py")
DATASET = "Dataset001_Cases"
CASES = "cases.csv"
PLACES = ("raw", "preprocessed", "results")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "nnUNet_n_proc_DA")


def ours(chosen: argparse.Namespace, folder: Path) -> dict[str, list[str]]:
    """medseg's commands."""
    manifest, plan, trained = str(chosen.output / CASES), str(folder / "plan.yaml"), folder / "run"
    limit = ["--max-time", f"{round(60 * chosen.minutes)}s", "--workers", "0", "--device", "cpu"]
    model = ["--model", str(trained / "model.safetensors")]
    commands = {
        "plan": ["plan", manifest, "-o", plan],
        "train": ["train", plan, manifest, "-o", str(trained), *limit],
        "segment": ["evaluate", manifest, *model, "-o", str(folder / "test")],
    }
    return {name: [sys.executable, "-m", "medseg", *words] for name, words in commands.items()}


def theirs(chosen: argparse.Namespace, folder: Path) -> dict[str, list[str]]:
    """nnU-Net's commands."""
    write_dataset(Manifest.read(chosen.output / CASES).cases, folder)
    commands = {"plan": [str(chosen.batch)], "train": [str(60 * chosen.minutes)], "segment": []}
    return {name: [chosen.peer, str(PEER), name, str(folder), *words] for name, words in commands.items()}


def write_dataset(cases: Sequence[Case], folder: Path) -> None:
    """The cases as nnU-Net wants them, and which ones it is to watch."""
    raw = folder / "raw" / DATASET
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (raw / name).mkdir(parents=True, exist_ok=True)
    for case in cases:
        test = case.split == "test"
        for number, image in enumerate(case.images):
            link(raw / ("imagesTs" if test else "imagesTr") / f"{case.id}_{number:04d}.nii.gz", image)
        if not test and case.label is not None:
            link(raw / "labelsTr" / f"{case.id}.nii.gz", case.label)
    labels = max(int(medseg.read(case.label).array.max()) for case in cases if case.label is not None)
    split = {name: [case.id for case in cases if case.split == name] for name in ("train", "val")}
    described = {
        "channel_names": {str(number): "MR" for number in range(len(cases[0].images))},
        "labels": {"background": 0} | {f"label_{value}": value for value in range(1, labels + 1)},
        "numTraining": len(split["train"]) + len(split["val"]),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(described))
    (folder / "split.json").write_text(json.dumps([split]))


def link(path: Path, source: Path) -> None:
    """A symbolic link, made anew."""
    path.unlink(missing_ok=True)
    path.symlink_to(source.resolve())


def measured(command: list[str], environment: dict[str, str], log: Path) -> dict[str, float]:
    """Wall and CPU seconds of a command with its children, and the largest sum of their memory."""
    begun = time.perf_counter()
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    peak, ended = [0.0], threading.Event()
    watch = threading.Thread(target=watch_memory, args=(process.pid, peak, ended))
    watch.start()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - begun
    ended.set()
    watch.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}; see {log}")
    cpu = usage.ru_utime + usage.ru_stime
    return {"wall_s": round(wall, 1), "cpu_s": round(cpu, 1), "peak_gib": round(peak[0] / 2**30, 2)}


def watch_memory(number: int, peak: list[float], ended: threading.Event) -> None:
    """Keeps the largest sum of the memory of a process and its descendants."""
    while not ended.wait(0.5):
        with contextlib.suppress(psutil.Error):
            root, total = psutil.Process(number), 0
            for process in [root, *root.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    total += process.memory_full_info().pss
            peak[0] = max(peak[0], total)


def run(commands: dict[str, list[str]], processor: int, folder: Path) -> dict[str, dict[str, float]]:
    """The costs of an arm's commands, one after the other, on one processor."""
    path = folder / "costs.json"
    if not path.is_file():
        places = {f"nnUNet_{name}": str(folder.resolve() / name) for name in PLACES}
        environment = os.environ | dict.fromkeys(THREADS, "1") | places
        bound = ["taskset", "--cpu-list", str(processor)]
        log = folder / "log.txt"
        costs = {name: measured([*bound, *each], environment, log) for name, each in commands.items()}
        path.write_text(json.dumps(costs))
    held: dict[str, dict[str, float]] = json.loads(path.read_text())
    return held


def report(output: Path, peer: str) -> None:
    """Prints the Dice of each case, the means and the paired difference."""
    masks, plan = output / peer / "masks", output / "medseg" / "plan.yaml"
    medseg.evaluate(output / CASES, output / peer / "test", masks=masks, labels=plan, progress=False)
    names = (peer, "medseg")
    tables = {name: medseg.read_evaluation(output / name / "test" / "evaluation.csv") for name in names}
    dice = pd.DataFrame({name: table.groupby("case")["dice"].mean() for name, table in tables.items()})
    print(dice.round(4).to_string())
    columns = ["label", "patients", "a_mean", "b_mean", "difference_mean", "ci_low", "ci_high", "p"]
    print(medseg.compare(tables).table[columns].round(4).to_string(index=False))


def main() -> None:
    """Runs both arms, and prints what they cost and how good they are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--peer", required=True, help="a Python with nnunetv2")
    parser.add_argument("--minutes", type=float, default=15, help="time of each training")
    parser.add_argument("--batch", type=int, default=0, help="batch of nnU-Net instead of its plan's")
    parser.add_argument("--processors", type=int, nargs=2, default=[0, 1], help="medseg's and nnU-Net's")
    parser.add_argument("-o", "--output", type=Path, required=True)
    chosen = parser.parse_args()
    peer = f"nnunet_batch_{chosen.batch}" if chosen.batch else "nnunet"
    for name in ("medseg", peer):
        (chosen.output / name).mkdir(parents=True, exist_ok=True)
    Manifest.read(chosen.manifest, root=chosen.data_root).write(chosen.output / CASES)
    commands = {name: arm(chosen, chosen.output / name) for name, arm in (("medseg", ours), (peer, theirs))}
    with ThreadPoolExecutor() as pool:
        arms = {
            name: pool.submit(run, each, processor, chosen.output / name)
            for processor, (name, each) in zip(chosen.processors, commands.items(), strict=True)
        }
    for name, arm in arms.items():
        for step, costs in arm.result().items():
            print(f"{name:16}{step:10}{json.dumps(costs)}")
    report(chosen.output, peer)


if __name__ == "__main__":
    main()
