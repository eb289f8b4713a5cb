from __future__ import annotations

import json

import pytest
import yaml
from pydantic import ValidationError
from support.worlds import tiny

from medseg.errors import UsageError
from medseg.recipe import Recipe, Train, list_recipes

SHIPPED = list_recipes()


def changed(**parts: object) -> dict:
    """A valid recipe as plain data, with some sections changed."""
    data = yaml.safe_load(Recipe.read("lung_ct_3d").yaml())
    for name, value in parts.items():
        data[name] = {**data[name], **value} if isinstance(value, dict) else value
    return data


def test_the_documented_recipes_are_shipped():
    assert {"lung_ct_2d", "lung_ct_3d", "hippocampus_mr_3d"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes_survive_yaml_and_json(name):
    recipe = Recipe.read(name)
    assert recipe.name == name
    assert Recipe.parse(recipe.yaml()) == recipe
    assert Recipe.parse(recipe.model_dump_json()) == recipe
    assert Recipe.parse(recipe.yaml()).digest == recipe.digest


def test_yaml_exponents_without_a_dot_are_numbers():
    # PyYAML reads `1e-4` as text; the recipe must not.
    text = Recipe.read("lung_ct_3d").yaml() + "\n"
    text = text.replace("weight_decay: 0.0001", "weight_decay: 1e-4")
    assert "1e-4" in text
    assert Recipe.parse(text).train.weight_decay == pytest.approx(0.0001)


def test_the_digest_ignores_key_order_and_detects_every_change():
    data = changed()
    reordered = dict(reversed(list(data.items())))
    assert Recipe.checked(data).digest == Recipe.checked(reordered).digest
    other = changed(predict={"threshold": 0.4})
    assert Recipe.checked(data).digest != Recipe.checked(other).digest


def test_the_error_of_an_invalid_patch_size_names_valid_sizes():
    # Five widths are four poolings: multiples of 2^4 = 16.
    with pytest.raises(UsageError, match=r"multiple of 16, such as \[64, 48, 64\] or \[64, 64, 64\]"):
        Recipe.checked(changed(patch={"size": [64, 50, 64]}))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"surprise": 1}, "surprise"),
        ({"train": {"epochs": 0}}, r"train\.epochs"),
        ({"train": {"learning_rate": float("nan")}}, r"train\.learning_rate"),
        ({"predict": {"overlap": 0.99}}, r"predict\.overlap"),
        ({"name": "no spaces"}, "name"),
        ({"labels": []}, "labels"),
        ({"labels": [{"name": "a", "values": [0]}]}, "values"),
        ({"labels": [{"name": "a", "values": [1]}, {"name": "b", "values": [1]}]}, "same written value"),
        ({"labels": [{"name": "a", "values": [1]}, {"name": "a", "values": [2]}]}, "same name"),
        ({"prepare": {"intensity": {"kind": "zscore"}}}, "absolute unit"),
        ({"prepare": {"intensity": {"kind": "window", "low_hu": 5, "high_hu": 5}}}, "must be below"),
        ({"modality": "MR", "prepare": {"intensity": {"kind": "percentile", "low": 9, "high": 2}}}, "below"),
        ({"patch": {"neighbours": 1}}, "neighbours are for 2D"),
        ({"patch": {"size": [16, 16, 16]}}, "make at least one number 32 or more"),
    ],
)
def test_the_error_of_an_invalid_recipe_names_the_field(parts, message):
    with pytest.raises(UsageError, match=message) as caught:
        Recipe.checked(changed(**parts), where="mine.yaml")
    assert str(caught.value).startswith("mine.yaml:")
    assert len(str(caught.value).splitlines()) <= 3


def test_whole_planes_need_a_2d_network_whose_output_does_not_depend_on_the_size():
    flat = {"patch": {"size": [32, 32]}, "network": {"norm": "batch"}, "predict": {"whole_planes": True}}
    assert tiny(dims=2, **flat).predict.whole_planes
    with pytest.raises(UsageError, match=r"needs network\.norm batch or none: with norm instance"):
        tiny(dims=2, **flat | {"network": {"norm": "instance"}})
    with pytest.raises(UsageError, match="two numbers"):
        tiny(network={"norm": "batch"}, predict={"whole_planes": True})


def test_labels_with_a_side_but_no_partner_forbid_flips_across_the_midline():
    labels = [
        {"name": "right_lung", "values": [1], "side": "right"},
        {"name": "left_kidney", "values": [2], "side": "left"},
    ]
    with pytest.raises(UsageError, match="exchange the sides"):
        Recipe.checked(changed(labels=labels, augment={"flip_axes": [0]}))
    assert Recipe.checked(changed(labels=labels, augment={"flip_axes": [1, 2]})).augment.flip_axes == (1, 2)


def test_input_channels_are_scan_channels_times_slices():
    recipe = Recipe.read("lung_ct_2d")
    assert (recipe.spatial_dims, recipe.in_channels) == (2, 1 * 3)


def test_the_error_of_an_unknown_recipe_names_the_shipped_ones(tmp_path):
    with pytest.raises(UsageError, match="lung_ct_2d"):
        Recipe.read(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    with pytest.raises(UsageError, match="not valid YAML"):
        Recipe.read(broken)


def test_recipe_files_are_read(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(Recipe.read("lung_ct_2d").yaml())
    assert Recipe.read(path) == Recipe.read("lung_ct_2d")


def test_the_json_schema_covers_the_shipped_recipes():
    schema = Recipe.json_schema()
    assert json.loads(json.dumps(schema)) == schema
    for name in SHIPPED:
        assert set(json.loads(Recipe.read(name).model_dump_json())) <= set(schema["properties"])


DIVIDED = (
    {"name": "right_lung", "values": [1], "side": "right"},
    {"name": "left_lung", "values": [2], "side": "left"},
)


def test_a_label_is_divided_into_its_two_sides():
    recipe = tiny(labels=[{"name": "lungs", "values": [1, 2]}], postprocess={"divide": list(DIVIDED)})
    assert [label.name for label in recipe.painted] == ["right_lung", "left_lung"]
    assert tiny().painted == tiny().labels
    assert Recipe.checked(yaml.safe_load(recipe.yaml())) == recipe


@pytest.mark.parametrize(
    ("labels", "divide", "message"),
    [
        ([("a", [1]), ("b", [2])], DIVIDED, "needs exactly one label, but there are 2"),
        ([("lungs", [1, 2])], DIVIDED[::-1], "with side right and left, in this order"),
        ([("lungs", [1, 3])], DIVIDED, "must be the same"),
    ],
)
def test_labels_that_cannot_be_divided_are_refused(labels, divide, message):
    with pytest.raises(UsageError, match=message):
        tiny(labels=[{"name": n, "values": v} for n, v in labels], postprocess={"divide": list(divide)})


def test_the_json_schema_knows_the_preset_of_a_schedule():
    """Without a preset the numbers without a default are needed; optimiser and schedule may be chosen."""
    checker = pytest.importorskip("jsonschema").Draft202012Validator(Recipe.json_schema())
    good = tiny().model_dump(mode="json")
    numbers = {"epochs": 2, "steps_per_epoch": 2, "batch_size": 1}
    for train in (
        {"preset": "nnunet"},
        {"preset": "nnunet", "epochs": 5},
        numbers,
        numbers | {"optimizer": "sgd", "schedule": "poly_epoch"},
    ):
        assert checker.is_valid(good | {"train": train})
        Recipe.checked(good | {"train": train})
    for train in ({"preset": "other"}, {"epochs": 5}, numbers | {"optimizer": "adam"}, {}):
        assert not checker.is_valid(good | {"train": train})
        with pytest.raises(UsageError):
            Recipe.checked(good | {"train": train})


def test_the_preset_of_a_schedule_is_replaced_by_its_numbers():
    schedule = Train.model_validate({"preset": "nnunet", "batch_size": 4, "epochs": 200})
    assert (schedule.epochs, schedule.steps_per_epoch, schedule.batch_size) == (200, 250, 4)
    assert (schedule.optimizer, schedule.learning_rate, schedule.schedule) == ("sgd", 0.01, "poly_epoch")
    assert Train.model_validate(schedule.model_dump()) == schedule
    with pytest.raises(ValidationError, match="the only one is nnunet"):
        Train.model_validate({"preset": "other"})


def test_recipes_without_an_optimizer_keep_their_digest():
    assert "optimizer" not in Recipe.read("lung_ct").yaml()
