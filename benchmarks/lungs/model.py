"""Trains the shipped lung model and measures it by patient-level cross-validation.

    python benchmarks/lungs/model.py --data ../shared/data --out runs/lungs [--recipe lung_ct] [STEP ...]

Steps: ``cases`` (see cases.py), ``cross`` (four folds of two patients with manual masks; each model is
trained on all others and scored on the original and simulated-disease scans of its two patients),
``thresholds`` (the same cases scored with ``--model threshold``), ``final`` (trained on all patients),
``ship`` (``final`` in half precision, with its licence, as a file of the package), ``table`` (prints the
scores). By default all steps run. An interrupted training is resumed when the command is run again.

No case of a patient is ever used to choose anything about the model that is scored on this patient: there
is no validation set, and the last epoch is used.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from medseg.evaluation.confidence_intervals import mean_interval
from medseg.inference.model import Model
from medseg.recipe import Recipe

HERE = Path(__file__).parent
STEPS = ["cases", "cross", "thresholds", "final", "ship", "table"]
SHIPPED = HERE.parents[1] / "medseg" / "models"
LICENCE = "Apache-2.0; trained on data under CC BY 3.0, to be cited: docs/model_cards/lung-ct.md"
DATA = (
    "LCTSC 2017 (doi:10.7937/K9/TCIA.2017.3R3FVZ08), LIDC-IDRI (doi:10.7937/K9/TCIA.2015.LO9QL9SX), "
    "4D-Lung (doi:10.7937/K9/TCIA.2016.ELN8YGLE)"
)
FOLDS = (
    ("LCTSC-000", "LCTSC-004"),
    ("LCTSC-001", "LCTSC-007"),
    ("LCTSC-002", "LCTSC-006"),
    ("LCTSC-003", "LCTSC-008"),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/lungs"))
    parser.add_argument("--recipe", default="lung_ct")
    parser.add_argument("--folds", type=int, nargs="*", default=list(range(len(FOLDS))))
    parser.add_argument(
        "steps", nargs="*", default=["cases", "cross", "thresholds", "final", "ship", "table"]
    )
    arguments = parser.parse_args()
    out: Path = arguments.out
    if "cases" in arguments.steps and not (out / "cases" / "cases.csv").is_file():
        run(HERE / "cases.py", "--data", arguments.data, "--out", out / "cases")
    if "cross" in arguments.steps:
        for fold in arguments.folds:
            folder = train(arguments.recipe, out, f"fold{fold}", held_out=FOLDS[fold])
            score(arguments.recipe, folder, out, FOLDS[fold])
    if "thresholds" in arguments.steps:
        everybody = tuple(patient for fold in FOLDS for patient in fold)
        score(arguments.recipe, out / "threshold", out, everybody, model="threshold")
    if "final" in arguments.steps:
        train(arguments.recipe, out, "final", held_out=())
    if "ship" in arguments.steps:
        ship(out / Path(arguments.recipe).stem / "final" / "run" / "model.safetensors")
    if "table" in arguments.steps:
        stem = Path(arguments.recipe).stem
        for name, folders in ((stem, sorted((out / stem).glob("fold*"))), ("threshold", [out / "threshold"])):
            table(name, folders)


def train(recipe: str, out: Path, name: str, *, held_out: tuple[str, ...]) -> Path:
    """Trains on all patients except these and returns the run folder."""
    folder = out / Path(recipe).stem / name
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "cases.csv"
    write(
        manifest, out, lambda row: row["patient"] not in held_out and row["kind"] in ("scan", "copy"), "train"
    )
    if not (folder / "run" / "model.safetensors").is_file():
        resume = ("--resume",) if (folder / "run" / "checkpoints" / "last.ckpt").is_file() else ()
        cache = out / "cache" / Path(recipe).stem
        medseg("train", recipe, manifest, "-o", folder / "run", "--cache", cache, *resume)
    return folder


def score(
    recipe: str, folder: Path, out: Path, patients: tuple[str, ...], model: str | Path | None = None
) -> None:
    """Scores each lung (``scores/``) and both together (``both/``) on original and altered scans."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "held_out.csv"
    write(manifest, out, lambda row: row["patient"] in patients and row["kind"] != "copy", "test")
    if not (folder / "scores" / "evaluation.csv").is_file():
        if model is None:
            model = folder / "model.safetensors"
            as_used(Model.load(folder / "run" / "model.safetensors"), recipe).save(model)
        medseg("evaluate", manifest, "--model", model, "-o", folder / "scores", "--split", "test")
        both = ("--masks", folder / "scores" / "masks", "--recipe", recipe)
        medseg("evaluate", manifest, *both, "-o", folder / "both", "--split", "test")


def ship(trained: Path) -> None:
    """Writes the model in half precision, which halves the file, with licence and data in its header."""
    model = Model.load(trained)
    model = as_used(model, model.recipe.name)
    half = [{name: _half(tensor) for name, tensor in fold.items()} for fold in model.folds]
    provenance = {**model.provenance, "licence": LICENCE, "trained_on": DATA}
    path = Model(model.recipe, tuple(half), provenance).save(SHIPPED / f"{model.recipe.name}.safetensors")
    print(f"{path}: {path.stat().st_size} bytes, sha256 {Model.load(path).digest}")


def as_used(model: Model, source: str) -> Model:
    """The model with the recipe's current windows and postprocessing, which do not affect training."""
    now = Recipe.read(source)
    recipe = model.recipe.model_copy(update={"predict": now.predict, "postprocess": now.postprocess})
    return Model(recipe, model.folds, model.provenance)


def _half(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.half() if tensor.dtype == torch.float32 else tensor


def table(name: str, folders: Sequence[Path]) -> None:
    """Table by kind of case: Dice of both lungs with interval and minimum, HD95, and Dice of each lung."""
    found = [
        pd.read_csv(folder / part / "evaluation.csv")
        for folder in folders
        for part in ("both", "scores")
        if (folder / part / "evaluation.csv").is_file()
    ]
    if not found:
        return
    frame = pd.concat(found)
    frame["kind"] = frame["case"].str.extract(r"disease_[^_]+_(.*)")[0].fillna("as it is")
    print(f"\n{name}\n| case | label | n | Dice | 95 % CI | worst | HD95, mm | worst |")
    print("|---|---|---:|---:|---|---:|---:|---:|")
    for (kind, label), rows in frame.groupby(["kind", "label"]):
        low, high = mean_interval(list(rows["dice"]), list(rows["patient"]))
        dice = f"{rows['dice'].mean():.3f} | {low:.3f} to {high:.3f} | {rows['dice'].min():.3f}"
        distance = f"{rows['hd95_mm'].mean():.1f} | {rows['hd95_mm'].max():.1f}"
        print(f"| {kind} | {label} | {len(rows)} | {dice} | {distance} |")
    both = frame[frame["label"] == "lungs"]
    plain = both[both["kind"] == "as it is"].set_index("patient")["dice"]
    drops = plain - both[both["kind"] != "as it is"].groupby("patient")["dice"].mean()
    low, high = mean_interval(list(drops), list(drops.index))
    print(f"drop with disease: {drops.mean():.4f}, 95 % CI {low:.4f} to {high:.4f}, worst {drops.max():.4f}")


def write(manifest: Path, out: Path, wanted: object, split: str) -> None:
    """Manifest with some rows of the table of all cases."""
    assert callable(wanted)
    cases = out / "cases"
    with (cases / "cases.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if wanted(row)]
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "patient", "image", "label", "split"])
        writer.writeheader()
        for row in rows:
            place = {key: os.path.relpath(cases / row[key], manifest.parent) for key in ("image", "label")}
            writer.writerow({"id": row["id"], "patient": row["patient"], **place, "split": split})


def medseg(*arguments: object) -> None:
    run("-m", "medseg.cli", *arguments)


def run(*arguments: object) -> None:
    words = [sys.executable, *map(str, arguments)]
    print("$", " ".join(words[1:]), flush=True)
    code = subprocess.run(words, check=False).returncode
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
