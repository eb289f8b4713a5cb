"""What a study knows about one trial, and which trials count."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from medseg.recipe import Recipe

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

NODE, START, REPEATS, RECIPE = "node", "start", "repeats", "recipe"
OUTCOME, WHY, RESTARTS, SCORES, FACTS = "outcome", "why", "restarts", "scores", "facts"
VOID = "void"
"""The outcome of a trial that does not count: it was never trained, or another one repeats it."""


@dataclass(frozen=True)
class TrialRecord:
    """One trial of a study.

    Attributes:
        number: Number in the study, from 0.
        outcome: ``finished``, ``pruned`` (stopped early), ``invalid`` (its values do not fit together),
            ``failed``, ``running``, or ``waiting``.
        values: The searched fields by dotted name.
        recipe: Its recipe; None as long as it has none, and for an invalid one.
        dice: Mean Dice over validation cases, on the grids of their scans; None if it is not finished.
        scores: Dice of each validation case, the mean over its labels.
        patients: Patient of each validation case.
        why: Why it was pruned, is invalid or failed.
        epochs: Number of trained epochs.
        seconds: Duration of the training.
        restarts: How often its worker process died.
        intermediate: Validation Dice by epoch.
        node: The output folder that it belongs to, as a random code.
        repeats: Number of the trial that it repeats, because the machine of that one has vanished.
        is_start: Whether it is the given recipe, unchanged.
    """

    number: int
    outcome: str
    values: dict[str, Any] = field(default_factory=dict)
    recipe: Recipe | None = None
    dice: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    patients: dict[str, str] = field(default_factory=dict)
    why: str = ""
    epochs: int | None = None
    seconds: float | None = None
    restarts: int = 0
    intermediate: dict[int, float] = field(default_factory=dict)
    node: str = ""
    repeats: int | None = None
    is_start: bool = False

    @property
    def folder(self) -> str:
        """Name of its training's folder."""
        return f"trial_{self.number:04d}"

    @property
    def seed(self) -> int | None:
        """The seed of its training."""
        return None if self.recipe is None else self.recipe.train.seed

    @classmethod
    def of(cls, trial: FrozenTrial) -> TrialRecord:
        """The record of a trial in the study."""
        facts = trial.user_attrs
        running = {"RUNNING": "running", "WAITING": "waiting"}.get(trial.state.name)
        recipe, told = facts.get(RECIPE), facts.get(FACTS, {})
        scores = facts.get(SCORES, {})
        finished = trial.state.name == "COMPLETE"
        return cls(
            number=trial.number,
            outcome=running or str(facts.get(OUTCOME, "failed")),
            values=dict(trial.params),
            recipe=Recipe.checked(recipe) if recipe else None,
            dice=float(trial.value) if finished and trial.value is not None else None,
            scores={case: float(dice) for case, dice, _ in scores} if scores else {},
            patients={case: patient for case, _, patient in scores} if scores else {},
            why=str(facts.get(WHY, "")),
            epochs=told.get("epochs"),
            seconds=told.get("seconds"),
            restarts=int(facts.get(RESTARTS, 0)),
            intermediate=dict(sorted(trial.intermediate_values.items())),
            node=str(facts.get(NODE, "")),
            repeats=facts.get(REPEATS),
            is_start=bool(facts.get(START)),
        )


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial is one of the study's N."""
    return trial.user_attrs.get(OUTCOME) != VOID


def records(trials: Sequence[FrozenTrial]) -> list[TrialRecord]:
    """The trials that count, by number."""
    return [TrialRecord.of(trial) for trial in trials if counts(trial)]


def same_recipe(trials: Sequence[FrozenTrial], recipe: Mapping[str, Any], number: int) -> int | None:
    """The number of an earlier trial with the same recipe; None if there is none."""
    text = json.dumps(recipe, sort_keys=True)
    for trial in trials:
        other = trial.user_attrs.get(RECIPE)
        if trial.number < number and counts(trial) and other and json.dumps(other, sort_keys=True) == text:
            return trial.number
    return None
