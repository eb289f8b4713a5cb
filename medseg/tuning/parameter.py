"""A varied field of a recipe: a range of numbers, or a choice."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``.

    Attributes:
        low: Smallest value.
        high: Largest value.
        log: Whether equal ratios are equally likely, instead of equal differences.
        step: Distance between neighbouring values, from ``low``; None for 1 (whole numbers) or any value.
        whole: Whether the values are whole numbers.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False

    def suggest(self, trial: BaseTrial, name: str) -> float:
        """A value of the trial."""
        if self.whole:
            step = int(self.step or 1)
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log, step=step)
        return trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step)

    def encoded(self, value: object) -> object | None:
        """The value as the study keeps it; None if it lies outside."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if not self.low <= value <= self.high:
            return None
        steps = (value - self.low) / (self.step or 1)
        if self.step and not math.isclose(steps, round(steps), abs_tol=1e-9):
            return None
        return value

    def distribution(self) -> BaseDistribution:
        """The same for Optuna."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def examples(self) -> tuple[object, ...]:
        """The ends."""
        return self.low, self.high


@dataclass(frozen=True)
class Choice:
    """Some values, each a number, text, true or false, or a list."""

    values: tuple[Any, ...]

    def suggest(self, trial: BaseTrial, name: str) -> Any:
        """A value of the trial."""
        stored = [as_stored(value) for value in self.values]
        return copy.deepcopy(self.values[stored.index(trial.suggest_categorical(name, stored))])

    def encoded(self, value: object) -> object | None:
        """The value as the study keeps it; None if it is none of them."""
        stored = as_stored(value)
        return stored if any(stored == as_stored(each) for each in self.values) else None

    def distribution(self) -> BaseDistribution:
        """The same for Optuna."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution([as_stored(value) for value in self.values])

    def examples(self) -> tuple[object, ...]:
        """All values."""
        return self.values


Parameter: TypeAlias = Range | Choice


def as_stored(value: Any) -> Any:
    """A choice as Optuna keeps it: lists and sections as JSON text."""
    return json.dumps(value) if isinstance(value, list | tuple | dict) else value
