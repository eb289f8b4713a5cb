"""Fine-tuning against training from scratch with few cases, at equal time, over several seeds.

    python benchmarks/fine_tune.py MANIFEST --recipe hippocampus_mr_3d --minutes 3 -o OUTPUT
    python benchmarks/fine_tune.py MANIFEST --epochs 10 --base-epochs 50 --widths 8 16 32 64 -o OUTPUT

The patients of the manifest are divided once: 40 for the base model, which learns all labels merged into one;
8 to fine-tune or train from scratch on the labels themselves, in other draws for each seed; the rest is the
test. The base model's time does not count: it is what a lab has already. A line of JSON for each seed, and at
the end the mean difference of the Dice over seeds with its 95 % interval (Student's t). An interrupted run
goes on with the same command.

With ``--epochs`` both have the same number of steps of the same network instead of a time limit: the same
time without what other programs take, for a machine that is shared. The processor's seconds are printed, too.
"""

from __future__ import annotations

import argparse
import json
import time
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


def measured(
    folder: Path, recipe: Recipe, cases: list[Case], test: list[Case], options: medseg.TrainingOptions
) -> dict[str, float]:
    """Dice on the test cases of a model, and the processor's seconds of its training (of this process)."""
    path = folder / "fine_tune.json"
    if not path.is_file():
        started = time.process_time()
        model = trained(folder, recipe, cases, options)
        seconds = time.process_time() - started
        found = medseg.evaluate(test, None, model=model, progress=False)
        values = {"dice": float(found.summary.loc["all labels", "dice_mean"]), "cpu_s": round(seconds, 1)}
        path.write_text(json.dumps(values))
    held: dict[str, float] = json.loads(path.read_text())
    return held


def scheduled(recipe: Recipe, epochs: int | None) -> Recipe:
    """The recipe with another number of epochs, if one is given."""
    given = {} if epochs is None else {"epochs": epochs}
    return changed(recipe, train={**recipe.train.model_dump(mode="json"), **given})


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--recipe", default="hippocampus_mr_3d")
    parser.add_argument("--minutes", type=float, default=3, help="time of each training with few cases")
    parser.add_argument("--base-minutes", type=float, default=15)
    parser.add_argument("--base-cases", type=int, default=40)
    parser.add_argument("--few", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="length of each training instead of --minutes")
    parser.add_argument("--base-epochs", type=int, help="instead of --base-minutes")
    parser.add_argument("--steps", type=int, help="steps of an epoch instead of the recipe's")
    parser.add_argument("--widths", type=int, nargs="+", help="feature maps instead of the recipe's")
    parser.add_argument("-o", "--output", type=Path, required=True)
    return parser


def main() -> None:
    """Prints a line for each seed, and the difference."""
    parser = arguments()
    chosen = parser.parse_args()
    recipe = Recipe.read(chosen.recipe)
    if chosen.steps:
        steps = {"steps_per_epoch": chosen.steps}
        recipe = changed(recipe, train={**recipe.train.model_dump(mode="json"), **steps})
    if chosen.widths:
        recipe = changed(recipe, network={**recipe.network.model_dump(mode="json"), "widths": chosen.widths})
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
    limit = None if chosen.base_epochs else 60 * chosen.base_minutes
    options = medseg.TrainingOptions(cache=chosen.output / "cache", max_seconds=limit)
    learnt = scheduled(merged, chosen.base_epochs)
    source = trained(chosen.output / "base", learnt, of(cases, base, "train"), options)
    differences = []
    for seed in range(chosen.seeds):
        drawn = list(np.random.default_rng([1, seed]).choice(few, chosen.few, replace=False))
        own = scheduled(recipe, chosen.epochs)
        own = changed(own, train={**own.train.model_dump(mode="json"), "seed": seed})
        found = {}
        for name, start in (("scratch", None), ("fine_tuned", source)):
            folder = chosen.output / f"{name}_{seed}"
            limited = replace(
                options, max_seconds=None if chosen.epochs else 60 * chosen.minutes, source=start
            )
            drawn_cases, test_cases = of(cases, drawn, "train"), of(cases, test, "test")
            found[name] = measured(folder, own, drawn_cases, test_cases, limited)
        differences.append(found["fine_tuned"]["dice"] - found["scratch"]["dice"])
        print(json.dumps({"seed": seed, "test": len(test), **found}), flush=True)
    mean, error = float(np.mean(differences)), float(stats.sem(differences))
    low, high = stats.t.interval(0.95, len(differences) - 1, mean, error)
    print(
        f"fine-tuned minus scratch: {mean:+.4f} (95 % CI {low:+.4f} to {high:+.4f}, {len(differences)} seeds)"
    )


if __name__ == "__main__":
    main()
