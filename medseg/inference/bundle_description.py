"""``metadata.json`` and ``inference.json`` of a MONAI bundle, from a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medseg.recipe import Recipe
from medseg.recipe.bundle_pipeline import BundlePipeline, BundleRange
from medseg.system.notices import RESEARCH
from medseg.system.own_version import own_version

SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
)
_FORMATS = {"CT": "hounsfield", "MR": "magnitude"}


def metadata(recipe: Recipe, *, versions: Mapping[str, str], licence: str, digest: str) -> dict[str, Any]:
    """The content of ``metadata.json``.

    Args:
        recipe: The recipe of the model.
        versions: Versions of monai, torch, numpy and nibabel.
        licence: Licence of the weights.
        digest: SHA-256 of the model file.
    """
    patch = {"type": "image", "spatial_shape": list(recipe.patch.size), "dtype": "float32"}
    names = [label.name for label in recipe.labels]
    channels = ["background", *names] if recipe.out_channels > len(names) else names
    image = {
        **patch,
        "format": _FORMATS.get(recipe.modality, "magnitude"),
        "modality": recipe.modality,
        "num_channels": recipe.in_channels,
        "value_range": [],
        "is_patch_data": True,
        "channel_def": {"0": "image"},
    }
    pred = {
        **patch,
        "format": "segmentation",
        "num_channels": recipe.out_channels,
        "value_range": [],
        "is_patch_data": True,
        "channel_def": {str(number): name for number, name in enumerate(channels)},
    }
    return {
        "schema": SCHEMA,
        "version": "1.0.0",
        "changelog": {"1.0.0": f"exported by medseg {own_version()} from the model {digest}"},
        "monai_version": versions["monai"],
        "pytorch_version": versions["torch"].partition("+")[0],
        "numpy_version": versions["numpy"],
        "required_packages_version": {"nibabel": versions["nibabel"], "pytorch-ignite": "0.4.11"},
        "name": recipe.name,
        "task": f"segmentation of {', '.join(names)}"[:200],
        "description": recipe.description or f"The model {recipe.name} of medseg.",
        "authors": "unknown",
        "copyright": f"licence of the weights: {licence}",
        "intended_use": RESEARCH,
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}},
    }


def inference_config(
    recipe: Recipe, rules: BundlePipeline, component: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The content of ``inference.json``.

    Args:
        recipe: The recipe of the model.
        rules: Its section ``pipeline``.
        component: The network as a class of MONAI; None: TorchScript in ``models/model.ts``.
    """
    scripted = "$torch.jit.load(@bundle_root + '/models/model.ts', map_location=@device)"
    loader = {
        "_target_": "CheckpointLoader",
        "load_path": "$@bundle_root + '/models/model.pt'",
        "load_dict": {"model": "@network"},
        "map_location": "@device",
    }
    return {
        "imports": ["$import glob", "$import numpy", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/data'",
        "output_dir": "$@bundle_root + '/eval'",
        "datalist": "$sorted(glob.glob(@dataset_dir + '/*.nii.gz'))",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": scripted if component is None else dict(component),
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": _preparation(rules)},
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': each} for each in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": _inferer(recipe, rules),
        "postprocessing": {"_target_": "Compose", "transforms": _decision(recipe, rules)},
        "handlers": [] if component is None else [loader],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "run": ["$@evaluator.run()"],
    }


def _step(name: str, keys: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": name, "keys": keys, **arguments}


def _preparation(rules: BundlePipeline) -> list[dict[str, Any]]:
    steps = [_step("LoadImaged", "image"), _step("EnsureChannelFirstd", "image")]
    if rules.orientation is not None:
        steps.append(_step("Orientationd", "image", axcodes=rules.orientation))
    if rules.spacing_mm is not None:
        steps.append(_step("Spacingd", "image", pixdim=list(rules.spacing_mm), mode="bilinear"))
    for each in rules.intensity:
        if isinstance(each, BundleRange):
            given = {"a_min": each.low, "a_max": each.high, "b_min": each.to_low, "b_max": each.to_high}
            steps.append(_step("ScaleIntensityRanged", "image", **given, clip=each.clip))
        else:
            given = {"nonzero": each.nonzero, "channel_wise": each.channel_wise}
            steps.append(_step("NormalizeIntensityd", "image", **given))
    return [*steps, _step("EnsureTyped", "image")]


def _inferer(recipe: Recipe, rules: BundlePipeline) -> dict[str, Any]:
    blend = (
        {"mode": "constant"}
        if rules.gaussian is None
        else {"mode": "gaussian", "sigma_scale": rules.gaussian}
    )
    size = {"roi_size": list(recipe.patch.size), "sw_batch_size": 1, "overlap": rules.overlap}
    return {"_target_": "SlidingWindowInferer", **size, **blend, "cval": rules.fill}


def _decision(recipe: Recipe, rules: BundlePipeline) -> list[dict[str, Any]]:
    activation = _step("Activationsd", "pred", **{"softmax" if recipe.exclusive else "sigmoid": True})
    back = _step(
        "Invertd", "pred", transform="@preprocessing", orig_keys="image", nearest_interp=rules.nearest
    )
    decision = {"argmax": True} if rules.threshold is None else {"threshold": rules.threshold}
    saved = {
        "output_dir": "@output_dir",
        "output_postfix": "seg",
        "separate_folder": False,
        "resample": False,
    }
    order = [activation, back] if rules.restored == "probabilities" else [back, activation]
    return [
        *order,
        _step("AsDiscreted", "pred", **decision),
        _step(
            "SaveImaged",
            "pred",
            **saved,
            output_dtype="$numpy.uint8" if len(recipe.labels) < 256 else "$numpy.uint16",
        ),
    ]
