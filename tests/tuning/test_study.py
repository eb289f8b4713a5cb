"""The study: each trial is handed out once, also after a kill, and on machines that share it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from support.worlds import tiny

from medseg.errors import UsageError
from medseg.tuning.search_space import SearchSpace
from medseg.tuning.storage import open_study
from medseg.tuning.study import STALE_SECONDS, TrialBook

RECIPE = tiny()
RATES = {"train.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}


@pytest.fixture(params=["study.sqlite", "study.journal"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


def book(
    storage: Path, node: str = "a", *, shared: bool = False, space: dict[str, Any] | None = None
) -> TrialBook:
    made = SearchSpace.checked(space or RATES, RECIPE)
    opened = TrialBook(open_study(storage, "tiny"), made, RECIPE, node=node, shared=shared)
    opened.begin()
    return opened


def finish(opened: TrialBook, number: int, dice: float = 0.5) -> None:
    opened.finish(number, [("c1", dice, "p1")], {"epochs": 2, "seconds": 1.0}, dice)


def test_trial_0_is_the_given_recipe_and_the_study_ends_at_its_number_of_trials(storage: Path) -> None:
    opened = book(storage)
    jobs = [opened.claim(3) for _ in range(4)]
    assert jobs[3] is None
    assert [job.number for job in jobs if job] == [0, 1, 2]
    assert [job.is_start for job in jobs if job] == [True, False, False]
    assert jobs[0] is not None
    assert jobs[0].recipe == RECIPE
    rates = {job.recipe.train.learning_rate for job in jobs if job}
    assert len(rates) == 3
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)


def test_a_killed_command_continues_its_own_trials_and_no_others(storage: Path) -> None:
    first = book(storage)
    jobs = [first.claim(4) for _ in range(3)]
    finish(first, 1)
    again = book(storage)  # the first command has vanished
    resumed = [again.claim(4) for _ in range(4)]
    assert [job.number if job else None for job in resumed] == [0, 2, 3, None]
    assert jobs[2] is not None
    assert resumed[1] is not None
    assert resumed[1].recipe == jobs[2].recipe
    for number in (0, 2, 3):
        finish(again, number)
    assert [(trial.number, trial.outcome) for trial in again.records()] == [(n, "finished") for n in range(4)]


def test_seeds_differ_after_a_restart(storage: Path) -> None:
    first = book(storage)
    one = [first.claim(3) for _ in range(3)]
    for number in range(3):
        finish(first, number)
    again = book(storage)
    more = [again.claim(5) for _ in range(2)]
    rates = [job.recipe.train.learning_rate for job in (*one, *more) if job]
    assert len(set(rates)) == 5


def test_machines_share_the_trials(storage: Path) -> None:
    one, other = book(storage, "a", shared=True), book(storage, "b", shared=True)
    jobs = [each.claim(4) for _ in range(2) for each in (one, other)]
    assert sorted(job.number for job in jobs if job) == [0, 1, 2, 3]
    assert one.claim(4) is None
    assert other.claim(4) is None


def test_a_dead_machines_trial_is_repeated_once_and_its_late_result_does_not_count(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = book(storage, "dead", shared=True)
    dead.beat()
    start, lost = dead.claim(2), dead.claim(2)
    assert start is not None
    assert lost is not None
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + STALE_SECONDS + 60)
    living = [book(storage, name, shared=True) for name in ("b", "c")]
    for each in living:
        each.beat()
    repeated = [job for each in living for job in (each.claim(2), each.claim(2)) if job is not None]
    assert sorted(job.recipe.train.learning_rate for job in repeated) == sorted(
        job.recipe.train.learning_rate for job in (start, lost)
    )
    assert [job.is_start for job in repeated].count(True) == 1
    finish(dead, lost.number, 0.9)  # it was only slow
    assert dead.report(lost.number, 1, 0.9)  # and is told to stop
    for job in repeated:
        finish(living[0], job.number, 0.5)
    assert [(trial.outcome, trial.dice) for trial in living[0].records()] == [("finished", 0.5)] * 2


def test_an_invalid_combination_is_recorded_and_counts(storage: Path) -> None:
    opened = book(storage, space={"patch.size": [[18, 24, 16]]})  # tiny needs multiples of 4
    start = opened.claim(3)
    assert start is not None
    assert opened.claim(3) is None
    outcomes = [(trial.number, trial.outcome) for trial in opened.records()]
    assert outcomes == [(0, "running"), (1, "invalid"), (2, "invalid")]
    assert "must be a multiple of 4" in opened.records()[1].why


def test_no_recipe_is_trained_twice(storage: Path) -> None:
    # Two recipes in all: batch size 2 is tiny's own.
    opened = book(storage, space={"train.batch_size": [2, 4]})
    jobs = [opened.claim(10) for _ in range(3)]
    assert [job.recipe.train.batch_size if job else None for job in jobs] == [2, 4, None]
    assert [trial.number for trial in opened.records() if trial.recipe] == [job.number for job in jobs if job]


def test_a_trial_below_the_median_is_stopped_and_the_start_never(storage: Path) -> None:
    from optuna.pruners import MedianPruner

    opened = book(storage)
    opened.study.pruner = MedianPruner(n_startup_trials=2, n_warmup_steps=0)
    for number, dice in ((0, 0.1), (1, 0.7), (2, 0.8)):
        assert opened.claim(5) is not None
        assert not opened.report(number, 1, dice)
        finish(opened, number, dice)
    assert opened.claim(5) is not None
    assert opened.claim(5) is not None
    # Median of 0.1, 0.7 and 0.8: 0.7.
    # They are sent to a process as JSON, which knows no numpy.
    assert opened.report(3, 1, 0.6) is True
    assert opened.report(4, 1, 0.75) is False
    opened.stop(3, "below the median", {"epochs": 1, "seconds": 2.0})
    held = opened.records()[3]
    assert (held.outcome, held.dice, held.epochs, held.why) == ("pruned", None, 1, "below the median")


def test_a_study_of_something_else_is_refused_by_name(storage: Path) -> None:
    book(storage).bind({"the recipe": "1", "the search space": "2"})
    book(storage).bind({"the recipe": "1", "the search space": "2"})
    with pytest.raises(
        UsageError, match="the search space has changed since the study 'tiny' began"
    ) as caught:
        book(storage).check({"the search space": "3"})
    assert caught.value.reason == "study-changed"
    with pytest.raises(UsageError, match="the recipe and the search space have changed"):
        book(storage).bind({"the recipe": "0", "the search space": "3"})


def test_restarts_are_counted_across_commands(storage: Path) -> None:
    first = book(storage)
    assert first.claim(1) is not None
    assert [first.count_restart(0), book(storage).count_restart(0)] == [1, 2]
