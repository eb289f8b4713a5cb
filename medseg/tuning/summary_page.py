"""``summary.html`` of a study: verdict, history, importance, parallel coordinates and all trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from medseg.reporting.page import render_page, save
from medseg.tuning import charts
from medseg.tuning.search_space import SearchSpace
from medseg.tuning.trial_record import TrialRecord

NAME = "summary.html"


def write_page(
    folder: Path,
    trials: Sequence[TrialRecord],
    *,
    space: SearchSpace,
    sentence: str,
    table: pd.DataFrame,
    wanted: int,
) -> Path:
    """Writes the page, which loads nothing from elsewhere, and returns its path.

    Args:
        folder: Folder of the study.
        trials: Its trials.
        space: What was varied.
        sentence: Whether the best trial beats the given recipe.
        table: One row per trial.
        wanted: Number of trials in total.

    Raises:
        UsageError: there is a page that medseg did not write (``foreign-file``).
    """
    shares = importances(trials, space)
    text = render_page(
        "study.html",
        f"search in {folder.resolve().name}",
        sentence=sentence,
        counts=sorted(Counter(trial.outcome for trial in trials).items()),
        wanted=wanted,
        history=charts.history(trials),
        importance=charts.importance(shares),
        parallel=charts.parallel_coordinates(trials, space.parameters),
        columns=list(table.columns),
        rows=[[_text(value) for value in row] for row in table.itertuples(index=False)],
    )
    return save(folder / NAME, text)


def importances(trials: Sequence[TrialRecord], space: SearchSpace) -> dict[str, float]:
    """How much each field decides whether a trial is among the best tenth, as shares of 1.

    PED-ANOVA (Watanabe et al. 2023, doi:10.24963/ijcai.2023/488) over the finished trials that have all of
    the fields; empty with fewer than four of them, or if they are all equally good.
    """
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    from medseg.system.quiet_libraries import quiet
    from medseg.tuning.storage import LOGGERS

    fields: dict[str, BaseDistribution] = space.distributions()
    done = [trial for trial in trials if trial.dice is not None and fields.keys() <= trial.values.keys()]
    if len(done) < 4 or len({trial.dice for trial in done}) < 2:
        return {}
    with quiet(*LOGGERS):
        study = optuna.create_study(direction="maximize")
        for trial in done:
            values = {name: trial.values[name] for name in fields}
            study.add_trial(optuna.trial.create_trial(params=values, distributions=fields, value=trial.dice))
        try:
            found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
        except (RuntimeError, ValueError):  # too few or too equal trials for it
            return {}
    return {name: float(share) for name, share in found.items()}


def _text(value: object) -> str:
    if value is None or value != value or value is pd.NA:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
