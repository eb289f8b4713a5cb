"""Tiny bundles of MONAI, made with MONAI's own classes, and MONAI's own mask of a scan."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.networks.nets import UNet

NETWORK = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 3,
    "channels": [4, 8, 8],
    "strides": [2, 2],
    "num_res_units": 2,
    "norm": "batch",
}
METADATA = {
    "name": "Tiny organs",
    "version": "0.1.0",
    "network_data_format": {
        "inputs": {"image": {"type": "image", "format": "hounsfield", "modality": "CT", "num_channels": 1}},
        "outputs": {"pred": {"channel_def": {"0": "background", "1": "lung", "2": "heart"}}},
    },
}


def step(name: str, key: str = "@image_key", **arguments: Any) -> dict[str, Any]:
    """A transform of a configuration."""
    return {"_target_": name, "keys": key, **arguments}


def configuration(**changes: Any) -> dict[str, Any]:
    """``inference.json`` as MONAI's model zoo writes it, with expressions where they do not matter."""
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "image_key": "image",
        "output_dir": "$@bundle_root + '/eval'",
        "datalist": "$list(sorted(glob.glob(@bundle_root + '/*.nii.gz')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": NETWORK,
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                step("LoadImaged"),
                step("EnsureChannelFirstd"),
                step("Orientationd", axcodes="RAS"),
                step("Spacingd", pixdim=[5.0, 6.0, 7.0], mode="bilinear"),
                step("ScaleIntensityRanged", a_min=-900, a_max=300, b_min=0, b_max=1, clip=True),
                step("EnsureTyped"),
            ],
        },
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": [32, 24, 16],
            "sw_batch_size": 4,
            "overlap": 0.5,
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                step("Activationsd", "pred", softmax=True),
                step(
                    "Invertd",
                    "pred",
                    transform="@preprocessing",
                    orig_keys="@image_key",
                    nearest_interp=False,
                ),
                step("AsDiscreted", "pred", argmax=True),
                step("SaveImaged", "pred", output_dir="@output_dir", resample="$not True"),
            ],
        },
        **changes,
    }


def bundle(
    place: Path,
    config: dict[str, Any] | None = None,
    network: torch.nn.Module | None = None,
    metadata: dict[str, Any] | None = None,
) -> Path:
    """A bundle with random weights, whose batch statistics and last biases are not those of a new network."""
    config = config or configuration()
    if network is None:
        arguments = {name: value for name, value in NETWORK.items() if name != "_target_"}
        torch.manual_seed(0)
        network = UNet(**arguments)
    folder = place / "tiny_bundle"
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata or METADATA))
    settle(network)
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return folder


@torch.no_grad()
def settle(network: torch.nn.Module) -> None:
    """Gives a network batch statistics of noise, and biases by which each class wins somewhere."""
    noise = torch.nn.functional.interpolate(
        torch.rand(2, first_channels(network), 8, 8, 8), size=(32, 32, 32)
    )
    for _ in range(20):
        network.train()(noise)
    out = network.eval()(noise)
    last = [each for each in network.parameters() if each.shape == (out.shape[1],)][-1]
    last -= out.median(dim=2).values.median(dim=2).values.median(dim=2).values.mean(0)


def first_channels(network: torch.nn.Module) -> int:
    """Number of input channels."""
    return next(each.shape[1] for each in network.parameters() if each.ndim == 5)


def mask_of_monai(config: dict[str, Any], network: torch.nn.Module, scan: Path | list[Path]) -> np.ndarray:
    """The mask (X, Y, Z) of MONAI's own classes, on the scan's grid."""
    parts = copy.deepcopy(config)
    parts["postprocessing"]["transforms"] = [
        each for each in parts["postprocessing"]["transforms"] if each["_target_"] != "SaveImaged"
    ]
    kept = ("image_key", "preprocessing", "postprocessing", "inferer", "low")
    parser = ConfigParser({name: parts[name] for name in kept if name in parts})
    preprocessing = parser.get_parsed_content("preprocessing")
    case = preprocessing({"image": scan})
    with torch.inference_mode():
        case["pred"] = parser.get_parsed_content("inferer")(case["image"][None], network.eval())[0]
    mask = parser.get_parsed_content("postprocessing")(case)["pred"]
    return np.asarray(mask[0])
