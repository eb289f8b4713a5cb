"""Exported bundles against MONAI's own programs, and through medseg's import."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import monai.bundle
import numpy as np
import pytest
import torch
from monai.bundle import verify_metadata, verify_net_in_out
from support.bundles import NETWORK, bundle, configuration, settle
from support.commands import invoke
from support.contexts import CONTEXT
from support.packages import refusal
from support.worlds import tiny, untrained

import medseg
from medseg.errors import UsageError
from medseg.inference.bundle_description import SCHEMA
from medseg.inference.model import Model
from medseg.networks import build
from medseg.phantom.thorax import Thorax, default_grid
from medseg.recipe import Recipe

pytestmark = pytest.mark.filterwarnings("ignore")
SAID = {
    "kind": "bundle",
    "orientation": "RAS",
    "spacing_mm": [5, 6, 7],
    "intensity": [{"kind": "range", "low": -900, "high": 300, "to_low": 0, "to_high": 1, "clip": True}],
    "overlap": 0.5,
    "gaussian": 0.125,
}


def recipe(network, **pipeline) -> Recipe:
    """A recipe that MONAI's transforms can say."""
    plain = {"labels": [{"name": "lung", "values": [1]}, {"name": "heart", "values": [2]}]}
    plain |= {"loss": {"kind": "dice_ce"}, "patch": {"size": [32, 32, 16]}}
    base = tiny(**plain, prepare={"crop": None}).model_dump(mode="json")
    return Recipe.checked({**base, "network": network, "pipeline": {**SAID, **pipeline}})


def settled(made: Recipe) -> Model:
    """A model whose classes each win somewhere."""
    torch.manual_seed(0)
    network = build(made)
    settle(network)
    return Model(made, (network.state_dict(),))


UNETS = {
    "residual_unet": {"kind": "residual_unet", "widths": [4, 8, 8], "units": 2, "norm": "instance"},
    "unet": {"kind": "unet", "widths": [4, 8, 8], "norm": "batch"},
}


@pytest.fixture
def scan(tmp_path):
    """A phantom whose axes are stored in another order and direction than RAS."""
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "scan.nii.gz"
    medseg.write(Thorax.random(4).scan(default_grid((5.5, 5.0, 8.0), "ALS")), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", UNETS)
def test_monai_runs_it_with_the_mask_of_medseg(tmp_path, scan, kind):
    model = settled(recipe(UNETS[kind])).save(tmp_path / "model.safetensors")
    folder = medseg.export_bundle(model, tmp_path / "bundle")
    if kind == "unet":
        command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
        command += ["--dataset_dir", str(scan.parent)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    else:  # the same function without another start of MONAI
        config = str(folder / "configs" / "inference.json")
        monai.bundle.run(config_file=config, bundle_root=str(folder), dataset_dir=str(scan.parent))
    theirs = medseg.read_mask(folder / "eval" / "scan_seg.nii.gz", ())
    ours = medseg.segment(medseg.read(scan), model=model, engine="torch")
    assert theirs.grid.mismatch(ours.grid) is None
    assert {0, 1, 2} <= set(np.unique(ours.array))
    assert np.count_nonzero(np.asarray(theirs.array) != ours.array) == 0


@pytest.mark.parametrize(
    "network",
    [
        *UNETS.values(),
        {"kind": "residual_unet", "widths": [4, 8], "units": 1, "norm": "batch"},
        {"kind": "attention_unet", "widths": [4, 8]},
        {"kind": "segresnet", "filters": 8, "blocks": [1, 1]},
        {"kind": "dynunet", "widths": [4, 8, 8], "deep_supervision": [1.0, 0.5]},
    ],
    ids=lambda network: network["kind"],
)
def test_monai_verifies_network_and_metadata(tmp_path, network, caplog):
    model = untrained(recipe(network)).save(tmp_path / "model.safetensors")
    folder = medseg.export_bundle(model, tmp_path / "bundle", licence="CC BY 4.0")
    configs = folder / "configs"
    files = {"meta_file": str(configs / "metadata.json"), "config_file": str(configs / "inference.json")}
    verify_net_in_out("network_def", **files, device="cpu", bundle_root=str(folder))
    # MONAI downloads its schema unless the file is there. This one has the fields that MONAI's
    # specification of bundles calls mandatory; its own schema is not part of its package.
    needed = "version monai_version pytorch_version numpy_version required_packages_version task description "
    needed += "authors copyright network_data_format"
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "object", "required": needed.split()}))
    with caplog.at_level(logging.INFO):
        verify_metadata(meta_file=files["meta_file"], filepath=str(schema))
    content = json.loads((configs / "metadata.json").read_text())
    assert content["schema"] == SCHEMA
    assert "CC BY 4.0" in content["copyright"]


@pytest.mark.parametrize(
    "pipeline",
    [
        {},
        {"restored": "logits", "nearest": True, "gaussian": None, "fill": -1.0},
        {"orientation": None, "spacing_mm": None, "intensity": [{"kind": "zscore", "nonzero": True}]},
    ],
)
def test_the_way_back_gives_the_same_recipe_and_weights(tmp_path, pipeline):
    made = untrained(recipe(UNETS["residual_unet"], **pipeline))
    folder = medseg.export_bundle(made.save(tmp_path / "model.safetensors"), tmp_path / "bundle")
    back = medseg.import_model(folder, output=tmp_path / "back.safetensors")
    assert back.recipe.pipeline == made.recipe.pipeline
    assert back.recipe.network == made.recipe.network
    assert back.recipe.patch == made.recipe.patch
    assert [label.name for label in back.recipe.labels] == ["lung", "heart"]
    assert back.fold_digests() == made.fold_digests()


def test_an_imported_bundle_is_exported_as_it_was(tmp_path):
    source = bundle(tmp_path, configuration())
    medseg.import_model(source, output=tmp_path / "model.safetensors")
    folder = medseg.export_bundle(tmp_path / "model.safetensors", tmp_path / "bundle")
    content = json.loads((folder / "configs" / "inference.json").read_text())
    assert content["network_def"] == {**NETWORK, "norm": "BATCH", "dropout": 0.0}
    before, after = (torch.load(each / "models" / "model.pt") for each in (source, folder))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_monai_cannot_say_is_refused_by_name(tmp_path):
    said = recipe(UNETS["residual_unet"]).model_dump(mode="json")
    refused = {
        "medseg's own": tiny(),
        "way it prepares scans": tiny(**CONTEXT),
        "is cleaned afterwards": Recipe.checked(
            {**said, "postprocess": {"steps": [{"labels": ["lung"], "keep_components": 1}]}}
        ),
        "not 1, 2, 3": Recipe.checked(
            {**said, "labels": [{"name": "lung", "values": [2]}, {"name": "heart", "values": [1]}]}
        ),
    }
    for number, (words, each) in enumerate(refused.items()):
        model = untrained(each).save(tmp_path / f"{number}.safetensors")
        error = refusal(UsageError, "export-format", medseg.export_bundle, model, tmp_path / "bundle")
        assert words in str(error)
        assert each.name in str(error)
    assert not (tmp_path / "bundle").exists()


def test_folders_with_files_are_kept(tmp_path):
    model = untrained(recipe(UNETS["residual_unet"])).save(tmp_path / "model.safetensors")
    (tmp_path / "bundle").mkdir()
    out, _ = invoke("export", model, "--format", "monai-bundle", "-o", tmp_path / "bundle")
    assert "python -m monai.bundle run" in out
    refusal(UsageError, "foreign-file", medseg.export_bundle, model, tmp_path / "bundle")
