"""The study: it hands out trials, each exactly once, and takes in their results.

Every trial belongs to the folder (``node``) whose command asked for it. If that command is killed, its next
run continues the same trials in the same folders. A folder of another machine that has given no sign of life
for ten minutes is taken for dead: its trials become void, and others with the same values repeat them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medseg.errors import UsageError
from medseg.recipe import Recipe, digest
from medseg.system.quiet_libraries import quiet
from medseg.tuning import trial_record as record
from medseg.tuning.search_space import SearchSpace
from medseg.tuning.storage import LOGGERS

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial, TrialState

STALE_SECONDS = 600.0
"""A machine without a sign of life for this time is dead; its clock may be wrong by less than this."""
BEAT_SECONDS = 30.0
_BEAT, _BOUND = "beat:", "bound"
_DUPLICATES = 20


@dataclass(frozen=True)
class Job:
    """A trial to train.

    Attributes:
        number: Number of the trial.
        recipe: Its recipe.
        is_start: Whether it is the given recipe, unchanged.
    """

    number: int
    recipe: Recipe
    is_start: bool

    @property
    def folder(self) -> str:
        """Name of its training's folder."""
        return f"trial_{self.number:04d}"


class TrialBook:
    """The trials of a study, as one output folder sees them.

    Args:
        study: The study.
        space: What varies.
        recipe: The recipe that is varied, and trained unchanged as trial 0.
        node: Random code of the output folder.
        shared: Whether other folders may work on the study.
    """

    def __init__(self, study: Study, space: SearchSpace, recipe: Recipe, *, node: str, shared: bool) -> None:
        self.study, self.space, self.recipe = study, space, recipe
        self.node, self.shared = node, shared
        self._beaten = -BEAT_SECONDS
        self._resumable: list[int] = []
        self._live: dict[int, Trial] = {}

    def check(self, facts: Mapping[str, str]) -> None:
        """Refuses to continue a study with something else.

        Args:
            facts: Digests by name, all or some of those of :meth:`bind`.

        Raises:
            UsageError: something has changed since the study began (``study-changed``).
        """
        with quiet(*LOGGERS):
            held = self.study.user_attrs.get(_BOUND, facts)
        changed = [name for name in facts if held.get(name) != facts[name]]
        if changed:
            raise UsageError(
                f"{' and '.join(changed)} {'has' if len(changed) == 1 else 'have'} changed since the study "
                f"{self.study.study_name!r} began",
                where="medseg tune",
                remedy="restore what has changed, or begin another study: a new folder, and with a shared "
                "storage another --study",
                reason="study-changed",
            )

    def bind(self, facts: Mapping[str, str]) -> None:
        """Records what the study depends on, or refuses to continue with something else.

        Args:
            facts: Digests by name: recipe, search space, cases and so on.

        Raises:
            UsageError: something has changed since the study began (``study-changed``).
        """
        with quiet(*LOGGERS):
            if _BOUND not in self.study.user_attrs:
                self.study.set_user_attr(_BOUND, dict(facts))
        self.check(facts)

    def begin(self) -> None:
        """Finds the trials of this folder that a killed command has left, and enqueues trial 0."""
        with quiet(*LOGGERS):
            trials = self._trials()
            if not trials:
                start = self.space.start(self.recipe)
                self.study.enqueue_trial(start, user_attrs={record.START: True})
            for trial in trials:
                if trial.state.name != "RUNNING":
                    continue
                owner = trial.user_attrs.get(record.NODE)
                if owner == self.node or (owner is None and not self.shared):
                    if record.RECIPE in trial.user_attrs:
                        self._resumable.append(trial.number)
                    else:
                        self._abandon(trial, "its command was killed before it had a recipe")

    def beat(self) -> None:
        """Gives a sign of life now and then, and takes over from machines that give none."""
        if not self.shared or time.monotonic() - self._beaten < BEAT_SECONDS:
            return
        self._beaten = time.monotonic()
        with quiet(*LOGGERS):
            self.study.set_user_attr(f"{_BEAT}{self.node}", time.time())
            beats = self.study.user_attrs
            for trial in self._trials():
                owner = trial.user_attrs.get(record.NODE)
                if trial.state.name != "RUNNING" or owner == self.node:
                    continue
                began = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
                seen = max(float(beats.get(f"{_BEAT}{owner}", 0.0)), began)
                if time.time() - seen > STALE_SECONDS:
                    self._abandon(trial, "its machine gave no sign of life")

    def claim(self, total: int) -> Job | None:
        """The next trial to train; None if there are ``total`` already.

        Combinations that are invalid are recorded on the way, and count.
        """
        with quiet(*LOGGERS):
            if self._resumable:
                number = self._resumable.pop(0)
                trial = self._frozen(number)
                return Job(number, Recipe.checked(trial.user_attrs[record.RECIPE]), _is_start(trial))
            duplicates = 0
            while duplicates < _DUPLICATES:
                trials = self._trials()
                waiting = any(trial.state.name == "WAITING" for trial in trials)
                if not waiting and sum(map(record.counts, trials)) >= total:
                    return None
                job = self._ask(len(trials), total)
                if job is not None:
                    return job
                duplicates += any(
                    trial.user_attrs.get(record.OUTCOME) == record.VOID for trial in self._trials()[-1:]
                )
            return None

    def report(self, number: int, epoch: int, dice: float) -> bool:
        """Records a validation; returns whether the trial is to be stopped."""
        with quiet(*LOGGERS):
            trial = self._trial(number)
            if _is_finished(self._frozen(number).state):  # taken over, while this machine was thought dead
                return True
            trial.report(dice, epoch)
            return bool(trial.should_prune()) and not _is_start(self._frozen(number))  # may be numpy's

    def finish(
        self, number: int, scores: list[tuple[str, float, str]], facts: Mapping[str, Any], dice: float
    ) -> None:
        """Takes in a finished trial: Dice and patient of each validation case, and their mean."""
        self._tell(
            number,
            "finished",
            {record.SCORES: scores, record.FACTS: dict(facts)},
            value=dice,
            state="COMPLETE",
        )

    def stop(self, number: int, why: str, facts: Mapping[str, Any]) -> None:
        """Takes in a trial that was pruned."""
        self._tell(number, "pruned", {record.WHY: why, record.FACTS: dict(facts)}, state="PRUNED")

    def fail(self, number: int, why: str) -> None:
        """Takes in a trial whose training failed."""
        self._tell(number, "failed", {record.WHY: why}, state="FAIL")

    def count_restart(self, number: int) -> int:
        """How often the worker of a trial has died, this time included."""
        with quiet(*LOGGERS):
            count = int(self._frozen(number).user_attrs.get(record.RESTARTS, 0)) + 1
            self._trial(number).set_user_attr(record.RESTARTS, count)
            return count

    def records(self) -> list[record.TrialRecord]:
        """All trials that count."""
        with quiet(*LOGGERS):
            return record.records(self._trials())

    def _ask(self, trials: int, total: int) -> Job | None:
        """A new trial, or None if it does not count or is invalid."""
        self.study.sampler = _sampler(self._seed(trials), total)
        trial = self.study.ask()
        trial.set_user_attr(record.NODE, self.node)
        frozen = self._frozen(trial.number)
        is_start = _is_start(frozen)
        before = [each for each in self._trials() if each.number < trial.number]
        second = is_start and trial.number > 0 and record.REPEATS not in frozen.user_attrs
        if second or sum(map(record.counts, before)) >= total:
            self._void(trial.number, "another machine was faster")
            return None
        if is_start:
            for name in self.space.start(self.recipe):
                self.space.parameters[name].suggest(trial, name)
            recipe = self.recipe
        else:
            values = self.space.suggest(trial, self.recipe)
            try:
                recipe = self.space.applied(self.recipe, values)
            except UsageError as error:
                self._tell(trial.number, "invalid", {record.WHY: error.problem}, state="PRUNED")
                return None
        data = recipe.model_dump(mode="json")
        twin = record.same_recipe(before, data, trial.number)
        if twin is not None:
            self._void(trial.number, f"the same as trial {twin}")
            return None
        trial.set_user_attr(record.RECIPE, data)
        self._live[trial.number] = trial
        return Job(trial.number, recipe, is_start)

    def _abandon(self, trial: FrozenTrial, why: str) -> None:
        """Makes a trial void, and enqueues its values again; only one machine can."""
        if not self._void(trial.number, why):
            return
        attributes = {record.REPEATS: trial.number}
        if _is_start(trial):
            attributes[record.START] = True
        self.study.enqueue_trial(dict(trial.params), user_attrs=attributes)

    def _void(self, number: int, why: str) -> bool:
        return self._tell(number, record.VOID, {record.WHY: why}, state="FAIL")

    def _tell(
        self,
        number: int,
        outcome: str,
        facts: Mapping[str, Any],
        *,
        state: str,
        value: float | None = None,
    ) -> bool:
        """Ends a trial; False if it has ended already, because another machine repeats it."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        with quiet(*LOGGERS), contextlib.suppress(UpdateFinishedTrialError, ValueError):
            trial = self._trial(number)
            for name, fact in {record.OUTCOME: outcome, **facts}.items():
                trial.set_user_attr(name, fact)
            self.study.tell(number, value, state=TrialState[state])
            return True
        return False

    def _seed(self, trials: int) -> int:
        """The sampler's seed: each trial has its own, also after a restart and on each machine."""
        parts = [self.recipe.train.seed, trials, self.node if self.shared else ""]
        return int(digest(parts)[:8], 16) % 2**31

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _frozen(self, number: int) -> FrozenTrial:
        return next(trial for trial in self._trials() if trial.number == number)

    def _trial(self, number: int) -> Trial:
        from optuna.trial import Trial

        if number not in self._live:
            self._live[number] = Trial(self.study, self._frozen(number)._trial_id)
        return self._live[number]


def _is_start(trial: FrozenTrial) -> bool:
    return bool(trial.user_attrs.get(record.START))


def _is_finished(state: TrialState) -> bool:
    return bool(state.is_finished())


def _sampler(seed: int, total: int) -> Any:
    """Tree-structured Parzen estimators (Bergstra et al. 2011), one per field, after some random trials."""
    from optuna.samplers import TPESampler

    return TPESampler(
        seed=seed, n_startup_trials=min(10, max(4, total // 4)), multivariate=False, constant_liar=True
    )
