"""The folder of a training: one training at a time, resumed only with what it began with."""

from __future__ import annotations

import json
import shutil

import pytest
from support.worlds import phantoms, tiny

from medseg.errors import UsageError
from medseg.system.file_lock import locked
from medseg.training import provenance, run_folder
from medseg.training.trainer import Hardware, TrainingOptions, train


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return phantoms(tmp_path_factory.mktemp("cases"), "train", "train", "val")


class Stop(Exception):
    pass


@pytest.fixture
def interrupted(cases, tmp_path):
    """A training of two epochs that was interrupted after the first."""

    def stop(end):
        if end.epoch == 2:
            raise Stop

    with pytest.raises(Stop):
        train(tiny(), cases, tmp_path / "run", hardware=Hardware(workers=0), on_epoch=stop)
    return tmp_path / "run"


def resume(folder, cases, recipe=None, **options):
    options = TrainingOptions(**options)
    hardware = Hardware(workers=0)
    return train(recipe or tiny(), cases, folder, hardware=hardware, resume=True, options=options)


def moved(cases, *splits):
    return [case.model_copy(update={"split": split}) for case, split in zip(cases, splits, strict=True)]


def test_a_second_training_in_the_folder_is_refused(cases, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(tiny().yaml())
    before = sorted(path.name for path in folder.iterdir())
    with locked(folder / run_folder._LOCK, remedy=""):
        for again in (False, True):
            with pytest.raises(UsageError, match="in use by process") as caught:
                train(tiny(), cases, folder, hardware=Hardware(workers=0), resume=again)
            assert caught.value.reason == "in-use"
            assert caught.value.exit_code == 2
    assert [name for name in sorted(p.name for p in folder.iterdir()) if name[0] != "."] == before


def test_nothing_is_created_if_there_is_nothing_to_resume(cases, tmp_path):
    with pytest.raises(UsageError, match="nothing to resume"):
        resume(tmp_path / "run", cases)
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore:.*no case has split val:medseg.errors.InputWarning")
def test_exchanged_splits_are_refused_and_named(cases, interrupted):
    for splits, named in (
        (("val", "train", "train"), "case_0: train, now val"),
        (("train", "test", "val"), "case_1: train, now test"),
        (("train", "train", ""), "case_2: val, now not in the manifest"),
    ):
        with pytest.raises(UsageError, match=named) as caught:
            resume(interrupted, moved(cases, *splits))
        assert caught.value.reason == "resume-changed"
    splits = [case.split for case in provenance.read(interrupted).cases]
    assert splits == ["train", "train", "val"]


def test_another_order_of_training_cases_is_refused(cases, interrupted):
    # The number of a patch selects its case by position.
    with pytest.raises(UsageError, match="order of the training cases has changed"):
        resume(interrupted, [cases[1], cases[0], cases[2]])


def test_other_files_and_another_recipe_are_refused(cases, interrupted):
    other = cases[0].model_copy(update={"label": cases[1].label})
    with pytest.raises(UsageError, match=r"data has changed .* the first is case_0"):
        resume(interrupted, [other, *cases[1:]])
    with pytest.raises(UsageError, match="the recipe has changed"):
        resume(interrupted, cases, tiny(train={"learning_rate": 0.5}))


@pytest.mark.parametrize(("name", "before"), [("processes", 2), ("device", "gpu")])
def test_other_hardware_is_refused_or_accepted_and_recorded(cases, interrupted, name, before):
    facts = json.loads((interrupted / "run.json").read_text())
    now = facts["options"][name]
    facts["options"][name] = before
    (interrupted / "run.json").write_text(json.dumps(facts))
    with pytest.raises(UsageError, match=f"{name} {before} before, now {now}") as caught:
        resume(interrupted, cases)
    assert "--accept-changes" in caught.value.remedy
    resume(interrupted, cases, accept_changes=True)
    assert provenance.read(interrupted).facts["changes"] == [f"{name} {before} before, now {now}"]


def test_an_unchanged_training_is_resumed(cases, interrupted):
    assert resume(interrupted, cases).provenance["epoch"] in (1, 2)
    assert "changes" not in provenance.read(interrupted).facts


def test_a_training_of_moved_data_is_resumed(cases, interrupted, tmp_path):
    """Names and folders of the files do not count, their content does."""
    (tmp_path / "moved").mkdir()
    placed = []
    for number, case in enumerate(cases):
        image, label = (tmp_path / "moved" / f"{kind}{number}.nii.gz" for kind in "ab")
        shutil.copy(case.images[0], image)
        shutil.copy(case.label, label)
        placed.append(case.model_copy(update={"images": (image,), "label": label}))
    assert resume(interrupted, placed).provenance["epoch"] <= 2
    epochs = [line.split(",")[0] for line in (interrupted / "history.csv").read_text().splitlines()]
    assert epochs == ["epoch", "1", "2"]


def test_a_training_started_anew_replaces_the_record_of_a_killed_one(cases, tmp_path):
    first = tmp_path / "run"
    train(tiny(train={"epochs": 1}), cases, first, hardware=Hardware(workers=0))
    for name in ("checkpoints", "model.safetensors"):  # as if it had been killed in its first epoch
        (first / name).rename(tmp_path / name)
    swapped = moved(cases, "train", "val", "train")
    train(tiny(train={"epochs": 1}), swapped, first, hardware=Hardware(workers=0))
    assert [case.split for case in provenance.read(first).cases] == ["train", "val", "train"]
