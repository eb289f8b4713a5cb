"""A bundle of MONAI as recipe and weights; what is not in an allow-list is refused by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from medseg.errors import UsageError
from medseg.inference.safetensors_header import shown
from medseg.model_import.bundle_config import BundleConfig, Component
from medseg.model_import.bundle_networks import bundle_weights, network_section
from medseg.model_import.checkpoint import Checkpoint, refused
from medseg.model_import.nnunet_plans import json_object
from medseg.recipe import Recipe

CONFIGURATIONS = ("inference.json", "inference.yaml", "inference.yml")
_IGNORED = frozenset({"keys", "allow_missing_keys", "device", "track_meta", "lazy"})
_LOADED = frozenset({"reader", "image_only", "ensure_channel_first", "meta_key_postfix", "simple_keys"})
_WINDOWS = frozenset({
    "sw_batch_size", "sw_device", "device", "progress", "cache_roi_weight_map", "cpu_thresh", "buffer_steps",
    "buffer_dim",
})  # fmt: skip
_INVERTED = frozenset({
    "orig_keys", "meta_keys", "orig_meta_keys", "meta_key_postfix", "to_tensor", "transform",
})  # fmt: skip


def bundle_folder(folder: Path) -> Path | None:
    """The bundle in a folder: the folder itself or the only folder in it; None if there is none."""
    places = [folder, *(each for each in sorted(folder.iterdir()) if each.is_dir())]
    found = [each for each in places if any((each / "configs" / name).is_file() for name in CONFIGURATIONS)]
    return found[0] if found and (found[0] == folder or len(found) == 1) else None


def bundle_model(
    folder: Path, name: str | None
) -> tuple[Recipe, tuple[dict[str, torch.Tensor], ...], dict[str, Any]]:
    """Recipe, weights and provenance of a bundle.

    Args:
        folder: The bundle, with ``configs`` and ``models``.
        name: Name of the model; None: that of the bundle.

    Raises:
        ModelRefused: a file is missing (``import-source``), something is not in the allow-lists
            (``import-plans``), or its weights are not those of its network (``weights`` and the reasons of
            :meth:`Checkpoint.read`).
    """
    configs = folder / "configs"
    config = BundleConfig.read(next(configs / n for n in CONFIGURATIONS if (configs / n).is_file()))
    metadata = json_object(configs / "metadata.json") if (configs / "metadata.json").is_file() else {}
    weights = folder / "models" / "model.pt"
    if not weights.is_file():
        remedy = "give the bundle with models/model.pt, a state dict; TorchScript (model.ts) is a program"
        raise refused(folder, "the bundle has no models/model.pt", "import-source", remedy)
    definition = "network_def" if "network_def" in config.data else "network"
    network = config.component(config.data.get(definition), definition)
    section, inputs, outputs = network_section(network)
    pipeline = _pipeline(config)
    size = pipeline.pop("window")
    sigmoid = pipeline["threshold"] is not None
    if sigmoid and outputs > 1:
        raise config.refusal(
            f"a threshold for {outputs} channels, which may overlap, is not supported", "post"
        )
    if not sigmoid and outputs < 2:
        raise network.refusal("argmax of one channel: give AsDiscreted a threshold")
    names = _labels(metadata, configs / "metadata.json", outputs, background=not sigmoid)
    modality, channels = _inputs(metadata, inputs)
    window = next((each for each in pipeline["intensity"] if each["kind"] == "range"), None)
    low, high = (window["low"], window["high"]) if window else (-1024.0, 1024.0)
    title = str(metadata.get("name") or folder.name)
    data = {
        "name": name or re.sub(r"[^a-z0-9_-]+", "_", title.casefold()).strip("_-")[:64] or "bundle",
        "description": f"Imported from a bundle of MONAI: {title}"[:200],
        "modality": modality,
        "channels": channels,
        "labels": [{"name": each, "values": [value]} for value, each in enumerate(names, 1)],
        "prepare": {
            "spacing_mm": pipeline["spacing_mm"] or [1, 1, 1],
            "intensity": {"kind": "window", "low_hu": low, "high_hu": high}
            if modality == "CT"
            else {"kind": "zscore"},
        },
        "patch": {"size": size},
        "network": section,
        "loss": {"kind": "dice_bce" if sigmoid else "dice_ce"},
        "train": {"epochs": 1, "steps_per_epoch": 1, "batch_size": 1},
        "pipeline": {"kind": "bundle", **pipeline},
    }
    try:
        recipe = Recipe.checked(data)
    except UsageError as error:
        raise refused(config.path, f"not a recipe of medseg: {error.problem}", "import-plans") from None
    checkpoint = Checkpoint.read(weights)
    facts = {"name": shown(title), "version": shown(str(metadata.get("version", ""))[:64])}
    part = facts | {"sha256": [checkpoint.sha256()]}
    return recipe, (bundle_weights(checkpoint, recipe),), {"tool": "MONAI bundle", "parts": [part]}


def _pipeline(config: BundleConfig) -> dict[str, Any]:
    """The section ``pipeline``, with ``window`` beside its fields."""
    rules: dict[str, Any] = {"orientation": None, "spacing_mm": None, "intensity": []}
    for each in config.transforms("preprocessing"):
        _prepare(each, rules)
    return rules | _windows(config) | _decision(config)


def _prepare(found: Component, rules: dict[str, Any]) -> None:
    """Adds a transform of ``preprocessing`` to the rules."""
    late = ("spacing_mm", rules["spacing_mm"]), ("intensity", rules["intensity"])
    if found.name == "LoadImaged":
        found.arguments(_IGNORED | _LOADED | {"dtype"})
    elif found.name == "EnsureChannelFirstd":
        given = found.arguments(_IGNORED | {"strict_check", "meta_key_postfix"}, channel_dim=None)
        if given["channel_dim"] not in (None, "no_channel"):
            raise found.refusal("channel_dim: only no_channel is supported")
    elif found.name == "EnsureTyped":
        found.arguments(_IGNORED | {"data_type"})
    elif found.name == "Orientationd":
        if any(value for _, value in late):
            raise found.refusal("Orientationd after Spacingd or a normalisation is not supported")
        rules["orientation"] = found.arguments(_IGNORED, axcodes=None)["axcodes"]
    elif found.name == "Spacingd":
        if rules["intensity"]:
            raise found.refusal("Spacingd after a normalisation is not supported")
        given = found.arguments(
            _IGNORED, pixdim=None, mode="bilinear", padding_mode="border", align_corners=False,
            diagonal=False, scale_extent=False, recompute_affine=False,
        )  # fmt: skip
        if [given["mode"]] not in (["bilinear"], [["bilinear"]]) or given["padding_mode"] != "border":
            raise found.refusal("only mode bilinear and padding_mode border are supported")
        if given["diagonal"] or given["scale_extent"] or given["recompute_affine"]:
            raise found.refusal("diagonal, scale_extent and recompute_affine are not supported")
        rules["spacing_mm"] = given["pixdim"]
    elif found.name == "ScaleIntensityRanged":
        given = found.arguments(_IGNORED, a_min=None, a_max=None, b_min=None, b_max=None, clip=False)
        kind = {"kind": "range", "low": given["a_min"], "high": given["a_max"], "clip": given["clip"]}
        rules["intensity"].append(kind | {"to_low": given["b_min"], "to_high": given["b_max"]})
    elif found.name == "NormalizeIntensityd":
        given = found.arguments(_IGNORED, nonzero=False, channel_wise=False)
        rules["intensity"].append({"kind": "zscore", **given})
    else:
        raise found.refusal(f"the transform {found.name} is not supported")


def _windows(config: BundleConfig) -> dict[str, Any]:
    found = config.component(config.data.get("inferer"), "inferer")
    if found.name != "SlidingWindowInferer":
        raise found.refusal(f"the inferer {found.name} is not supported; known is SlidingWindowInferer")
    given = found.arguments(
        _WINDOWS, roi_size=None, overlap=0.25, mode="constant", sigma_scale=0.125, padding_mode="constant",
        cval=0.0,
    )  # fmt: skip
    size = given["roi_size"]
    size = [size] * 3 if type(size) is int else size
    if given["padding_mode"] != "constant" or given["mode"] not in ("constant", "gaussian"):
        raise found.refusal("only padding_mode constant, and mode constant or gaussian, are supported")
    gaussian = given["sigma_scale"] if given["mode"] == "gaussian" else None
    return {"window": size, "overlap": given["overlap"], "gaussian": gaussian, "fill": given["cval"]}


def _decision(config: BundleConfig) -> dict[str, Any]:
    """What ``postprocessing`` asks for: activation, way back, and decision, in one of the usual orders."""
    found = config.transforms("postprocessing")
    order: list[str] = []
    rules: dict[str, Any] = {"restored": "logits", "nearest": False, "threshold": None}
    kind = ""
    for each in found:
        if each.name == "Activationsd":
            given = each.arguments(_IGNORED, softmax=False, sigmoid=False)
            if [given["softmax"], given["sigmoid"]].count(True) != 1:
                raise each.refusal("give either softmax or sigmoid")
            kind = "softmax" if given["softmax"] is True else "sigmoid"
        elif each.name == "Invertd":
            nearest = each.arguments(_IGNORED | _INVERTED, nearest_interp=True)["nearest_interp"]
            if each.given.get("transform") != "@preprocessing" or type(nearest) is not bool:
                raise each.refusal("transform: only @preprocessing, and one nearest_interp, are supported")
            rules |= {"nearest": nearest, "restored": "probabilities" if kind else "logits"}
            if "AsDiscreted" in order and not nearest:
                raise each.refusal("Invertd after AsDiscreted would interpolate numbers of classes")
        elif each.name == "AsDiscreted":
            given = each.arguments(_IGNORED, argmax=False, threshold=None, to_onehot=None)
            if given["to_onehot"] is not None or (given["argmax"] is True) != (given["threshold"] is None):
                raise each.refusal("only argmax, or a threshold, is supported")
            rules["threshold"] = given["threshold"]
        elif each.name not in ("SaveImaged", "EnsureTyped"):
            raise each.refusal(f"the transform {each.name} is not supported")
        if each.name in order and each.name != "SaveImaged":
            raise each.refusal(f"{each.name} a second time is not supported")
        order.append(each.name)
    missing = [name for name in ("Invertd", "AsDiscreted") if name not in order]
    if missing:
        raise config.refusal(
            f"there is no {missing[0]}, so that there is no mask of the scan", "postprocessing"
        )
    if (rules["threshold"] is None) != (kind != "sigmoid") or "Activationsd" in order[
        order.index("AsDiscreted") :
    ]:
        raise found[0].refusal("only softmax with argmax, or sigmoid with a threshold, are supported")
    return rules


def _labels(metadata: Mapping[str, Any], path: Path, outputs: int, *, background: bool) -> list[str]:
    """Names of the labels from ``channel_def``; ``label_1`` and so on if there is none."""
    numbers = range(1, outputs) if background else range(outputs)
    found: Any = metadata
    for key in ("network_data_format", "outputs", "pred", "channel_def"):
        found = found.get(key) if isinstance(found, dict) else None
    if found is None:
        return [f"label_{number}" for number in range(1, len(numbers) + 1)]
    if not isinstance(found, dict):
        raise refused(path, "channel_def is not a table", "import-plans")
    if not background and len(found) == 2:  # a background is named although it has no channel
        found = {
            "0": next(
                (found[key] for key in sorted(found, key=str) if "background" not in str(found[key])), ""
            )
        }
    names = [str(found.get(str(number), "")).strip() for number in numbers]
    if not all(names) or len(set(names)) < len(names):
        raise refused(path, f"channel_def does not name each of the {len(names)} labels", "import-plans")
    return names


def _inputs(metadata: Mapping[str, Any], count: int) -> tuple[str, list[str]]:
    """Modality and names of the channels."""
    found: Any = metadata
    for key in ("network_data_format", "inputs", "image"):
        found = found.get(key) if isinstance(found, dict) else None
    modality = str(found.get("modality", "")) if isinstance(found, dict) else ""
    kind = "CT" if re.search(r"\bct\b|hounsfield", modality.casefold()) else "MR"
    return kind, [kind] if count == 1 else [f"{kind}_{number}" for number in range(1, count + 1)]
