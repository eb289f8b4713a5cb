"""A tiny study on phantoms: a worker and the command are killed, and no trial is lost or doubled."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.worlds import phantoms, tiny

from medseg.datasets.manifest import Case
from medseg.errors import UsageError
from medseg.evaluation.evaluation_files import read_evaluation
from medseg.recipe import Recipe
from medseg.training import provenance
from medseg.tuning.tuner import TrialEvent, TuningOptions, tune

RECIPE = tiny(train={"steps_per_epoch": 1})
SPACE: dict[str, Any] = {
    "train.learning_rate": {"low": 1e-3, "high": 1e-2, "log": True},
    "network.norm": ["instance", "batch"],
}
TWO = TuningOptions(workers=2, device="cpu")


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    made: list[Case] = phantoms(tmp_path_factory.mktemp("cases"), "train", "val", "val", "test")
    return made


@pytest.mark.slow
def test_a_killed_worker_and_a_killed_command_lose_and_double_nothing(
    cases: list[Case], tmp_path: Path
) -> None:
    folder, events = tmp_path / "search", []

    def kill(event: TrialEvent) -> None:
        events.append(event)
        if event.kind == "epoch" and not any(each.kind == "died" for each in events):
            assert event.process is not None
            os.kill(event.process, signal.SIGKILL)
        if event.kind == "finished":  # the command's end, in the middle of the other trial
            raise Stop

    with pytest.raises(Stop):
        tune(cases, folder, recipe=RECIPE, space=SPACE, trials=4, options=TWO, on_event=kill)
    assert [event.why for event in events if event.kind == "died"][:1] == ["SIGKILL"]
    ended = [event.trial for event in events if event.kind == "finished"]

    again: list[TrialEvent] = []
    one = TuningOptions(device="cpu")
    result = tune(cases, folder, recipe=RECIPE, space=SPACE, trials=4, options=one, on_event=again.append)
    ended += [event.trial for event in again if event.kind in ("finished", "pruned")]
    assert Counter(ended) == Counter(range(4))  # each once
    assert list(result.table["trial"]) == [0, 1, 2, 3]
    assert set(result.table["outcome"]) <= {"finished", "pruned"}
    assert result.table["restarts"].max() >= 1
    assert set(result.table["seed"]) == {RECIPE.train.seed}

    # Each is a normal training, and its Dice is that of its evaluation.
    for row in result.table.itertuples():
        run = provenance.read(folder / f"trial_{row.trial:04d}")
        assert run.recipe.train.learning_rate == pytest.approx(
            RECIPE.train.learning_rate
            if row.trial == 0
            else result.table.at[row.Index, "train.learning_rate"]
        )
        if row.outcome == "finished":
            scores = read_evaluation(folder / f"trial_{row.trial:04d}" / "evaluation.csv")
            assert sorted(scores["case"].unique()) == ["case_1", "case_2"]
            by_case = scores.groupby("case")["dice"].mean()
            assert row.dice == pytest.approx(by_case.mean(), abs=1e-5)

    assert result.best is not None
    assert result.recipe == Recipe.read(folder / "best.yaml") == result.best.recipe
    assert result.best.dice == result.table["dice"].max()
    assert f"trial {result.best.number}" in result.verdict.lower() or "No trial is better" in result.verdict
    written = pd.read_csv(folder / "trials.csv")
    assert list(written["dice"].dropna()) == pytest.approx(list(result.table["dice"].dropna()), abs=1e-5)
    page = (folder / "summary.html").read_text()
    assert result.verdict in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("<svg") >= 2

    nothing: list[TrialEvent] = []
    tune(cases, folder, recipe=RECIPE, space=SPACE, trials=4, options=TWO, on_event=nothing.append)
    assert nothing == []
    for changed, named in (
        ({"recipe": tiny()}, "the recipe has changed"),
        ({"space": {"network.norm": ["batch"]}}, "the search space has changed"),
        ({"cases": cases[:2]}, "the cases has changed|the cases have changed"),
    ):
        arguments: dict[str, Any] = {"cases": cases, "recipe": RECIPE, "space": SPACE, **changed}
        with pytest.raises(UsageError, match=named) as caught:
            tune(arguments["cases"], folder, recipe=arguments["recipe"], space=arguments["space"], trials=4)
        assert caught.value.reason == "study-changed"


def test_a_wrong_name_is_refused_before_anything_is_written(cases: list[Case], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"did you mean train\.learning_rate\?"):
        tune(cases, tmp_path / "search", recipe=RECIPE, space={"train.lerning_rate": [1e-3]})
    assert not (tmp_path / "search").exists()


def test_cases_without_validation_are_refused(cases: list[Case], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no labelled case has the split val") as caught:
        tune(cases[:1], tmp_path / "search", recipe=RECIPE)
    assert caught.value.reason == "tune-validation"


def test_a_recipe_that_cannot_be_trained_ends_the_study(
    cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medseg.tuning import worker_pool

    class Broken(worker_pool.WorkerPool):
        def __init__(self, count: int, log: Path) -> None:
            self.given: list[int] = []

        def __exit__(self, *_: object) -> None: ...

        def idle(self) -> list[int]:
            return [] if self.given else [0]

        def trials(self) -> list[int]:
            return self.given

        def process_id(self, slot: int) -> int:
            return 1

        def give(self, slot: int, number: int, request: object) -> None:
            self.given.append(number)

        def wait(self, seconds: float) -> list[tuple[int, int, dict[str, Any]]]:
            return [(0, 0, {"event": "failed", "reason": "nan-loss", "problem": "the loss is nan"})]

    monkeypatch.setattr("medseg.tuning.tuner.WorkerPool", Broken)
    with pytest.raises(UsageError, match="the given recipe cannot be trained: the loss is nan") as caught:
        tune(cases, tmp_path / "search", recipe=RECIPE, trials=2)
    assert caught.value.reason == "tune-start"


def test_a_folder_of_something_else_is_refused(cases: list[Case], tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("")
    with pytest.raises(UsageError, match="already holds something else") as caught:
        tune(cases, tmp_path, recipe=RECIPE)
    assert caught.value.reason == "has-results"
    other = tmp_path / "other"
    other.mkdir()
    (other / "study.json").write_text("{")
    with pytest.raises(UsageError, match="not the record of a study") as caught:
        tune(cases, other, recipe=RECIPE)
    assert caught.value.reason == "study-file"
