"""Search spaces: compared with the schema of recipes, suggested, and applied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from support.worlds import tiny

from medseg.errors import UsageError
from medseg.recipe import Recipe, list_recipes
from medseg.tuning.parameter import Choice, Range
from medseg.tuning.recipe_fields import RecipeFields
from medseg.tuning.search_space import SearchSpace, default_space

FLAT = tiny()


def test_ranges_and_choices_are_read_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "train.learning_rate: {low: 1e-4, high: 1e-2, log: true}\n"  # YAML reads 1e-4 as text
        "train.batch_size: {low: 2, high: 8, step: 2}\n"
        "network.kind: [unet, dynunet]\n"
        "patch.size: [[16, 24, 16], [24, 24, 16]]\n"
    )
    assert SearchSpace.read(path, FLAT).parameters == {
        "train.learning_rate": Range(1e-4, 1e-2, log=True),
        "train.batch_size": Range(2, 8, step=2, whole=True),
        "network.kind": Choice(("unet", "dynunet")),
        "patch.size": Choice(([16, 24, 16], [24, 24, 16])),
    }


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "at least one field"),
        ([1], "at least one field"),
        ({"train.learning_rat": [1e-3]}, "did you mean train.learning_rate?"),
        ({"learning_rate": [1e-3]}, "did you mean train.learning_rate?"),
        ({"labels": [[]]}, "labels: recipes have no such field to search"),  # the task, not how it is learned
        ({"train.learning_rate": 1e-3}, "neither a range nor a list"),
        ({"train.learning_rate": {"low": 1e-4}}, "needs low and high"),
        ({"train.learning_rate": {"low": 1e-4, "high": 1, "lag": True}}, "a range has no 'lag'"),
        ({"train.learning_rate": {"low": "a", "high": 1}}, "low is 'a', not a number"),
        ({"train.learning_rate": {"low": 2, "high": 1}}, "low 2 is not below high 1"),
        ({"train.learning_rate": {"low": 0, "high": 1, "log": True}}, "log needs low above 0"),
        ({"train.learning_rate": {"low": 0, "high": 1}}, "must be greater than 0"),
        ({"train.weight_decay": {"low": 0, "high": 1, "step": 2}}, "step 2 does not fit into the range"),
        ({"train.batch_size": {"low": 1, "high": 8, "log": True, "step": 2}}, "exclude each other"),
        ({"train.batch_size": {"low": 1.5, "high": 8}}, "whole numbers only"),
        ({"train.batch_size": {"low": 0, "high": 8}}, "must be greater than or equal to 1"),
        ({"train.batch_size": [2, 2]}, "a choice is given twice"),
        ({"train.batch_size": []}, "no choice"),
        ({"train.schedule": {"low": 0, "high": 1}}, "train.schedule is not a number"),
        ({"train.schedule": ["polly"]}, "did you mean poly?"),
        ({"train.optimizer": ["sdg"]}, "did you mean sgd?"),
        ({"train.preset": ["nnunet"]}, "train.preset: recipes have no such field to search"),
        ({"network.kind": ["unett"]}, "did you mean unet?"),
        ({"network.units": [2]}, "neither the recipe's kind nor a searched one has this field"),
        ({"network.widths.7": [2]}, "no such place"),
        ({"augment": ["full"], "augment.gamma": [0.1]}, "augment and augment.gamma overlap"),
        ({"augment": ["ful"]}, "did you mean full?"),
    ],
)
def test_what_does_not_fit_recipes_is_refused_with_the_way_to_go(data: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        SearchSpace.checked(data, FLAT)
    assert caught.value.reason == "tune-space"
    assert said in str(caught.value)


def test_another_kind_drops_the_fields_that_it_lacks() -> None:
    # tiny has a unet with widths and norm; attention_unet has widths, but no norm.
    space = SearchSpace.checked({"network.kind": ["unet", "attention_unet"], "network.norm": ["batch"]}, FLAT)
    changed = space.applied(FLAT, {"network.kind": "attention_unet"})
    assert changed.network.kind == "attention_unet"
    assert changed.network.widths == (4, 8, 8)  # type: ignore[union-attr]
    for kind, names in (("unet", ["network.kind", "network.norm"]), ("attention_unet", ["network.kind"])):
        trial = optuna.trial.FixedTrial({"network.kind": kind, "network.norm": "batch"})
        assert sorted(space.suggest(trial, FLAT)) == names


def test_values_reach_the_recipe_by_their_dotted_names() -> None:
    space = SearchSpace.checked(
        {"prepare.spacing_mm.2": {"low": 5, "high": 10}, "patch.size": [[16, 16, 16]], "augment": ["none"]},
        FLAT,
    )
    values = {"prepare.spacing_mm.2": 6.0, "patch.size": [16, 16, 16], "augment": "none"}
    changed = space.applied(FLAT, values)
    assert changed.prepare.spacing_mm == (8.0, 8.0, 6.0)
    assert changed.patch.size == (16, 16, 16)
    assert changed.augment.probability == 0
    assert (
        changed.model_copy(update={"prepare": FLAT.prepare, "patch": FLAT.patch, "augment": FLAT.augment})
        == FLAT
    )


def test_an_invalid_combination_is_no_error_of_the_space() -> None:
    # With three resolutions each number of a patch is a multiple of 4: 18 fits no trial with this network.
    space = SearchSpace.checked({"patch.size": [[16, 24, 16], [18, 24, 16]]}, FLAT)
    with pytest.raises(UsageError, match="must be a multiple of 4") as caught:
        space.applied(FLAT, {"patch.size": [18, 24, 16]})
    assert caught.value.reason == "recipe-field"


def test_the_recipes_own_values_are_known_as_far_as_they_lie_in_the_space() -> None:
    data = {
        "train.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},  # tiny: 1e-3
        "train.batch_size": {"low": 4, "high": 8},  # tiny: 2
        "train.weight_decay": {"low": 0, "high": 1e-3, "step": 1e-4},  # tiny: 1e-4
        "network.widths": [[4, 8, 8], [8, 8, 8]],
        "network.norm": ["batch"],  # tiny: instance
    }
    assert SearchSpace.checked(data, FLAT).start(FLAT) == {
        "train.learning_rate": 1e-3,
        "train.weight_decay": 1e-4,
        "network.widths": "[4, 8, 8]",
    }


def test_optimiser_and_schedule_are_searched_from_their_defaults() -> None:
    # adamw is the default, which a recipe's YAML leaves out.
    data = {"train.optimizer": ["adamw", "sgd"], "train.schedule": ["cosine", "poly_epoch"]}
    space = SearchSpace.checked(data, FLAT)
    assert space.start(FLAT) == {"train.optimizer": "adamw", "train.schedule": "cosine"}
    changed = space.applied(FLAT, {"train.optimizer": "sgd", "train.schedule": "poly_epoch"})
    assert (changed.train.optimizer, changed.train.schedule) == ("sgd", "poly_epoch")
    assert space.applied(changed, {"train.optimizer": "adamw", "train.schedule": "cosine"}) == FLAT


def test_equal_spaces_have_equal_digests_in_any_order() -> None:
    one, other = (
        {"train.batch_size": [1, 2], "train.epochs": [3]},
        {"train.epochs": [3], "train.batch_size": [1, 2]},
    )
    assert SearchSpace.checked(one, FLAT).digest == SearchSpace.checked(other, FLAT).digest
    assert SearchSpace.checked({"train.epochs": [3, 4]}, FLAT).digest != SearchSpace.checked(one, FLAT).digest


@pytest.mark.parametrize("name", list_recipes())
def test_every_shipped_recipe_has_a_default_space(name: str) -> None:
    recipe = Recipe.read(name)
    assert "train.learning_rate" in default_space(recipe).start(recipe)
    assert set(default_space(recipe, quick=True).parameters) == {"train.learning_rate", "augment"}


def test_fields_are_found_in_every_kind_of_section() -> None:
    fields = RecipeFields()
    names = fields.names()
    assert {"train.learning_rate", "network.units", "network.widths", "loss.gamma", "patch.size"} <= set(
        names
    )
    assert not any(name.split(".")[0] in ("labels", "channels", "pipeline") for name in names)
    assert not fields.at("network.units", FLAT.model_dump(mode="json"))
    assert fields.at("network.widths.1")
    assert not fields.at("network.widths.x")
    assert fields.kind_fields("loss", "bce") == {"kind", "class_weights"}
