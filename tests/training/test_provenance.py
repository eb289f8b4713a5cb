from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from support.worlds import phantoms, tiny

from medseg.errors import InputRefused, InputWarning, UsageError
from medseg.training import provenance
from medseg.training.session import rerun
from medseg.training.trainer import Hardware, TrainingOptions, train


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return phantoms(tmp_path_factory.mktemp("cases"), "train", "val", "test")


@pytest.fixture(scope="module")
def trained(cases, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(tiny(), cases, folder, hardware=Hardware(workers=0))
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A copy of a training's folder, to be changed."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def repeat(record, folder):
    options = TrainingOptions(repeats=record)
    return train(record.recipe, record.cases, folder, hardware=Hardware(workers=0), options=options)


def test_a_training_records_its_provenance(run, cases):
    held = provenance.read(run)
    assert held.recipe == tiny()
    assert [case.id for case in held.cases] == [case.id for case in cases]
    assert [case.split for case in held.cases] == ["train", "val", "test"]
    assert all(image.is_file() for case in held.cases for image in case.images)
    assert set(held.facts["data"]) == {"case_0", "case_1"}  # those that took part
    assert held.facts["options"] == {"processes": 1, "device": "cpu", "workers": 0}
    assert held.facts["packages"]["torch"]
    assert held.facts["epochs_done"] == 2


def test_a_training_can_be_repeated_to_the_bit(run, tmp_path):
    held = provenance.read(run)
    again = repeat(held, tmp_path / "again")
    assert (run / "model.safetensors").read_bytes() == (tmp_path / "again" / "model.safetensors").read_bytes()
    assert again.provenance["epoch"] <= 2


def test_a_training_of_moved_data_can_be_repeated(cases, tmp_path):
    """Images and labels lie in folders of their own below the data's; all of it is moved."""
    data, rows = tmp_path / "data", []
    for case in cases[:2]:
        placed = {
            "image": data / "images" / f"{case.id}.nii.gz",
            "label": data / "truth" / f"{case.id}.nii.gz",
        }
        for kind, source in (("image", case.images[0]), ("label", case.label)):
            placed[kind].parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, placed[kind])
        rows.append(case.model_copy(update={"images": (placed["image"],), "label": placed["label"]}))
    made = train(tiny(), rows, tmp_path / "run", hardware=Hardware(workers=0))
    data.rename(tmp_path / "moved")
    with pytest.raises(InputRefused):
        rerun(tmp_path / "run", tmp_path / "lost", hardware=Hardware(workers=0))
    again = rerun(tmp_path / "run", tmp_path / "again", root=tmp_path / "moved", hardware=Hardware(workers=0))
    assert again.digest == made.digest


def test_a_repetition_ends_after_the_same_epoch(run, tmp_path):
    facts = json.loads((run / "run.json").read_text()) | {"epochs_done": 1}
    (run / "run.json").write_text(json.dumps(facts))
    held = provenance.read(run)
    repeat(held, tmp_path / "again")
    assert len((tmp_path / "again" / "history.csv").read_text().splitlines()) == 2


def test_other_data_are_refused_and_other_versions_give_a_warning(run, cases, tmp_path):
    held = provenance.read(run)
    held.facts["packages"]["torch"] = "1.0"
    with pytest.warns(InputWarning, match=r"torch 1\.0 then"):
        provenance.check(held, held.facts["data"])
    with pytest.raises(UsageError, match=r"the training had 1 process\(es\), now 2"):
        provenance.check(held, held.facts["data"], processes=2)
    others = [held.cases[0].model_copy(update={"label": cases[1].label}), *held.cases[1:]]
    with pytest.raises(UsageError, match=r"1 of 2 cases have changed, the first is case_0"):
        repeat(dataclasses.replace(held, cases=tuple(others)), tmp_path / "again")


@pytest.mark.parametrize("text", [None, "{", "[]", '{"data": 1}'])
def test_folders_without_a_record_are_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(UsageError, match="not the folder of a training"):
        provenance.read(tmp_path)
