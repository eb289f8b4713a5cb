"""Bundles of MONAI: masks against MONAI's own classes, and everything unknown refused by name."""

from __future__ import annotations

import copy
import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
from monai.networks import nets
from support.bundles import METADATA, NETWORK, bundle, configuration, mask_of_monai, step
from support.commands import invoke
from support.foreign_models import zipped

import medseg
from medseg.errors import ModelRefused, UsageError
from medseg.phantom.thorax import Thorax, default_grid

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A phantom whose axes are stored in another order and direction than RAS."""
    path = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    medseg.write(Thorax.random(4).scan(default_grid((5.5, 5.0, 8.0), "ALS")), path)
    return path


def compared(tmp_path, scan, config, network, metadata=METADATA):
    """Number of voxels in which medseg and MONAI differ, and MONAI's mask."""
    folder = bundle(tmp_path, config, network, metadata)
    medseg.import_model(folder, output=tmp_path / "m.safetensors")
    mask = medseg.segment(scan, model=tmp_path / "m.safetensors", engine="torch")
    truth = mask_of_monai(config, network, scan)
    assert mask.array.shape == truth.shape
    return np.count_nonzero(np.asarray(mask.array) != truth), truth


def changed(section, number, **arguments):
    """The configuration with other arguments of one transform."""
    config = copy.deepcopy(configuration())
    config[section]["transforms"][number] |= arguments
    return config


def without(section, *names):
    config = copy.deepcopy(configuration())
    config[section]["transforms"] = [e for e in config[section]["transforms"] if e["_target_"] not in names]
    return config


def reordered(*numbers, **arguments):
    config = changed("postprocessing", 1, **arguments)
    steps = config["postprocessing"]["transforms"]
    config["postprocessing"]["transforms"] = [steps[number] for number in numbers]
    return config


def zscore(config, *, nonzero):
    config[PRE]["transforms"][-2] = step("NormalizeIntensityd", nonzero=nonzero, channel_wise=nonzero)
    return config


PRE, POST = "preprocessing", "postprocessing"
GAUSSIAN = configuration(
    inferer={"_target_": "monai.inferers.SlidingWindowInferer", "roi_size": 32, "mode": "gaussian"}
)
CASES = {
    "zoo": configuration(),
    "gaussian": GAUSSIAN,
    "larger_windows": configuration(
        inferer={"_target_": "SlidingWindowInferer", "roi_size": [96, 24, 100], "overlap": 0.25}
    ),
    "stored_orientation": without("preprocessing", "Orientationd"),
    "lps": changed("preprocessing", 2, axcodes="LPS"),
    "scans_spacing": without("preprocessing", "Spacingd"),
    "finer": changed("preprocessing", 3, pixdim=[4.0, 7.5, 6.0]),
    "zscore": zscore(configuration(), nonzero=False),
    # Interpolated values that are 0 here are 1e-9 there, and count as voxels: on the scan's grid none are.
    "zscore_nonzero": zscore(without("preprocessing", "Spacingd"), nonzero=True),
    "logits": reordered(1, 0, 2, 3),
}


@pytest.mark.parametrize("case", CASES)
def test_masks_are_those_of_monai(case, tmp_path, scan):
    torch.manual_seed(0)
    network = nets.UNet(**{name: value for name, value in NETWORK.items() if name != "_target_"})
    differ, truth = compared(tmp_path, scan, CASES[case], network)
    assert len(np.unique(truth)) == 3
    # Sums in another order: two of 100,000 voxels may tie.
    assert differ <= 2


NETWORKS = {
    "instance": (nets.UNet, {**NETWORK, "norm": "INSTANCE"}),
    "segresnet": (
        nets.SegResNet,
        {"_target_": "SegResNet", "spatial_dims": 3, "init_filters": 8, "in_channels": 1, "out_channels": 3,
         "blocks_down": [1, 1, 1], "blocks_up": [1, 1]},
    ),
    "dynunet": (
        nets.DynUNet,
        {"_target_": "DynUNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3,
         "kernel_size": [3, 3, 3],
         "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4, 8, 8], "norm_name": "instance"},
    ),
    "attention": (
        nets.AttentionUnet,
        {"_target_": "monai.networks.nets.AttentionUnet", "spatial_dims": 3, "in_channels": 1,
         "out_channels": 3,
         "channels": [4, 8, 8], "strides": [2, 2]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NETWORKS)
def test_networks_of_the_table_are_imported(case, tmp_path, scan):
    kind, definition = NETWORKS[case]
    torch.manual_seed(1)
    network = kind(**{name: value for name, value in definition.items() if name != "_target_"})
    differ, truth = compared(tmp_path, scan, configuration(network_def=definition), network)
    assert len(np.unique(truth)) > 1
    assert differ <= 2


@pytest.mark.parametrize(
    ("kind", "definition"),
    [(nets.UNet, NETWORK), *NETWORKS.values()],
    ids=["unet", *NETWORKS],
)
def test_logits_are_those_of_monais_own_class(kind, definition, tmp_path):
    torch.manual_seed(2)
    network = kind(**{name: value for name, value in definition.items() if name != "_target_"}).eval()
    model = medseg.import_model(bundle(tmp_path, configuration(network_def=definition), network, METADATA))
    image = torch.randn(1, 1, 64, 32, 32)
    with torch.inference_mode():
        expected = network(image)
        assert torch.equal(model.networks()[0].eval()(image), expected)
    assert expected.std() > 0


def test_one_label_with_a_threshold(tmp_path, scan):
    definition = NETWORK | {"out_channels": 1}
    config = configuration(network_def=definition)
    config["postprocessing"]["transforms"][0] = step("Activationsd", "pred", sigmoid=True)
    config["postprocessing"]["transforms"][2] = step("AsDiscreted", "pred", threshold=0.5)
    metadata = copy.deepcopy(METADATA)
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = {"0": "background", "1": "spleen"}
    torch.manual_seed(2)
    network = nets.UNet(**{name: value for name, value in definition.items() if name != "_target_"})
    differ, truth = compared(tmp_path, scan, config, network, metadata)
    assert 0 < truth.mean() < 1
    assert differ <= 2
    assert [label.name for label in medseg.load_model(tmp_path / "m.safetensors").recipe.labels] == ["spleen"]


def test_a_zip_gives_the_same_model_and_says_where_it_is_from(tmp_path):
    folder = bundle(tmp_path)
    out, _ = invoke("import-model", folder, "-o", tmp_path / "m.safetensors")
    model = medseg.load_model(tmp_path / "m.safetensors")
    assert model.digest[:12] in out
    assert medseg.import_model(zipped(folder, tmp_path / "b.zip")).digest == model.digest
    assert (model.recipe.name, model.recipe.modality) == ("tiny_organs", "CT")
    facts = model.provenance["imported_from"]
    assert (facts["tool"], facts["parts"][0]["version"]) == ("MONAI bundle", "0.1.0")
    with pytest.raises(UsageError):
        medseg.import_model(folder, folds=[0])


def test_yaml_references_and_literals_are_read(tmp_path):
    config = configuration(low="$-900", steps={"window": [32, 24, 16]})
    config["preprocessing"]["transforms"][4]["a_min"] = "@low"
    config["inferer"]["roi_size"] = "$@steps::window"
    folder = bundle(tmp_path, config)
    plain = medseg.import_model(folder)
    assert plain.recipe.pipeline.intensity[0].low == -900
    assert plain.recipe.patch.size == (32, 24, 16)
    (folder / "configs" / "inference.json").rename(folder / "configs" / "inference.yaml")  # JSON is YAML
    assert medseg.import_model(folder).recipe == plain.recipe


def turned_late():
    config = configuration()
    steps = config[PRE]["transforms"]
    steps[2], steps[3] = steps[3], steps[2]
    return config


REFUSED = {
    "transform": (changed(PRE, 4, _target_="RandFlipd"), "RandFlipd"),
    "foreign": (changed(PRE, 4, _target_="os.system"), "os.system"),
    "crop": (changed(PRE, 4, _target_="CropForegroundd"), "CropForegroundd"),
    "expression": (changed(PRE, 4, a_min="$__import__('os').system('touch hacked')"), "expression"),
    "macro": (changed(PRE, 4, a_min="%other.json::a"), "expression"),
    "argument": (changed(PRE, 3, min_pixdim=1), "min_pixdim"),
    "circle": (configuration(low="@low", inferer="@inferer"), "inferer"),
    "nowhere": (changed(PRE, 4, a_min="@missing"), "missing"),
    "order": (turned_late(), "Orientationd after Spacingd"),
    "labels_interpolated": (reordered(0, 2, 1), "Invertd"),
    "not_on_the_scan": (reordered(0, 2), "Invertd"),
    "onehot": (changed(POST, 2, to_onehot=3), "argmax"),
    "largest": (
        changed(POST, 3, _target_="KeepLargestConnectedComponentd"),
        "KeepLargestConnectedComponentd",
    ),
    "inferer": (configuration(inferer={"_target_": "SimpleInferer"}), "SimpleInferer"),
    "network": (configuration(network_def=NETWORK | {"_target_": "VNet"}), "VNet"),
    "strides": (configuration(network_def=NETWORK | {"strides": [2, 1]}), "strides"),
    "two_dimensions": (configuration(network_def=NETWORK | {"spatial_dims": 2}), "spatial_dims"),
    "called": (configuration(network_def=NETWORK | {"_mode_": "callable"}), "_mode_"),
    "overlapping": (reordered(0, 1, 2), "threshold"),
    "type": (changed(PRE, 3, pixdim="far"), "spacing_mm"),
}
REFUSED["overlapping"][0][POST]["transforms"][0] = step("Activationsd", "pred", sigmoid=True)
REFUSED["overlapping"][0][POST]["transforms"][2] = step("AsDiscreted", "pred", threshold=0.5)


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_supported_is_refused_by_name_and_not_evaluated(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config, named = REFUSED[case]
    folder = bundle(tmp_path, config)
    with pytest.raises(ModelRefused) as caught:
        medseg.import_model(folder)
    assert caught.value.reason == "import-plans"
    assert named in str(caught.value)
    assert not (tmp_path / "hacked").exists()


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_hostile_files_have_no_effect(tmp_path):
    folder = bundle(tmp_path)
    hacked, weights = tmp_path / "hacked", folder / "models" / "model.pt"
    whole = weights.read_bytes()
    torch.save({"model": Touch(hacked)}, weights)
    for content, reason in (
        (weights.read_bytes(), "checkpoint-unsafe"),
        (pickle.dumps(Touch(hacked), protocol=2), "checkpoint-unsafe"),
        (whole[:-200], "checkpoint-archive"),
    ):
        weights.write_bytes(content)
        with pytest.raises(ModelRefused) as caught:
            medseg.import_model(folder)
        assert caught.value.reason == reason
    weights.write_bytes(whole)
    with zipfile.ZipFile(zipped(folder, tmp_path / "b.zip"), "a") as file:
        file.writestr("tiny_bundle/configs/../../../hacked/metadata.json", "{}")
    with pytest.raises(ModelRefused) as caught:
        medseg.import_model(tmp_path / "b.zip")
    assert caught.value.reason == "import-archive"
    assert not hacked.exists()


def test_other_weights_and_a_missing_file_are_refused(tmp_path):
    folder = bundle(tmp_path)
    other = nets.UNet(
        spatial_dims=3, in_channels=1, out_channels=3, channels=[4, 8], strides=[2], num_res_units=2
    )
    torch.save(other.state_dict(), folder / "models" / "model.pt")
    with pytest.raises(ModelRefused) as caught:
        medseg.import_model(folder)
    assert caught.value.reason == "weights"
    (folder / "models" / "model.pt").rename(folder / "models" / "model.ts")
    with pytest.raises(ModelRefused, match=r"model\.pt"):
        medseg.import_model(folder)


def test_every_value_of_a_configuration_may_be_of_another_type(tmp_path):
    folder = bundle(tmp_path)
    path, refused = folder / "configs" / "inference.json", set()
    for section in (PRE, POST):
        for number, found in enumerate(configuration()[section]["transforms"]):
            for name in found:
                for value in (None, [], {"a": 1}, 1e400, "x", -1):
                    path.write_text(json.dumps(changed(section, number, **{name: value})))
                    try:
                        medseg.import_model(folder)
                    except ModelRefused as error:
                        refused.add(error.reason)
    assert refused == {"import-plans"}
