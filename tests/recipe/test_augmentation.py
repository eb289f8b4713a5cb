from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from support.augmentation import OFF, checked, some
from support.worlds import tiny

from medseg import cli
from medseg.errors import UsageError
from medseg.inference.model import Model
from medseg.preprocessing.augmentation import augment
from medseg.recipe import Augment, Recipe
from medseg.recipe.augmentation import PRESETS

MR = {"modality": "MR", "prepare": {"spacing_mm": [8, 8, 10], "intensity": {"kind": "zscore"}}}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("dims", [2, 3])
def test_presets_become_numbers_at_once(name, dims):
    for base in (tiny(dims), tiny(dims, **MR)):
        made = checked(base, name)
        rules = yaml.safe_load(made.yaml())["augment"]
        assert set(rules) == set(Augment.model_fields) - {
            "kind",
            "larger_cut",
        }  # written only if not the default
        assert all(isinstance(value, (bool, int, float, list)) for value in rules.values())
        assert Recipe.parse(made.yaml()) == made
        assert Recipe.checked(yaml.safe_load(made.yaml())).digest == made.digest


def test_the_preset_none_changes_nothing():
    made = checked(tiny(), "none")
    assert made.augment.probability == 0
    assert augment(made).transforms == ()


def test_presets_of_ct_are_in_hu_and_without_artefacts_of_mr():
    # The window -1024..276 is 1300 HU wide: 50 / 1300 = 0.03846, 20 / 1300 = 0.01538.
    rules = checked(tiny(), "full").augment
    assert (rules.bias_field, rules.ghosting, rules.motion_mm) == (0, 0, 0)
    assert (rules.noise_sd, rules.brightness) == (0.03846, 0.01538)
    assert rules.clip
    light = checked(tiny(), "light").augment
    assert (light.bias_field, light.ghosting, light.motion_mm) == (0, 0, 0)


def test_presets_of_mr_have_them_and_follow_the_normalisation():
    rules = checked(tiny(3, **MR), "full").augment
    assert min(rules.bias_field, rules.ghosting, rules.motion_mm) > 0
    assert (rules.noise_sd, rules.clip) == (0.3, False)
    percentile = {"modality": "MR", "prepare": {"intensity": {"kind": "percentile"}}}
    other = checked(tiny(3, **percentile), "full").augment
    assert (other.noise_sd, other.clip) == (0.06, True)


@pytest.mark.parametrize("parts", [{}, MR], ids=["CT", "MR"])
def test_light_is_lighter_than_full(parts):
    light, full = (checked(tiny(3, **parts), name).augment.model_dump() for name in ("light", "full"))
    less = [f for f in light if isinstance(light[f], float) and light[f] < full[f]]
    assert {"rotate_degrees", "scale", "noise_sd", "gamma", "brightness", "contrast", "elastic_mm"} <= set(
        less
    )
    assert not [f for f in light if isinstance(light[f], float) and light[f] > full[f]]


def test_presets_flip_only_where_no_label_has_a_side():
    assert checked(tiny(), "full").augment.flip_axes == ()
    assert checked(tiny(labels=[{"name": "lungs", "values": [1]}]), "full").augment.flip_axes == (0,)


def test_recipes_from_before_mean_what_they_did():
    rules = Recipe.read("hippocampus_mr_3d").augment
    assert (rules.flip_axes, rules.rotate_degrees, rules.scale, rules.noise_sd) == ((0,), 15, 0.15, 0.1)
    assert (rules.gamma, rules.brightness, rules.contrast, rules.probability) == (0, 0.05, 0.1, 0.5)
    new = set(Augment.model_fields) - {*OFF, "kind", "flip_axes", "probability", "elastic_grid_mm"}
    assert not any(getattr(rules, field) for field in new)
    held = Model.load(Path(cli.__file__).parents[1] / "models" / "phantom_lungs.safetensors").recipe.augment
    assert (held.rotate_degrees, held.scale, held.probability) == (20, 0.15, 0.5)
    assert not any(getattr(held, field) for field in new)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"augment": "fulll"}, "augment is 'fulll': give none, light, full"),
        ({"patch": {"size": [32, 32]}, "augment": {"flip_axes": [2]}}, r"2 \(S-I\), an axis that 2D"),
        (
            {
                "labels": [{"name": "right_lung", "values": [1], "side": "right"}],
                "augment": {"flip_axes": [0]},
            },
            r"exchange the sides of \['right_lung'\]",
        ),
        ({"augment": {"rotate_degrees": 91}}, "would exchange right and left"),
        ({**MR, "augment": {"clip": True}}, "z-scores exceed"),
        ({"augment": {"elastic_mm": 9, "elastic_grid_mm": 20}}, "would fold the patch: at most 8"),
        ({"augment": {"ghosting": 1.1}}, r"augment\.ghosting"),
        ({"augment": "full", "modality": "PET"}, "modality"),
    ],
)
def test_impossible_rules_are_refused(parts, message):
    with pytest.raises(UsageError, match=message) as caught:
        tiny(**parts)
    assert caught.value.reason == "recipe-field"


def test_possible_augmentations_are_accepted():
    assert tiny(2, augment={"flip_axes": [0, 1]}).augment.flip_axes == (0, 1)
    one = {"labels": [{"name": "right_lung", "values": [1], "side": "right"}]}
    change = augment(tiny(3, **one, augment=OFF | {"flip_axes": [1]}))
    given = {"image": some(1, 16, 24, 16), "label": torch.ones(1, 16, 24, 16)}
    assert torch.equal(change(given)["label"], given["label"])
    whole = tiny(labels=[{"name": "lungs", "values": [1]}], augment={"rotate_degrees": 180})
    assert whole.augment.rotate_degrees == 180


def test_the_schema_knows_the_presets():
    schema = Recipe.json_schema()["properties"]["augment"]
    assert {"enum": [*PRESETS, "nnunet"]} in schema["anyOf"]


HEARTS = {"labels": [{"name": "heart", "values": [1]}]}


@pytest.mark.parametrize(
    ("size", "spacing_mm", "degrees", "flat"),
    [
        ([32, 32, 32], [1, 1, 1], 30, None),
        ([32, 32, 8], [1, 1, 4], 180, 2),
        ([8, 32, 32], [4, 1, 1], 180, 0),
        ([32, 32, 8], [4, 1, 1], 30, None),  # the patch is thin along an axis of small voxels
        ([32, 24], [1, 1, 4], 180, None),
        ([48, 24], [1, 1, 4], 15, None),
    ],
)
def test_the_preset_nnunet_follows_the_shape_of_the_patch(size, spacing_mm, degrees, flat):
    made = tiny(
        len(size), **HEARTS, prepare={"spacing_mm": spacing_mm}, patch={"size": size}, augment="nnunet"
    )
    assert made.augment.model_dump() == {
        "kind": "nnunet",
        "flip_axes": tuple(range(len(size))),
        "rotate_degrees": degrees,
        "flat_axis": flat,
    }
    assert Recipe.parse(made.yaml()) == made


def test_the_preset_of_the_training_brings_the_augmentation_unless_there_is_one():
    train = {"preset": "nnunet"}
    assert tiny(**HEARTS, train=train).augment.kind == "nnunet"
    assert tiny(**HEARTS, train=train, augment={"gamma": 0.1}).augment.kind == "medseg"
    assert tiny(**HEARTS, train=train, augment="none").augment.probability == 0
    sided = tiny(train=train).augment
    assert sided.flip_axes == (1, 2)  # an exchange of right and left would contradict the labels


def test_recipes_without_the_newer_fields_keep_their_text():
    text = tiny().yaml()
    for field in ("larger_cut", "kind: medseg", "forced_foreground", "batch_dice", "mean_hu"):
        assert field not in text
    assert "larger_cut: true" in checked(tiny(), {"larger_cut": True}).yaml()


def test_clipping_does_not_fit_ct_as_z_scores():
    hu = {"kind": "window", "low_hu": -900, "high_hu": 100, "mean_hu": -300.0, "sd_hu": 250.0}
    full = tiny(prepare={"intensity": hu}, augment="full").augment
    assert (full.clip, full.noise_sd) == (False, 0.2)  # 50 HU of 250
    with pytest.raises(UsageError, match="exceed that range"):
        tiny(prepare={"intensity": hu}, augment={"clip": True})
    with pytest.raises(UsageError, match="both mean_hu and sd_hu"):
        tiny(prepare={"intensity": {key: hu[key] for key in hu if key != "sd_hu"}})
