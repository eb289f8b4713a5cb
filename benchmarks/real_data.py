"""Trains and evaluates the shipped recipes on real scans; every number of docs/results.md comes from here.

    python benchmarks/real_data.py --data ../shared/data --out runs/real [STEP ...]

Steps: lung_ct_2d lung_ct_3d hippocampus_mr_3d dicom; all of them by default. Runs the same commands
a user would, one after the other, and keeps their wall time and peak memory in commands.json. A
training that was stopped goes on where it was when the script is run again. The data are described
in data_manifests/*.md; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pandas as pd

REPO = Path(__file__).parents[1]
TRAININGS = {  # recipe: manifest, time limit, Dice to reach
    "lung_ct_2d": ("lctsc_lungs.yaml", "40m", 0.97),
    "lung_ct_3d": ("lctsc_lungs.yaml", "40m", 0.95),
    "hippocampus_mr_3d": ("hippocampus.yaml", "60m", 0.80),
}


def run(name: str, out: Path, *arguments: str) -> dict[str, float | str]:
    """Runs ``medseg ...``; wall seconds and peak MB of it and its workers, kept in ``out/commands.json``."""
    command = ["medseg", *arguments]
    print("$", " ".join(command), flush=True)
    started = time.monotonic()
    child = subprocess.Popen([sys.executable, "-m", "medseg.cli", *arguments], cwd=REPO)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    facts: dict[str, float | str] = {
        "command": " ".join(command),
        "seconds": round(time.monotonic() - started, 1),
        "peak_mb": round(usage.ru_maxrss / 1024),
    }
    if child.returncode:
        sys.exit(f"exit code {child.returncode}")
    log = out / "commands.json"
    known = json.loads(log.read_text()) if log.is_file() else {}
    log.write_text(json.dumps(known | {name: facts}, indent=2) + "\n")
    return facts


def train_and_evaluate(recipe: str, data: Path, out: Path) -> float:
    """Mean Dice of the test cases over labels."""
    manifest, limit, _ = TRAININGS[recipe]
    source = (str(Path("data_manifests") / manifest), "--data-root", str(data))
    folder = out / recipe
    if not (folder / "model.safetensors").is_file():
        resume = ("--resume",) if (folder / "checkpoints" / "last.ckpt").is_file() else ()
        run(f"train {recipe}", out, "train", recipe, *source, "-o", str(folder), "--max-time", limit, *resume)
    tables = folder / "test"
    run(
        f"evaluate {recipe}",
        out,
        "evaluate",
        *source,
        "--model",
        str(folder / "model.safetensors"),
        "-o",
        str(tables),
    )
    frame = pd.read_csv(tables / "evaluation.csv")
    print(frame.to_string())
    return float(frame.groupby("case")["dice"].mean().mean())


def dicom(data: Path, out: Path) -> None:
    """The two chest and abdomen series segmented, the tilted MR series converted."""
    unpacked = out / "4DLung-113"
    if not unpacked.is_dir():
        with zipfile.ZipFile(data / "dicom" / "4DLung-113_ct_99slices.zip") as archive:
            archive.extractall(unpacked)
    chest = next(p.parent for p in sorted(unpacked.rglob("*")) if p.is_file() and p.suffix == ".dcm")
    series = {"chest": chest, "abdomen": data / "dicom" / "totalseg_ct_20slices"}
    for recipe in ("lung_ct_2d", "lung_ct_3d"):
        for name, folder in series.items():
            mask = out / f"{name}_{recipe}.nii.gz"
            model = out / recipe / "model.safetensors"
            run(
                f"segment {name} {recipe}",
                out,
                "segment",
                str(folder),
                "-o",
                str(mask),
                "--model",
                str(model),
            )
    mr = data / "dicom" / "mr_t1post_22slices"
    run("convert mr", out, "convert", str(mr), "-o", str(out / "mr.nii.gz"))
    for file, folder in [
        *((out / f"{n}_lung_ct_2d.nii.gz", f) for n, f in series.items()),
        (out / "mr.nii.gz", mr),
    ]:
        print(f"{file.name}: {corner_distance(file, folder):.6f} mm from the grid SimpleITK reads")


def corner_distance(nifti: Path, folder: Path) -> float:
    """Largest distance of a corner voxel in a NIfTI file and in a series, both as SimpleITK reads them."""
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageSeriesReader()
    names = reader.GetGDCMSeriesFileNames(str(folder))
    theirs, ours = sitk.ReadImage(names), sitk.ReadImage(str(nifti))
    assert theirs.GetSize() == ours.GetSize(), (theirs.GetSize(), ours.GetSize())
    corners = [tuple((n - 1) * (c >> a & 1) for a, n in enumerate(ours.GetSize())) for c in range(8)]
    gaps = []
    for corner in corners:
        a, b = (image.TransformIndexToPhysicalPoint(corner) for image in (theirs, ours))
        gaps.append(sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) ** 0.5)
    return max(gaps)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/real"))
    parser.add_argument("steps", nargs="*", default=[*TRAININGS, "dicom"])
    arguments = parser.parse_args()
    data, out = arguments.data.resolve(), arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    results = {}
    for step in arguments.steps:
        if step == "dicom":
            dicom(data, out)
        else:
            results[step] = (train_and_evaluate(step, data, out), TRAININGS[step][2])
    for recipe, (dice, wanted) in results.items():
        verdict = "ok" if dice >= wanted else "MISSED"
        print(f"{recipe}: mean Dice {dice:.4f}, at least {wanted} wanted: {verdict}")


if __name__ == "__main__":
    main()
