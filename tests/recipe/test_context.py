"""A recipe's section ``context``."""

import pytest
import yaml

from medseg.datasets.manifest import Case
from medseg.errors import UsageError
from medseg.networks import build
from medseg.networks.two_stage import TwoStage
from medseg.recipe import Recipe
from medseg.training.trainer import train
from tests.support.contexts import CONTEXT
from tests.support.worlds import tiny


def test_the_fine_network_has_an_input_channel_per_label_of_the_coarse_one():
    recipe = tiny(**CONTEXT)
    assert recipe.in_channels == 3  # the scan, right, left
    network = build(recipe)
    assert isinstance(network, TwoStage)
    assert network.coarse.stem.conv_0.conv.in_channels == 1
    assert network.fine.stem.conv_0.conv.in_channels == 3


def test_the_names_of_weights_begin_with_coarse_or_fine():
    assert {name.split(".")[0] for name in build(tiny(**CONTEXT)).state_dict()} == {"coarse", "fine"}


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"loss": {"kind": "dice_bce"}}, "dice_ce"),
        ({"context": {"size": [15, 16, 16], "network": {"kind": "unet", "widths": [4, 8]}}}, "multiple of 2"),
        ({"labels": [{"name": "lungs", "values": [1]}]}, "side right and left"),
    ],
)
def test_recipes_that_a_context_does_not_fit_are_refused(changed, problem):
    with pytest.raises(UsageError, match=problem):
        tiny(**{**CONTEXT, **changed})


def test_medseg_train_refuses_a_recipe_with_a_context(tmp_path):
    case = Case(id="one", images=("one.nii.gz",), label="one_lungs.nii.gz", split="train")
    with pytest.raises(UsageError) as caught:
        train(tiny(**CONTEXT), [case], tmp_path / "run")
    assert caught.value.reason == "context"


def test_a_2d_recipe_cannot_have_a_context():
    with pytest.raises(UsageError, match="3D patch"):
        tiny(2, **CONTEXT)


# Digests of the shipped recipes at the commit before the section `context` was added.
DIGESTS = {
    "hippocampus_dynunet_3d": "bf89bb5a4b31baeca29f0bea0edf2d74160000fb99ddeaf3d58f4c168e859e80",
    "hippocampus_mr_3d": "ce449fd7a6b846ff35f849291f82b0512ef8d2d6c4f52fc798da5967298a78d3",
    "lung_ct": "bc06b90a7cef7d373d5308153725d67d64cedfd4258b0dd4dec756a8ef3794b5",
    "lung_ct_2d": "d53aa1299e0b3a16f96992259051d1438e920b2010f5ea2638e75e916c8c14f8",
    "lung_ct_3d": "18f40e971120db9f0f0c944bf148a3674eec7d36289db6462bacac32404ae69d",
    "lung_nodule_ct_3d": "7c3468016b1ce502ee6652d30cb6a4b27dd8ddfa3c6342be17bb0dd79b810497",
    "lung_tumour_ct_3d": "cd8cd108ef41151c413dde736336b18d20c13a1174ce6dfa1b3a01b5b595809a",
    "phantom_lungs": "966434c9dba8000caee9f9576316ecfbe733bdc35c3d401699e633b4547181a7",
    "sarcoma_mr_3d": "2bf097e3b9de6ac3e454f8c925b5c55ea8b4e9528192704c9d6af5fb7d383a17",
}


@pytest.mark.parametrize("name", DIGESTS)
def test_recipes_without_a_context_keep_their_digest_and_yaml(name):
    recipe = Recipe.read(name)
    assert recipe.digest == DIGESTS[name]
    assert "context" not in yaml.safe_load(recipe.yaml())
    assert Recipe.parse(recipe.yaml()) == recipe


def test_a_context_is_written_and_read_back():
    recipe = tiny(**CONTEXT)
    assert yaml.safe_load(recipe.yaml())["context"]["size"] == [16, 16, 16]
    assert Recipe.parse(recipe.yaml()) == recipe
    assert recipe.digest != tiny(labels=CONTEXT["labels"], loss=CONTEXT["loss"]).digest
