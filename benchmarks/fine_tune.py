"""Fine-tuning against training from scratch with few cases, at equal time, over several seeds.

    python benchmarks/fine_tune.py MANIFEST --recipe hippocampus_mr_3d --minutes 3 -o OUTPUT

The patients of the manifest are divided once: 40 for the base model, which learns all labels merged into one;
8 to fine-tune or train from scratch on the labels themselves, in other draws for each seed; the rest is the
test. The base model's time does not count: it is what a lab has already. A line of JSON for each seed, and at
the end the mean difference of the Dice over seeds with its 95 % interval (Student's t). An interrupted run
goes on with the same command.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import stats

import medseg
from medseg.datasets.manifest import Case, Manifest
from medseg.recipe import Recipe

CPU = medseg.Hardware("cpu", workers=0)


def changed(recipe: Recipe, **parts: object) -> Recipe:
    """The recipe with other sections."""
    return Recipe.checked({**recipe.model_dump(mode="json"), **parts})


def of(cases: list[Case], patients: list[str], split: str) -> list[Case]:
    """The cases of patients, in one split."""
    return [case.model_copy(update={"split": split}) for case in cases if case.patient in patients]


def trained(folder: Path, recipe: Recipe, cases: list[Case], options: medseg.TrainingOptions) -> Path:
    """The model of a training, made now, continued or found."""
    path = folder / "model.safetensors"
    if not path.is_file():
        resume = (folder / "checkpoints").exists()
        medseg.train(recipe, cases, folder, resume=resume, hardware=CPU, options=options, progress=False)
    return path


def main() -> None:
    """Prints a line for each seed, and the difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--recipe", default="hippocampus_mr_3d")
    parser.add_argument("--minutes", type=float, default=3, help="time of each training with few cases")
    parser.add_argument("--base-minutes", type=float, default=15)
    parser.add_argument("--base-cases", type=int, default=40)
    parser.add_argument("--few", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, required=True)
    chosen = parser.parse_args()
    recipe = Recipe.read(chosen.recipe)
    cases = [case for case in Manifest.read(chosen.manifest).cases if case.label is not None]
    patients = sorted({case.patient for case in cases})
    order = [patients[at] for at in np.random.default_rng(0).permutation(len(patients))]
    base, pool = order[: chosen.base_cases], order[chosen.base_cases :]
    half = len(pool) // 2
    few, test = pool[:half], pool[half:]
    if len(few) < chosen.few or len(test) < 5:
        parser.error(f"{len(patients)} patients are too few")
    values = sorted({value for label in recipe.labels for value in label.values})
    merged = changed(recipe, labels=[{"name": "structure", "values": values}], loss={"kind": "dice_bce"})
    options = medseg.TrainingOptions(cache=chosen.output / "cache", max_seconds=60 * chosen.base_minutes)
    source = trained(chosen.output / "base", merged, of(cases, base, "train"), options)
    differences = []
    for seed in range(chosen.seeds):
        drawn = list(np.random.default_rng([1, seed]).choice(few, chosen.few, replace=False))
        own = changed(recipe, train={**recipe.train.model_dump(mode="json"), "seed": seed})
        dice = {}
        for name, start in (("scratch", None), ("fine_tuned", source)):
            folder = chosen.output / f"{name}_{seed}"
            limited = replace(options, max_seconds=60 * chosen.minutes, source=start)
            model = trained(folder, own, of(cases, drawn, "train"), limited)
            found = medseg.evaluate(of(cases, test, "test"), None, model=model, progress=False)
            dice[name] = float(found.summary.loc["all labels", "dice_mean"])
        differences.append(dice["fine_tuned"] - dice["scratch"])
        print(json.dumps({"seed": seed, "test": len(test), **dice}), flush=True)
    mean, error = float(np.mean(differences)), float(stats.sem(differences))
    low, high = stats.t.interval(0.95, len(differences) - 1, mean, error)
    print(
        f"fine-tuned minus scratch: {mean:+.4f} (95 % CI {low:+.4f} to {high:+.4f}, {len(differences)} seeds)"
    )


if __name__ == "__main__":
    main()
