"""Trains and evaluates the shipped recipes on real scans; produces the numbers in docs/results.md.

    python benchmarks/real_data.py --data ../shared/data --out runs/real [STEP ...]

Steps are the recipes in TRAININGS, compare and dicom; by default all of them. Runs the commands that a user
would run, one after the other, and writes their wall time, peak memory and scores to results.md. An
interrupted training is resumed when the script is run again. The data are described in
data_manifests/*.md; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import SimpleITK as sitk  # noqa: N813

MANIFESTS = Path(__file__).parents[1] / "data_manifests"
TRAININGS = {  # recipe: manifest, time limit, cases to score, Dice to reach
    "lung_ct_2d": ("lctsc_lungs.yaml", "40m", "test", 0.97),
    "lung_ct_3d": ("lctsc_lungs.yaml", "40m", "test", 0.95),
    "hippocampus_mr_3d": ("hippocampus.yaml", "60m", "test", 0.84),
    "hippocampus_dynunet_3d": ("hippocampus.yaml", "60m", "test", 0.84),
    # So few patients that only training itself is shown: no bar, and the last has none to score but its own.
    "sarcoma_mr_3d": ("sarcoma_t1.yaml", "15m", "val", 0.0),
    "lung_nodule_ct_3d": ("lidc_nodules.yaml", "15m", "val", 0.0),
    "lung_tumour_ct_3d": ("4dlung_tumour.yaml", "15m", "train", 0.0),
}
RIVALS = ("hippocampus_mr_3d", "hippocampus_dynunet_3d")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/real"))
    parser.add_argument("steps", nargs="*", default=[*TRAININGS, "compare", "dicom"])
    arguments = parser.parse_args()
    data, out = arguments.data, arguments.out
    out.mkdir(parents=True, exist_ok=True)
    for step in arguments.steps:
        if step == "dicom":
            dicom(data, out)
        elif step == "compare":
            tables = [out / recipe / "test" / "evaluation.csv" for recipe in RIVALS]
            run("compare", out, "compare", *tables, "-o", out / "compare")
        else:
            train_and_evaluate(step, data, out)
    text = "\n".join([*commands(out), *scores(out), *grids(out)]) + "\n"
    (out / "results.md").write_text(text, encoding="utf-8")
    print(text)


def run(name: str, out: Path, *arguments: str | Path) -> None:
    """Runs ``medseg ...`` and records its wall time and peak memory (largest process) in commands.json."""
    command = " ".join(["medseg", *map(str, arguments)])
    print("$", command, flush=True)
    started = time.monotonic()
    child = subprocess.Popen([sys.executable, "-m", "medseg.cli", *map(str, arguments)])
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"exit code {child.returncode}")
    seconds = round(time.monotonic() - started, 1)
    log = out / "commands.json"
    known = json.loads(log.read_text()) if log.is_file() else {}
    known[name] = {"command": command, "seconds": seconds, "peak_mb": round(usage.ru_maxrss / 1024)}
    log.write_text(json.dumps(known, indent=2) + "\n")


def train_and_evaluate(recipe: str, data: Path, out: Path) -> None:
    """Trains within the time limit, then segments and scores the test cases."""
    manifest, limit, split, _ = TRAININGS[recipe]
    source = (os.path.relpath(MANIFESTS / manifest), "--data-root", data)
    folder = out / recipe
    model = folder / "model.safetensors"
    if not model.is_file():
        resume = ("--resume",) if (folder / "checkpoints" / "last.ckpt").is_file() else ()
        run(f"train {recipe}", out, "train", recipe, *source, "-o", folder, "--max-time", limit, *resume)
    scored = ("--split", split, "-o", folder / "test")
    run(f"evaluate {recipe}", out, "evaluate", *source, "--model", model, *scored)


def dicom(data: Path, out: Path) -> None:
    """Segments the chest and abdomen series, converts the tilted MR series, and compares the grids."""
    unpacked = out / "4DLung-113"
    if not unpacked.is_dir():
        with zipfile.ZipFile(data / "dicom" / "4DLung-113_ct_99slices.zip") as archive:
            archive.extractall(unpacked)
    folders = [p.parent for p in sorted(unpacked.rglob("*.dcm"))]
    chest = max(set(folders), key=folders.count)  # the RTSTRUCT may lie in a folder of its own
    series = {"chest": chest, "abdomen": data / "dicom" / "totalseg_ct_20slices"}
    made = {}
    for recipe in ("lung_ct_2d", "lung_ct_3d"):
        for name, folder in series.items():
            mask = out / f"{name}_{recipe}.nii.gz"
            model = out / recipe / "model.safetensors"
            run(f"segment {name} {recipe}", out, "segment", folder, "-o", mask, "--model", model)
            made[mask] = folder
    tilted = data / "dicom" / "mr_t1post_22slices"
    run("convert mr", out, "convert", tilted, "-o", out / "mr.nii.gz")
    made[out / "mr.nii.gz"] = tilted
    gaps = {file.name: corner_distance_mm(file, folder) for file, folder in made.items()}
    (out / "grids.json").write_text(json.dumps(gaps, indent=2) + "\n")


def corner_distance_mm(nifti: Path, folder: Path) -> float:
    """Largest distance in mm between corner voxels of a NIfTI file and a series, both read by SimpleITK."""
    names = sitk.ImageSeriesReader().GetGDCMSeriesFileNames(str(folder))
    theirs, ours = sitk.ReadImage(names), sitk.ReadImage(str(nifti))
    if theirs.GetSize() != ours.GetSize():
        return float("inf")
    corners = [tuple((n - 1) * (c >> a & 1) for a, n in enumerate(ours.GetSize())) for c in range(8)]
    points = [[image.TransformIndexToPhysicalPoint(c) for c in corners] for image in (theirs, ours)]
    return max(
        sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) ** 0.5 for a, b in zip(*points, strict=True)
    )


def commands(out: Path) -> Iterator[str]:
    yield from ("| command | wall s | peak MB |", "|---|---:|---:|")
    for facts in json.loads((out / "commands.json").read_text()).values():
        yield f"| `{facts['command']}` | {facts['seconds']:.0f} | {facts['peak_mb']:.0f} |"


def scores(out: Path) -> Iterator[str]:
    for recipe, (_, _, split, wanted) in TRAININGS.items():
        source = out / recipe / "test" / "evaluation.csv"
        if not source.is_file():
            continue
        frame = pd.read_csv(source)
        dice = frame.groupby("case")["dice"].mean()
        verdict = "reached" if dice.mean() >= wanted else "MISSED"
        reached = f"≥ {wanted}: {verdict}" if wanted else "no bar"
        yield from (
            "",
            f"**{recipe}**: mean Dice {dice.mean():.4f} over {len(dice)} {split} cases ({reached})",
        )
        share = f"{100 * waited(out / recipe):.1f} % of the training time after the first epoch"
        yield from ("", f"Waited for data: {share}.")
        yield from ("", "| label | n | Dice mean | SD | min | max | mean absolute volume error, ml |")
        yield "|---|---:|---:|---:|---:|---:|---:|"
        for label, rows in frame.groupby("label"):
            d, error = rows["dice"], rows["volume_error_ml"].abs().mean()
            numbers = (f"{x:.4f}" for x in (d.mean(), d.std(), d.min(), d.max()))
            yield f"| {label} | {len(d)} | {' | '.join(numbers)} | {error:.2f} |"
        if len(dice) < 10:
            yield from ("", "Each case: " + ", ".join(f"{case} {value:.4f}" for case, value in dice.items()))


def waited(run_folder: Path) -> float:
    """Mean share of the training time spent waiting for data, after the first epoch."""
    return float(pd.read_csv(run_folder / "history.csv")["waiting"][1:].mean())


def grids(out: Path) -> Iterator[str]:
    if (out / "grids.json").is_file():
        yield from ("", "| file | farthest corner from the grid SimpleITK reads, mm |", "|---|---:|")
        for name, gap in json.loads((out / "grids.json").read_text()).items():
            yield f"| {name} | {gap:.6f} |"


if __name__ == "__main__":
    main()
