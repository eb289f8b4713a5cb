"""Cross-validation on phantoms: resumed, spread over machines, measured out of fold, and as an ensemble."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from support.worlds import phantoms, tiny

from medseg.cross_validation.fold_assignment import FILE, FoldAssignment
from medseg.cross_validation.out_of_fold import read_ensemble
from medseg.cross_validation.runner import Folds, cross_validate
from medseg.datasets.manifest import Case
from medseg.errors import UsageError
from medseg.evaluation.evaluation_files import read_evaluation
from medseg.inference.cleaning_steps import cleaned
from medseg.inference.model import Model
from medseg.inference.segmenter import Segmenter
from medseg.io import read, read_mask
from medseg.training import run_folder
from medseg.training.hardware import Hardware

CPU = Hardware("cpu", workers=0)
RECIPE = tiny(train={"steps_per_epoch": 1})
pytestmark = pytest.mark.filterwarnings("ignore:.*belongs to no label:medseg.errors.InputWarning")


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    made: list[Case] = phantoms(tmp_path_factory.mktemp("cases"), "train", "train", "val", "test")
    return made


@pytest.fixture(scope="module")
def whole(cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "cv"
    cross_validate(RECIPE, cases, folder, folds=3, hardware=CPU)
    return folder


def weights(folder: Path) -> list[torch.Tensor]:
    return [each for fold in Model.load(folder / "model.safetensors").folds for each in fold.values()]


def test_each_case_is_predicted_by_the_model_that_has_not_seen_it(cases: list[Case], whole: Path) -> None:
    table = read_evaluation(whole / "out_of_fold" / "evaluation.csv")
    assert sorted(table["case"].unique()) == ["case_0", "case_1", "case_2"]  # case_3 is for testing
    assert sorted(table["fold"].unique()) == [0, 1, 2]
    for case in cases[:3]:
        fold = int(table.loc[table["case"] == case.id, "fold"].iloc[0])
        path = whole / f"fold_{fold}" / "model.safetensors"
        model = Model.load(path)
        assert case.id not in model.provenance["train_cases"]
        assert model.provenance["val_cases"] == [case.id]
        held = read_mask(whole / "out_of_fold" / "masks" / f"{case.id}.nii.gz", labels=RECIPE.labels)
        np.testing.assert_array_equal(held.array, Segmenter(path)(read(case.images[0])).array)
    by_fold = pd.read_csv(whole / "out_of_fold" / "folds.csv")
    assert set(by_fold["fold"]) == {0, 1, 2}


def test_the_ensemble_holds_every_fold(whole: Path) -> None:
    ensemble = Model.load(whole / "model.safetensors")
    parts = [Model.load(whole / f"fold_{fold}" / "model.safetensors") for fold in range(3)]
    for own, part in zip(ensemble.folds, parts, strict=True):
        assert all(torch.equal(own[name], each) for name, each in part.folds[0].items())
    assert [each["digest"] for each in ensemble.provenance["folds"]] == [part.digest for part in parts]


def test_the_ensemble_cleans_its_masks_by_the_steps_of_the_summary(cases: list[Case], whole: Path) -> None:
    ensemble = Model.load(whole / "model.safetensors")
    steps = ensemble.recipe.postprocess.steps
    summary = (whole / "out_of_fold" / "summary.md").read_text()
    assert summary.splitlines()[-1].startswith("Postprocessing")
    assert all(str(step) in summary for step in steps)
    table = pd.read_csv(whole / "out_of_fold" / "postprocessing.csv", index_col="label")
    assert (table["dice_after"] >= table["dice_before"]).all()
    raw = replace(ensemble, recipe=RECIPE)
    wanted = cleaned(Segmenter(raw)(read(cases[0].images[0])), steps)
    np.testing.assert_array_equal(Segmenter(ensemble)(read(cases[0].images[0])).array, wanted.array)


def test_an_interrupted_cross_validation_goes_on_with_the_same_bits(
    cases: list[Case], whole: Path, tmp_path: Path
) -> None:
    folds: list[int] = []

    def stop(fold: int, end: object) -> None:
        folds.append(fold)
        if len(folds) == 4:  # in the last epoch of the second fold
            raise Stop

    with pytest.raises(Stop):
        cross_validate(RECIPE, cases, tmp_path / "cv", folds=3, hardware=CPU, on_epoch=stop)
    assert folds == [0, 0, 1, 1]
    with pytest.raises(UsageError, match="fold 0 has already begun") as caught:
        cross_validate(RECIPE, cases, tmp_path / "cv", folds=3, hardware=CPU)
    assert caught.value.reason == "has-results"
    finished = (tmp_path / "cv" / "fold_0" / "model.safetensors").stat().st_mtime_ns
    assert (
        cross_validate(RECIPE, cases, tmp_path / "cv", folds=3, hardware=CPU, resume=True).model is not None
    )
    assert (tmp_path / "cv" / "fold_0" / "model.safetensors").stat().st_mtime_ns == finished
    assert all(map(torch.equal, weights(tmp_path / "cv"), weights(whole)))
    with pytest.raises(UsageError, match="have changed since the folds") as caught:
        cross_validate(RECIPE, cases[1:], tmp_path / "cv", folds=3, hardware=CPU, resume=True)
    assert caught.value.reason == "folds-changed"


def test_folds_of_several_machines_give_the_same_ensemble(
    cases: list[Case], whole: Path, tmp_path: Path
) -> None:
    for fold in (2, 0, 1):
        result = cross_validate(RECIPE, cases, tmp_path / "cv", folds=Folds(3, only=fold), hardware=CPU)
        assert (result.model is not None) == (fold == 1)  # the last one
    assert (tmp_path / "cv" / FILE).read_bytes() == (whole / FILE).read_bytes()
    assert all(map(torch.equal, weights(tmp_path / "cv"), weights(whole)))


def test_impossible_folds_are_refused(cases: list[Case], tmp_path: Path) -> None:
    for folds, reason in ((Folds(3, only=3), "usage"), (9, "manifest-folds"), (1, "manifest-folds")):
        with pytest.raises(UsageError) as caught:
            cross_validate(RECIPE, cases, tmp_path / "cv", folds=folds, hardware=CPU)
        assert caught.value.reason == reason
    with pytest.raises(UsageError, match="each fold with its own command"):
        cross_validate(RECIPE, cases, tmp_path / "cv", folds=3, hardware=Hardware("cpu", devices=2))


def test_the_finisher_waits_for_another_and_takes_what_it_made(
    cases: list[Case], whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "cv"
    shutil.copytree(whole, folder)
    table = folder / "out_of_fold" / "evaluation.csv"
    before = table.stat().st_mtime_ns
    begun, end = threading.Event(), threading.Event()

    def other() -> None:
        with run_folder.lock(folder):
            begun.set()
            end.wait(60)

    thread = threading.Thread(target=other)
    thread.start()
    begun.wait(60)
    threading.Timer(0.5, end.set).start()
    result = cross_validate(RECIPE, cases, folder, folds=Folds(3, only=1), hardware=CPU, resume=True)
    thread.join()
    assert result.model is not None
    assert result.model.digest == Model.load(whole / "model.safetensors").digest
    assert result.table is not None
    assert sorted(result.table["fold"].unique()) == [0, 1, 2]
    assert table.stat().st_mtime_ns == before
    shutil.copy(
        folder / "fold_1" / "model.safetensors", folder / "fold_2" / "model.safetensors"
    )  # another fold
    assert read_ensemble(folder, FoldAssignment(3, "", {}, {})) is None
