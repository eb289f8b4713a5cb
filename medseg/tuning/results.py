"""The results of a study: the table of trials, the best recipe, and whether it beats the given one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medseg.evaluation import tables
from medseg.evaluation.confidence_intervals import mean_interval
from medseg.recipe import Recipe
from medseg.system.atomic_write import replacing
from medseg.tuning.search_space import SearchSpace, own_value
from medseg.tuning.summary_page import write_page
from medseg.tuning.trial_record import TrialRecord

TRIALS, BEST = "trials.csv", "best.yaml"


@dataclass(frozen=True)
class Difference:
    """How much better one trial is than another, on the validation cases of both.

    Attributes:
        mean: Mean difference of Dice.
        low: Lower end of its 95 % confidence interval, a studentised bootstrap over patients; nan with fewer
            than two patients.
        high: Upper end.
        cases: Number of cases.
        patients: Number of patients.
    """

    mean: float
    low: float
    high: float
    cases: int
    patients: int


@dataclass(frozen=True)
class TuningResult:
    """The result of :func:`medseg.tune`.

    Attributes:
        table: One row per trial: its outcome, Dice with 95 % confidence interval over validation cases,
            paired difference to the given recipe with interval, values of the searched fields, epochs,
            seconds, seed, restarts of its worker, and why it ended early.
        best: The finished trial with the highest mean Dice; None if none is finished.
        recipe: Recipe of the best trial; with ``quick``, the given schedule with the values of that trial.
        verdict: Whether the best trial beats the given recipe, in a sentence.

    Example:
        >>> import pandas
        >>> medseg.TuningResult(pandas.DataFrame(), None, None, "no trial is finished").best is None
        True
    """

    table: pd.DataFrame
    best: TrialRecord | None
    recipe: Recipe | None
    verdict: str


def interval(trial: TrialRecord) -> tuple[float, float]:
    """The 95 % confidence interval of a trial's mean Dice, over patients."""
    return mean_interval(list(trial.scores.values()), _patients(trial, trial.scores), bounds=(0, 1))


def difference(trial: TrialRecord, start: TrialRecord) -> Difference:
    """The paired difference of two finished trials."""
    both = [case for case in trial.scores if case in start.scores]
    values = [trial.scores[case] - start.scores[case] for case in both]
    patients = _patients(trial, both)
    low, high = mean_interval(values, patients, bounds=(-1, 1))
    mean = float(np.mean(values)) if values else math.nan
    return Difference(mean, low, high, len(values), len(set(patients)))


def best_of(trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """The finished trial with the highest mean Dice, the first among equals."""
    finished = [trial for trial in trials if trial.dice is not None]
    return max(finished, key=lambda trial: (trial.dice or 0.0, -trial.number)) if finished else None


def verdict(trials: Sequence[TrialRecord]) -> str:
    """Whether the best trial beats the given recipe, in a sentence or two."""
    best, start = best_of(trials), next((trial for trial in trials if trial.is_start), None)
    if best is None or start is None or start.dice is None:
        return "The given recipe (trial 0) is not finished, so there is nothing to compare with yet."
    finished = sum(trial.dice is not None for trial in trials)
    if best.number == start.number:
        return (
            f"No trial is better than the given recipe: its mean validation Dice is {best.dice:.4f} "
            f"({finished} trials finished)."
        )
    found = difference(best, start)
    over = f"over {found.cases} cases of {found.patients} patients"
    text = f"Trial {best.number} has a mean Dice of {best.dice:.4f}, the given recipe {start.dice:.4f}: "
    if math.isnan(found.low):
        return f"{text}{found.mean:+.4f}. With fewer than two patients there is no interval."
    change = f"{found.mean:+.4f} (95 % CI {found.low:+.4f} to {found.high:+.4f} {over})"
    if found.low <= 0:
        return f"{text}{change}. The interval includes 0: trial {best.number} is not shown to be better."
    return (
        f"{text}{change}. It beats the given recipe on these cases. It is the best of {finished} on the same "
        "cases, so this is slightly too good: confirm it on cases of split test."
    )


def table_of(trials: Sequence[TrialRecord], space: SearchSpace) -> pd.DataFrame:
    """One row per trial; see :class:`TuningResult`."""
    start = next((trial for trial in trials if trial.is_start and trial.dice is not None), None)
    rows: list[dict[str, Any]] = []
    for trial in trials:
        row: dict[str, Any] = {"trial": trial.number, "outcome": trial.outcome, "dice": trial.dice}
        low = high = math.nan
        change = Difference(math.nan, math.nan, math.nan, 0, 0)
        if trial.dice is not None:
            low, high = interval(trial)
            if start is not None and trial.number != start.number:
                change = difference(trial, start)
        row |= {"dice_ci_low": low, "dice_ci_high": high}
        row |= {"difference": change.mean, "difference_ci_low": change.low, "difference_ci_high": change.high}
        row |= {name: _value(trial, name) for name in space.parameters}
        row |= {"epochs": trial.epochs, "seconds": trial.seconds, "seed": trial.seed}
        row |= {"restarts": trial.restarts, "repeats": trial.repeats, "why": trial.why}
        rows.append(row)
    return pd.DataFrame(rows)


def write_results(
    folder: Path, trials: Sequence[TrialRecord], *, given: Recipe, space: SearchSpace, wanted: int
) -> TuningResult:
    """The result, also written as ``trials.csv``, ``best.yaml`` and ``summary.html``.

    Args:
        folder: Folder of the study.
        trials: Its trials.
        given: The recipe with its full schedule.
        space: What was varied.
        wanted: Number of trials in total.
    """
    best, sentence = best_of(trials), verdict(trials)
    table = table_of(trials, space)
    with replacing(folder / TRIALS) as fresh:
        fresh.write_text(tables.as_csv(table), encoding="utf-8", newline="\n")
    recipe = None
    if best is not None and best.recipe is not None:
        recipe = given if best.is_start else _with_schedule(best.recipe, given, space)
        with replacing(folder / BEST) as fresh:
            fresh.write_text(_commented(recipe, best, sentence), encoding="utf-8")
    write_page(folder, trials, space=space, sentence=sentence, table=table, wanted=wanted)
    return TuningResult(table, best, recipe, sentence)


def _with_schedule(recipe: Recipe, given: Recipe, space: SearchSpace) -> Recipe:
    """The trial's recipe with the given schedule, which a quick search shortens."""
    schedule = {
        name: getattr(given.train, name)
        for name in ("epochs", "steps_per_epoch", "validate_every")
        if f"train.{name}" not in space.parameters
    }
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=schedule)})


def _commented(recipe: Recipe, best: TrialRecord, sentence: str) -> str:
    low, high = interval(best)
    span = "" if math.isnan(low) else f" (95 % CI {low:.4f} to {high:.4f} over {len(best.scores)} cases)"
    head = f"# Trial {best.number}: mean validation Dice {best.dice:.4f}{span}, seed {best.seed}.\n"
    return f"{head}# {sentence}\n{recipe.yaml()}"


def _patients(trial: TrialRecord, cases: Sequence[str] | dict[str, float]) -> list[str]:
    return [trial.patients[case] for case in cases]


def _value(trial: TrialRecord, name: str) -> object:
    value = trial.values.get(name)
    if (
        value is None and trial.is_start and trial.recipe is not None
    ):  # the recipe's own, outside of the space
        own = own_value(trial.recipe, name)
        return "" if own is None or isinstance(own, dict) else str(own)
    return value
