from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from medseg.datasets.manifest import Case
from medseg.errors import UsageError
from medseg.networks import Several, build
from medseg.recipe import Recipe
from medseg.training.trainer import train

CT = {"kind": "ct", "low_hu": -1000, "high_hu": 400, "mean_hu": -300, "sd_hu": 350}
NETWORK = {"kind": "unet", "widths": [4, 8]}
SECOND = {"spacing_mm": [3, 3, 3], "intensity": [CT], "patch_size": [8, 8, 8], "network": NETWORK}


def recipe_data(**pipeline: Any) -> dict[str, Any]:
    return {
        "name": "imported",
        "modality": "CT",
        "channels": ["CT"],
        "labels": [{"name": "lung", "values": [1]}, {"name": "lesion", "values": [2]}],
        "prepare": {
            "spacing_mm": [1, 1, 2],
            "intensity": {"low_hu": -1000, "high_hu": 400, "kind": "window"},
        },
        "patch": {"size": [8, 16, 16]},
        "network": NETWORK,
        "loss": {"kind": "dice_ce"},
        "train": {"epochs": 1, "steps_per_epoch": 1, "batch_size": 1, "learning_rate": 0.01},
        "pipeline": {"configurations": [{"spacing_mm": [2, 1, 1], "intensity": [CT]}], **pipeline},
    }


def test_background_is_an_output_of_exclusive_labels() -> None:
    recipe = Recipe.checked(recipe_data(kind="nnunet"))
    assert (recipe.in_channels, recipe.out_channels) == (1, 3)
    assert build(recipe)(torch.zeros(1, 1, 8, 16, 16)).shape == (1, 3, 8, 16, 16)


def test_regions_have_no_background() -> None:
    data = recipe_data(kind="nnunet") | {"loss": {"kind": "dice_bce"}}
    assert Recipe.checked(data).out_channels == 2


def test_a_cascade_gives_the_labels_to_its_second_network() -> None:
    data = recipe_data(kind="nnunet", combine="cascade")
    data["pipeline"]["configurations"].append(SECOND)
    recipe = Recipe.checked(data)
    assert [sizes[1:] for sizes in recipe.network_sizes()] == [(3, 1, 3), (3, 3, 3)]
    network = build(recipe)
    assert isinstance(network, Several)
    assert {name.split(".")[1] for name in network.state_dict()} == {"0", "1"}


def test_parts_have_labels_of_their_own() -> None:
    data = recipe_data(kind="nnunet", combine="parts")
    data["pipeline"]["configurations"][0]["labels"] = ["lesion"]
    data["pipeline"]["configurations"].append({**SECOND, "labels": ["lung", "lesion"]})
    assert [sizes[3] for sizes in Recipe.checked(data).network_sizes()] == [2, 3]


@pytest.mark.parametrize(
    ("change", "loss", "problem"),
    [
        ({}, "dice_bce", "needs exclusive labels"),
        ({"transpose": [0, 2, 1]}, "dice_ce", "combine 'mean' needs the same"),
    ],
)
def test_means_of_regions_or_of_other_axes_are_refused(
    change: dict[str, Any], loss: str, problem: str
) -> None:
    data = recipe_data(kind="nnunet", combine="mean") | {"loss": {"kind": loss}}
    data["pipeline"]["configurations"].append({**SECOND, **change})
    with pytest.raises(UsageError, match=problem):
        Recipe.checked(data)


def test_a_fill_model_is_a_second_network() -> None:
    data = recipe_data() | {"pipeline": {"kind": "lungmask", "fill_labels": 5}, "patch": {"size": [256, 256]}}
    assert [sizes[1:] for sizes in Recipe.checked(data).network_sizes()] == [(2, 1, 3), (2, 1, 6)]


def test_recipes_round_trip_with_a_pipeline() -> None:
    recipe = Recipe.checked(recipe_data(kind="nnunet", step=0.8, tta="none"))
    assert Recipe.parse(recipe.yaml()) == recipe


def test_own_recipes_are_written_without_it() -> None:
    assert "pipeline" not in Recipe.read("lung_ct").yaml()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"predict": {"overlap": 0.25}}, "keep their defaults"),
        ({"postprocess": {"keep_components": 1}}, "keep their defaults"),
        ({"channels": ["CT", "PET"]}, "1 intensities, but there are 2 channels"),
        ({"patch": {"size": [16, 16]}}, "spacing_mm has 3 numbers, but the patch has 2"),
        ({"pipeline": {"kind": "lungmask"}}, "patch.size [256, 256]"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError) as refusal:
        Recipe.checked(recipe_data(kind="nnunet") | change)
    assert problem in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"transpose": [0, 0, 1]}, "must contain 0, 1 and 2"),
        ({"mirror_axes": [0, 3]}, "less than or equal to 2"),
        ({"mirror_axes": [1, 1]}, "different axes"),
        ({"labels": ["lung"]}, "combine 'parts'"),
        ({"patch_size": [8, 8]}, "give 3 numbers"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused(change: dict[str, Any], problem: str) -> None:
    data = recipe_data(kind="nnunet")
    data["pipeline"]["configurations"][0] |= change
    with pytest.raises(UsageError) as refusal:
        Recipe.checked(data)
    assert problem in str(refusal.value)


def test_training_a_pipeline_is_refused(tmp_path: Path) -> None:
    case = Case(id="one", images=("one.nii.gz",), label="one_lungs.nii.gz", split="train")
    with pytest.raises(UsageError) as refusal:
        train(Recipe.checked(recipe_data(kind="nnunet")), [case], tmp_path / "run")
    assert refusal.value.reason == "pipeline"
