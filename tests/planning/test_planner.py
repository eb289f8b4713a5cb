"""Plans of small folders: they train as they are, and replace nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from support.layouts import person_of

import medseg
from medseg.errors import UsageError
from medseg.images.volume import Mask
from medseg.planning import planner
from medseg.planning.default_plan import budget
from medseg.planning.planner import Plan, PlanOptions, plan
from medseg.recipe import Recipe

QUICK = PlanOptions(measure=False, device="cpu")


def small_budget(device, memory):
    """Networks of a few weights, and two steps an epoch."""
    return replace(budget(device, memory), voxels={2: 2**12, 3: 2**13}, width=4, most_width=16, steps=(2, 2))


def lungs_of(seed):
    """A scan and its two lungs, 1 and 2."""
    scan, truth = person_of(seed)
    return scan, Mask(np.where(truth.array <= 2, truth.array, 0), truth.grid, ())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four people: images and labels in neighbouring folders."""
    place = tmp_path_factory.mktemp("plans") / "people"
    for kind in ("images", "labels"):
        (place / kind).mkdir(parents=True)
    for seed in range(4):
        scan, truth = lungs_of(seed)
        scan.save(place / "images" / f"p{seed}.nii.gz")
        truth.save(place / "labels" / f"p{seed}.nii.gz")
    return place


@pytest.fixture(scope="module")
def made(folder) -> Plan:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planner, "budget", small_budget)
        return plan(folder, PlanOptions(device="cpu"), name="Lungs of 4", progress=False)


def test_the_recipe_is_complete(made):
    recipe = made.recipe
    assert recipe.name == "lungs_of_4"
    assert recipe.modality == "CT"  # air
    assert [label.values for label in recipe.labels] == [(1,), (2,)]
    assert len(made.fingerprint.cases) == 4
    assert recipe.prepare.crop is not None


def test_a_fifth_of_the_patients_is_for_validation(made):
    assert made.manifest is not None
    assert [len(made.manifest.split(each)) for each in ("train", "val")] == [3, 1]


def test_three_steps_are_measured(made):
    assert made.timing is not None
    assert made.timing.step_s > 0
    assert made.timing.parameters > 1000
    assert "Three steps on cpu" in made.text


def test_a_written_plan_trains_without_editing(made, tmp_path):
    recipe, fingerprint, cases = made.write(tmp_path / "lungs.yaml")
    read = Recipe.read(recipe)
    assert read == made.recipe
    assert medseg.Fingerprint.model_validate_json(fingerprint.read_text()) == made.fingerprint
    short = read.model_copy(
        update={"train": read.train.model_copy(update={"epochs": 1, "steps_per_epoch": 1})}
    )
    medseg.train(short, cases, tmp_path / "run", hardware=medseg.Hardware("cpu", workers=0), progress=False)
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_nothing_is_replaced(made, tmp_path):
    made.write(tmp_path / "lungs.yaml")
    before = (tmp_path / "lungs.yaml").read_bytes()
    (tmp_path / "new.fingerprint.json").write_text("mine")
    for name in ("lungs.yaml", "new.yaml"):
        with pytest.raises(UsageError) as refused:
            made.write(tmp_path / name)
        assert refused.value.reason == "plan-exists"
    assert (tmp_path / "lungs.yaml").read_bytes() == before
    assert not (tmp_path / "new.yaml").exists()


def test_a_recipe_is_yaml(made, tmp_path):
    with pytest.raises(UsageError) as refused:
        made.write(tmp_path / "lungs.json")
    assert refused.value.reason == "plan-suffix"


def test_a_manifest_with_both_splits_is_used_as_it_is(folder, tmp_path):
    (divided,) = medseg.split_manifest(medseg.make_manifest(folder), val=0.25, test=0.25)
    found = plan(divided.write(tmp_path / "cases.csv"), QUICK, progress=False)
    assert found.manifest is None
    assert len(found.fingerprint.cases) == 3  # a plan does not look at test cases


def test_nnunet_folder_with_names(folder, tmp_path):
    place = tmp_path / "Dataset001_people"
    for kind in ("imagesTr", "labelsTr"):
        (place / kind).mkdir(parents=True)
    for seed in range(2):
        scan, truth = lungs_of(seed)
        scan.save(place / "imagesTr" / f"p{seed}_0000.nii.gz")
        truth.save(place / "labelsTr" / f"p{seed}.nii.gz")
    labels = {"background": 0, "right_lung": 1, "left_lung": 2}
    content = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 2, "file_ending": ".nii.gz"}
    (place / "dataset.json").write_text(json.dumps(content))
    found = plan(place, QUICK, progress=False)
    assert [label.name for label in found.recipe.labels] == list(labels)[1:]
    assert [label.side for label in found.recipe.labels] == ["right", "left"]
    like = plan(place, PlanOptions("nnunet", measure=False, device="cpu", memory_gb=1), progress=False)
    assert like.recipe.network.kind == "plain_conv_unet"
    assert like.recipe.train.steps_per_epoch == 250


def test_options_that_exclude_each_other():
    for wrong in ({"like": "nnunet-huge"}, {"configuration": "2d"}):
        with pytest.raises(UsageError) as refused:
            PlanOptions(**wrong)
        assert refused.value.reason == "usage"
