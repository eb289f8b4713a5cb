"""``medseg train --from MODEL --keep-labels`` as a command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import invoke
from support.worlds import phantoms, tiny

import medseg
from medseg.training.trainer import Hardware, train

pytestmark = pytest.mark.filterwarnings("ignore::medseg.errors.InputWarning")


def test_the_command_keeps_the_labels_of_the_model(tmp_path: Path) -> None:
    short = {"epochs": 1, "steps_per_epoch": 1}
    right = {"labels": [{"name": "right_lung", "values": [1, 3], "side": "right"}], "train": short}
    cases = phantoms(tmp_path, "train")
    train(tiny(**right), cases, tmp_path / "old", hardware=Hardware("cpu", workers=0))
    few = cases[0].model_copy(update={"annotated": ("left_lung",)})
    medseg.Manifest(name="few", cases=(few,)).write(tmp_path / "few.csv")
    (tmp_path / "both.yaml").write_text(tiny(train=short).yaml())
    command = ("train", tmp_path / "both.yaml", tmp_path / "few.csv", "--workers", "0", "-d", "cpu")
    source = tmp_path / "old" / "model.safetensors"
    _, err = invoke(*command, "-o", tmp_path / "new", "--from", source, "--keep-labels")
    assert "right_lung" in err
    # Without validation cases there is nothing to evaluate.
    assert "Next: medseg segment SCAN -o mask.nii.gz --model" in err
    facts = json.loads((tmp_path / "new" / "run.json").read_text())
    assert facts["source"]["pseudo_labels"] == {"case_0": ["right_lung"]}
    assert "keep_labels: true" in (tmp_path / "new" / "recipe.yaml").read_text()
    model = medseg.load_model(tmp_path / "new" / "model.safetensors")
    assert [label.name for label in model.recipe.labels] == ["right_lung", "left_lung"]
    # Without a model there is nothing to keep, and no folder is begun.
    _, err = invoke(*command, "-o", tmp_path / "none", "--keep-labels", code=2)
    assert "--from" in err
    assert not (tmp_path / "none").exists()
