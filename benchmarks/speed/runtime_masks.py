"""Masks, size and time of medseg-runtime beside medseg itself, on the same scans with the same engine.

    python3 -m venv laptop && laptop/bin/pip install './runtime[dicom]'
    python benchmarks/speed/runtime_masks.py laptop/bin/python --data ../shared/data

Six small models with random weights (2D and 3D: sides, a lesion within a lung, softmax) are exported, and
segment a phantom and a chest CT, each as NIfTI and as DICOM: in the runtime's environment by the package, in
this one by the model file. The bytes of the masks are compared. Then both start and segment in turn.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

import medseg
from medseg.inference.model import Model
from medseg.networks import build
from medseg.phantom.thorax import Thorax, default_grid
from medseg.recipe import Recipe

SIDES = {
    "labels": [{"name": "lungs", "values": [1, 2]}],
    "postprocess": {
        "divide": [
            {"name": "right_lung", "values": [1], "side": "right"},
            {"name": "left_lung", "values": [2], "side": "left"},
        ]
    },
}
LESION = {"labels": [{"name": "lung", "values": [1, 2]}, {"name": "lesion", "values": [2]}]}
SOFTMAX = {"labels": [{"name": "lung", "values": [1]}, {"name": "lesion", "values": [2]}]}
KINDS = {"sides": SIDES, "lesion": LESION, "softmax": SOFTMAX}


def random_model(kind: str, dims: int, path: Path) -> Path:
    """A model file with random weights."""
    recipe = Recipe.checked(
        {
            "name": f"{kind}_{dims}d",
            "modality": "CT",
            "channels": ["CT"],
            "prepare": {
                "spacing_mm": [8, 8, 10],
                "crop": {"above": -500, "margin_mm": 10},
                "intensity": {"kind": "window", "low_hu": -1024, "high_hu": 276},
            },
            "patch": {"size": [16, 24, 16]} if dims == 3 else {"size": [24, 32], "neighbours": 1},
            "network": {"widths": [4, 8, 8], "norm": "instance"},
            "train": {"epochs": 2, "steps_per_epoch": 3, "batch_size": 2},
            **KINDS[kind],
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(dims)
        return Model(recipe, (build(recipe).state_dict(),)).save(path)


def scans(folder: Path, data: Path) -> list[Path]:
    """A phantom and a chest CT, each as a NIfTI file and as a DICOM series."""
    found = [Thorax().scan(default_grid((4.0, 4.0, 5.0), "LPS"))]
    found.append(medseg.read(data / "lung_ct_small" / "totalseg-example_ct" / "ct.nii.gz"))
    paths = []
    for number, scan in enumerate(found):
        paths.append(medseg.write(scan, folder / f"scan{number}.nii.gz"))
        paths.append(medseg.write_dicom_series(scan, folder / f"series{number}"))
    return paths


def run(python: str, *arguments: object) -> tuple[float, float]:
    """Wall and CPU seconds of a medseg command; only this environment's Python sees this clone."""
    variables = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    if python == sys.executable:
        variables["PYTHONPATH"] = str(Path(medseg.__file__).parents[1])
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [python, "-m", "medseg", *map(str, arguments)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each mask in a folder."""
    masks = sorted([*folder.glob("*.nii.gz"), *folder.glob("*.dcm")])
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in masks}


def compared(runtime: str, folder: Path, paths: list[Path]) -> tuple[int, int]:
    """How many masks have the same bytes, and how many were compared."""
    equal = total = 0
    for dims in (2, 3):
        for kind in KINDS:
            model = random_model(kind, dims, folder / f"{kind}{dims}.safetensors")
            package = medseg.export_model(model, folder / f"{kind}{dims}", engine="onnx").path
            masks = []
            for number, (python, given) in enumerate(((runtime, package), (sys.executable, model))):
                output = folder / f"masks-{kind}{dims}-{number}"
                run(
                    python, "segment", *paths, "--model", given, "--engine", "onnx", "-o", f"{output}{os.sep}"
                )
                masks.append(digests(output))
            same = sum(masks[0][name] == masks[1].get(name) for name in masks[0])
            print(f"{kind}, {dims}D: {same} of {len(paths)} masks equal", flush=True)
            equal, total = equal + same, total + len(paths)
    return equal, total


def main() -> None:
    """Prints how many masks are equal, and a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runtime", help="the Python of an environment with medseg-runtime")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = scans(folder, given.data)
        equal, total = compared(given.runtime, folder, paths)
        print(f"{equal} of {total} masks have the same bytes")
        medseg.export_model("lung_ct", folder / "lung_ct", engine="onnx")
        scan = paths[-2]
        environments = ((given.runtime, folder / "lung_ct"), (sys.executable, "lung_ct"))
        seconds: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for _ in range(given.rounds):  # A B A B
            for python, model in environments:
                seconds.setdefault((python, "start"), []).append(run(python, "--version"))
                one = run(
                    python, "segment", scan, "--model", model, "--engine", "onnx", "-o", folder / "x.nii.gz"
                )
                seconds.setdefault((python, "segment"), []).append(one)
        print(
            "| | start, wall s | start, CPU s | lung_ct, wall s | lung_ct, CPU s |\n|---|---:|---:|---:|---:|"
        )
        for label, (python, _) in zip(("medseg-runtime", "medseg"), environments, strict=True):
            cells = [
                f"{median(one[part] for one in seconds[python, what]):.2f}"
                for what in ("start", "segment")
                for part in (0, 1)
            ]
            print(f"| {label} | {' | '.join(cells)} |")
    if equal < total:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
