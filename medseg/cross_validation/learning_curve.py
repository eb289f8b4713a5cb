"""Dice against the number of training cases: whether annotating more of them would pay."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from medseg.datasets.manifest import Case, Manifest
from medseg.errors import UsageError
from medseg.evaluation import summary_table, tables
from medseg.evaluation.evaluation_files import read_evaluation
from medseg.evaluation.model_evaluation import evaluate
from medseg.recipe import Recipe
from medseg.system.atomic_write import replacing
from medseg.system.output_folder import make_output_folder
from medseg.training import checkpointing, trainer
from medseg.training.hardware import Hardware
from medseg.training.history import EpochEnd
from medseg.training.options import TrainingOptions

FILE = "subsets.json"
TABLE = "learning_curve.csv"


def learning_curve(
    recipe: Recipe | str | Path,
    cases: str | Path | Manifest | Sequence[Case],
    folder: str | Path,
    *,
    sizes: Sequence[int],
    hardware: Hardware | None = None,
    options: TrainingOptions | None = None,
    on_epoch: Callable[[int, EpochEnd], None] = lambda size, end: None,
) -> pd.DataFrame:
    """The Dice of models of more and more training cases on the same validation cases.

    The subsets are nested, and drawn by patient with the recipe's seed: each holds the cases of the smaller
    ones, so that steps of the curve come from the additional cases. Every size is a training of its own in
    ``cases_0008`` and so on; ``learning_curve.csv`` in ``folder`` has the table. The same call continues
    after an interruption, and adds further sizes.

    Args:
        recipe: A recipe, the path of its file, or the name of a shipped one.
        cases: A manifest, its path, or a sequence of cases, of which those in splits ``train`` and ``val``
            take part.
        folder: A new folder, or that of a learning curve to continue.
        sizes: Numbers of training cases.
        hardware: Device and number of processes.
        options: As for :func:`medseg.train`; a time limit holds for each training.
        on_epoch: Called after every epoch with the number of training cases, and the epoch's result.

    Returns:
        A row for each size and label: ``cases``, ``label``, ``n`` validation cases, ``dice_mean`` with its
        95 % interval ``dice_ci_low`` and ``dice_ci_high`` over patients, and ``gain``, the mean difference to
        the next smaller size.

    Raises:
        UsageError: there are no validation cases, or fewer training cases than the largest size
            (``curve-cases``); recipe or cases have changed since the curve was begun (``curve-changed``).
        InputRefused, ModelRefused, ResourceError: as :func:`medseg.train`.
    """
    chosen = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
    if isinstance(cases, str | Path):
        cases = Manifest.read(cases)
    listed = cases.cases if isinstance(cases, Manifest) else tuple(cases)
    folder, hardware, options = Path(folder), hardware or Hardware(), options or TrainingOptions()
    order, val = _order(listed, chosen, sizes)
    make_output_folder(folder)
    _check_unchanged(folder, chosen, order, val)
    options = replace(options, cache=options.cache or folder / "cache")
    found = {}
    for size in sorted(set(sizes)):
        run = folder / f"cases_{size:04d}"

        def ended(end: EpochEnd, size: int = size) -> None:
            on_epoch(size, end)

        if not (run / "model.safetensors").is_file():
            trainer.train(
                chosen,
                (*order[:size], *val),
                run,
                resume=checkpointing.is_used(run),
                hardware=hardware,
                options=options,
                on_epoch=ended,
            )
        scores = run / "val" / "evaluation.csv"
        if not scores.is_file():
            evaluate(val, run / "val", model=run / "model.safetensors", progress=False)
        found[size] = read_evaluation(scores)
    table = _table(found)
    with replacing(folder / TABLE) as fresh:
        fresh.write_text(tables.as_csv(table), encoding="utf-8", newline="\n")
    return table


def _order(
    cases: Sequence[Case], recipe: Recipe, sizes: Sequence[int]
) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """The training cases in the order in which they are added, patient by patient; and those to validate."""
    train = [case for case in cases if case.split == "train" and case.label is not None]
    val = tuple(case for case in cases if case.split == "val" and case.label is not None)
    if not val or not sizes or not 1 <= min(sizes) <= max(sizes) <= len(train):
        raise UsageError(
            f"{len(train)} training and {len(val)} validation cases do not allow the sizes {list(sizes)}",
            where="--sizes",
            remedy="give sizes up to the number of cases in split train, and some cases in split val",
            reason="curve-cases",
        )
    patients = sorted({case.patient for case in train})
    turns = np.random.default_rng(recipe.train.seed).permutation(len(patients))
    place = {patients[at]: turn for turn, at in enumerate(turns)}
    return tuple(sorted(train, key=lambda case: (place[case.patient], case.id))), val


def _check_unchanged(folder: Path, recipe: Recipe, order: Sequence[Case], val: Sequence[Case]) -> None:
    """Writes what the curve follows from, or compares it with that of a curve that was begun."""
    facts = {
        "recipe_digest": recipe.digest,
        "train_cases": [case.id for case in order],
        "val_cases": [case.id for case in val],
    }
    path = folder / FILE
    if not path.exists():
        with replacing(path) as fresh:
            fresh.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        return
    held = json.loads(path.read_text(encoding="utf-8"))
    changed = [name for name, value in facts.items() if held.get(name) != value]
    if changed:
        raise UsageError(
            f"{', '.join(changed)} changed since this learning curve was begun",
            where=path,
            remedy="restore them, or choose a new folder",
            reason="curve-changed",
        )


def _table(found: dict[int, pd.DataFrame]) -> pd.DataFrame:
    rows = []
    before: dict[str, float] = {}
    for size, frame in found.items():
        summary = summary_table.summary(frame)
        for label, row in summary[summary["group"] == "all"].iterrows():
            mean = float(row["dice_mean"])
            rows.append(
                {
                    "cases": size,
                    "label": label,
                    "n": int(row["n"]),
                    "dice_mean": mean,
                    "dice_ci_low": float(row["dice_ci_low"]),
                    "dice_ci_high": float(row["dice_ci_high"]),
                    "gain": mean - before.get(str(label), float("nan")),
                }
            )
            before[str(label)] = mean
    return pd.DataFrame(rows)
