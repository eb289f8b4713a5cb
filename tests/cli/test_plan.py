"""``medseg plan``, and ``medseg train FOLDER``, which plans first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.commands import invoke
from support.layouts import person_of

from medseg.cli.plan import gigabytes
from medseg.errors import UsageError
from medseg.images.volume import Mask
from medseg.planning import planner
from medseg.planning.default_plan import budget
from medseg.recipe import Recipe


@pytest.fixture(autouse=True)
def small_budget(monkeypatch):
    """Networks of a few weights, and two steps an epoch."""
    monkeypatch.setattr(
        planner,
        "budget",
        lambda device, memory: replace(
            budget(device, memory), voxels={2: 2**12, 3: 2**13}, width=4, most_width=16, steps=(2, 2)
        ),
    )


@pytest.fixture
def folder(tmp_path):
    for seed in range(2):
        scan, truth = person_of(seed)
        truth = Mask(np.where(truth.array <= 2, truth.array, 0), truth.grid, ())
        for kind, what in (("images", scan), ("labels", truth)):
            (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
            what.save(tmp_path / "data" / kind / f"p{seed}.nii.gz")
    return tmp_path / "data"


def test_a_plan_is_written_and_the_next_command_is_printed(folder, tmp_path):
    recipe = tmp_path / "lungs.yaml"
    out, err = invoke("plan", folder, "-o", recipe, "--no-measure", "-d", "cpu", "--memory", "2G")
    assert out == f"medseg train {recipe} {tmp_path / 'lungs.cases.csv'} -o lungs_run\n"
    assert f"wrote {recipe}" in err
    assert Recipe.read(recipe).name == "lungs"
    _, err = invoke("plan", folder, "-o", recipe, "--no-measure", code=2)
    assert "replaces nothing" in err


def test_training_a_folder_plans_first(folder, tmp_path):
    run = tmp_path / "run"
    invoke("train", folder, "-o", run, "-d", "cpu", "--max-time", "1s", "--workers", 0)
    assert (run / "model.safetensors").is_file()
    planned = (tmp_path / "run.yaml").read_bytes()
    assert Recipe.read(tmp_path / "run.yaml") == Recipe.read(run / "recipe.yaml")
    _, err = invoke("train", folder, "-o", run, "-d", "cpu", code=2)
    assert "replaces nothing" in err
    invoke("train", folder, "-o", run, "-d", "cpu", "--max-time", "1s", "--workers", 0, "--resume")
    assert (tmp_path / "run.yaml").read_bytes() == planned


@pytest.mark.parametrize(("text", "gb"), [("8G", 8), ("512M", 0.5), ("6", 6), ("2GiB", 2), (None, None)])
def test_memory_as_it_is_written(text, gb):
    assert gigabytes(text) == gb


@pytest.mark.parametrize("text", ["", "much", "-2G", "0G"])
def test_memory_that_cannot_be_read(text):
    with pytest.raises(UsageError) as refused:
        gigabytes(text)
    assert refused.value.reason == "usage"
