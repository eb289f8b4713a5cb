"""``plans.json`` and ``dataset.json`` of nnU-Net v2 as sections of a recipe.

Only what medseg computes equally is accepted; everything else is refused with its name. Field names of plans
before nnU-Net 2.2 are understood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from medseg.errors import ModelRefused
from medseg.images.label import Label
from medseg.model_import.checkpoint import refused
from medseg.recipe.pipeline import Configuration
from medseg.system.safe_parsing import json_data, text_of
from medseg.system.validation_words import validation_words

_JSON_BYTES = 64 << 20  # dataset.json may list the files of a training
_INHERITED = 16
_NORMALISATIONS = {
    "CTNormalization": "ct",
    "ZScoreNormalization": "zscore",
    "NoNormalization": "none",
    "RescaleTo01Normalization": "rescale_0_1",
    "RGBTo01Normalization": "rgb_0_1",
}
_READERS = {"SimpleITKIO": "stored", "NibabelIO": "stored", "NibabelIOWithReorient": "RAS"}
_NETWORKS = {"PlainConvUNet": "plain_conv_unet", "ResidualEncoderUNet": "residual_encoder_unet"}
_OLD_FIELDS = ("UNet_class_name", "conv_kernel_sizes", "pool_op_kernel_sizes", "n_conv_per_stage_encoder")
_RESAMPLING = "resample_data_or_seg_to_shape"


@dataclass(frozen=True)
class Dataset:
    """What ``dataset.json`` says about channels and labels.

    Attributes:
        channels: Names of the channels, in order.
        labels: The structures in the order of the network's output; values as medseg counts them.
        exclusive: Whether each voxel has one label; otherwise they are regions.
        ignore_value: The integer of voxels that are unknown, or None.
    """

    channels: tuple[str, ...]
    labels: tuple[Label, ...]
    exclusive: bool
    ignore_value: int | None


@dataclass(frozen=True)
class Plan:
    """One configuration.

    Attributes:
        name: Its name, such as ``3d_fullres``.
        dataset_name: Name of the data set that it was planned for.
        settings: The section of the recipe, without network and patch.
        network: Section ``network`` of the recipe.
        patch_size: Size of a window, in the order of the network's axes.
        orientation: ``stored`` or ``RAS``.
        batch_size: Patches per step of training.
        slice_mm: For a 2D network, the median distance of slices.
        previous: Name of the configuration whose masks it takes, or None.
    """

    name: str
    dataset_name: str
    settings: Configuration
    network: dict[str, Any]
    patch_size: tuple[int, ...]
    orientation: str
    batch_size: int
    slice_mm: float
    previous: str | None


def json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ModelRefused: it is none (``import-plans``).
    """
    try:
        data = json_data(text_of(path, most_bytes=_JSON_BYTES))
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        raise refused(path, f"not valid JSON: {problem:.120}", "import-plans") from None
    if not isinstance(data, dict):
        raise refused(path, "not a JSON object", "import-plans")
    return data


def dataset_of(data: Mapping[str, Any], where: Path) -> Dataset:
    """Channels and labels in the content of ``dataset.json``.

    Raises:
        ModelRefused: something is missing or cannot be expressed (``import-plans``).
    """
    try:
        named = data["channel_names"] if "channel_names" in data else data["modality"]
        channels = tuple(str(named[str(n)]) for n in range(len(named)))
        labels = {str(name): value for name, value in data["labels"].items()}
        ignored = labels.pop("ignore", None)
        background = labels.pop("background")
        if background not in (0, [0]) or not labels or not (ignored is None or type(ignored) is int):
            raise ValueError("labels")
        values = {n: tuple(v) if isinstance(v, list) else (v,) for n, v in labels.items()}
        if not all(each and all(type(n) is int for n in each) for each in values.values()):
            raise ValueError("labels")
        regions = any(len(each) > 1 for each in values.values())
        found = _regions(values, data["regions_class_order"]) if regions else _exclusive(values)
    except _Unsupported as error:
        raise refused(where, str(error), "import-plans") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise refused(
            where, f"{_field(error)} is missing or not as nnU-Net writes it", "import-plans"
        ) from None
    return Dataset(channels, found, not regions, ignored)


class _Unsupported(ValueError):
    """Something that nnU-Net can do and medseg cannot; the message names it."""


def _exclusive(values: Mapping[str, tuple[int, ...]]) -> tuple[Label, ...]:
    ordered = sorted(values.items(), key=lambda each: each[1])
    if [each[0] for _, each in ordered] != list(range(1, len(ordered) + 1)):
        raise _Unsupported(f"labels {[each[0] for _, each in ordered]} are not consecutive, from 1")
    return tuple(Label(name=name, values=each) for name, each in ordered)


def _regions(values: Mapping[str, tuple[int, ...]], order: Sequence[int]) -> tuple[Label, ...]:
    found = []
    for (name, inside), painted in zip(values.items(), order, strict=True):
        if type(painted) is not int or painted not in inside:
            raise _Unsupported(f"regions_class_order paints {painted!r}, which is not in region {name!r}")
        found.append(Label(name=name, values=(painted, *sorted(n for n in inside if n != painted))))
    if len({label.value for label in found}) < len(found):
        raise _Unsupported("regions_class_order paints two regions with one number")
    return tuple(found)


def plan_of(plans: Mapping[str, Any], configuration: str, channels: int, where: Path) -> Plan:
    """One configuration in the content of ``plans.json``.

    Args:
        plans: The content of ``plans.json``.
        configuration: Its name.
        channels: Number of channels of a scan.
        where: The file, for messages.

    Raises:
        ModelRefused: there is no such configuration (``import-configuration``), or it needs something that
            medseg does not have (``import-plans``).
    """
    try:
        found = _inherited(plans["configurations"], configuration)
        patch = _numbers(found["patch_size"])
        transpose = _numbers(plans["transpose_forward"])
        spacing = tuple(float(n) for n in found["spacing"])
        median = [float(n) for n in plans.get("original_median_spacing_after_transp", (1.0, 1.0, 1.0))]
        _check_steps(plans, found)
        settings = Configuration.model_validate(
            {
                "name": configuration,
                "transpose": transpose,
                "spacing_mm": spacing,
                "intensity": _intensities(plans, found, channels),
                **_orders(found),
            }
        )
        network = _network(found, len(patch))
        previous = found.get("previous_stage")
        if not (previous is None or isinstance(previous, str)):
            raise ValueError("previous_stage")
        reader = plans.get("image_reader_writer", "SimpleITKIO")
        batch, name = int(found.get("batch_size", 2)), str(plans.get("dataset_name", "nnunet"))
        return Plan(
            configuration, name, settings, network, patch, _READERS[reader], batch, median[0], previous
        )
    except _Unsupported as error:
        raise refused(where, f"configuration {configuration!r}: {error}", "import-plans") from None
    except ModelRefused as error:
        error.where = str(where)
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        what = f"configuration {configuration!r}: {_field(error)} is missing or not as nnU-Net writes it"
        raise refused(where, what, "import-plans") from None


def _field(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return ".".join(str(part) for part in first["loc"]) or validation_words(first)[:160]
    return repr(error.args[0])[:60] if isinstance(error, KeyError) and error.args else str(error)[:160]


def _numbers(values: Sequence[Any]) -> tuple[int, ...]:
    if not values or not all(type(n) is int for n in values):
        raise ValueError(f"{list(values)!r:.60}")
    return tuple(values)


def _inherited(configurations: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A configuration with the fields of those that it inherits from."""
    found: dict[str, Any] = {}
    following: Any = name
    for _ in range(_INHERITED):
        if following not in configurations:
            known = ", ".join(str(each) for each in configurations)
            problem = f"no configuration {following!r}"
            raise refused("plans.json", problem, "import-configuration", f"use {known}")
        found = {**configurations[following], **found}
        following = configurations[following].get("inherits_from")
        if following is None:
            return found
    raise _Unsupported(f"inherits_from leads through more than {_INHERITED} configurations")


def _check_steps(plans: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Refuses steps of nnU-Net that were replaced by others."""
    reader = plans.get("image_reader_writer", "SimpleITKIO")
    if reader not in _READERS:
        raise _Unsupported(f"image_reader_writer {reader!r} is not supported, only {', '.join(_READERS)}")
    manager = plans.get("label_manager", "LabelManager")
    if manager != "LabelManager":
        raise _Unsupported(f"label_manager {manager!r} is not supported, only LabelManager")
    preprocessor = found.get("preprocessor_name", "DefaultPreprocessor")
    if preprocessor != "DefaultPreprocessor":
        raise _Unsupported(f"preprocessor_name {preprocessor!r} is not supported, only DefaultPreprocessor")
    for name in ("resampling_fn_data", "resampling_fn_probabilities"):
        if found.get(name, _RESAMPLING) != _RESAMPLING:
            raise _Unsupported(f"{name} {found[name]!r} is not supported, only {_RESAMPLING}")
        rules = found.get(f"{name}_kwargs", {})
        if rules.get("force_separate_z") is not None or rules.get("is_seg", False):
            raise _Unsupported(f"{name}_kwargs {rules} are not supported: force_separate_z must be null")


def _orders(found: Mapping[str, Any]) -> dict[str, int]:
    data = found.get("resampling_fn_data_kwargs", {})
    logits = found.get("resampling_fn_probabilities_kwargs", {})
    return {
        "order": data.get("order", 3),
        "order_z": data.get("order_z", 0),
        "logits_order": logits.get("order", 1),
        "logits_order_z": logits.get("order_z", 0),
    }


def _intensities(plans: Mapping[str, Any], found: Mapping[str, Any], channels: int) -> list[dict[str, Any]]:
    schemes, masked = found["normalization_schemes"], found["use_mask_for_norm"]
    if len(schemes) != channels or len(masked) != channels:
        raise _Unsupported(f"{len(schemes)} normalization_schemes, but dataset.json has {channels} channels")
    unknown = [scheme for scheme in schemes if scheme not in _NORMALISATIONS]
    if unknown:
        raise _Unsupported(f"normalization_schemes has {unknown[0]!r}, only {', '.join(_NORMALISATIONS)}")
    names = ("foreground_intensity_properties_per_channel", "foreground_intensity_properties_by_modality")
    facts: dict[str, Any] = next((plans[name] for name in names if name in plans), {})
    made: list[dict[str, Any]] = []
    for number, (scheme, inside) in enumerate(zip(schemes, masked, strict=True)):
        kind = _NORMALISATIONS[scheme]
        one: dict[str, Any] = {"kind": kind}
        if kind == "zscore":
            one["inside"] = bool(inside)
        if kind == "ct":
            seen = facts[str(number)]
            one |= {
                "low_hu": seen["percentile_00_5"],
                "high_hu": seen["percentile_99_5"],
                "mean_hu": seen["mean"],
                "sd_hu": seen["std"],
            }
        made.append(one)
    return made


def _network(found: Mapping[str, Any], dims: int) -> dict[str, Any]:
    """Section ``network`` of a configuration."""
    if "architecture" not in found:
        return _old_network(found)
    kind = str(found["architecture"]["network_class_name"]).rpartition(".")[2]
    if kind not in _NETWORKS:
        raise _Unsupported(f"network {kind!r} is not supported, only {', '.join(_NETWORKS)}")
    given = dict(found["architecture"]["arch_kwargs"])
    repeats = "n_conv_per_stage" if kind == "PlainConvUNet" else "n_blocks_per_stage"
    stages = given.pop("n_stages")
    network = {
        "kind": _NETWORKS[kind],
        "widths": _each(given.pop("features_per_stage"), stages),
        "kernels": [_each(step, dims) for step in _each(given.pop("kernel_sizes"), stages)],
        "strides": [_each(step, dims) for step in _each(given.pop("strides"), stages)],
        "convolutions" if kind == "PlainConvUNet" else "blocks": _each(given.pop(repeats), stages),
        "decoder_convolutions": _each(given.pop("n_conv_per_stage_decoder"), stages - 1),
        "bias": bool(given.pop("conv_bias", False)),
        "deep_supervision": supervision(stages),
    }
    norm = given.pop("norm_op_kwargs", None) or {}
    active = given.pop("nonlin_kwargs", None) or {}
    _check_layers(given, norm, active, dims)
    network["eps"] = norm.get("eps", 1e-5)
    network["slope"] = active.get("negative_slope", 0.01)
    return network


def _check_layers(
    given: dict[str, Any], norm: Mapping[str, Any], active: Mapping[str, Any], dims: int
) -> None:
    """Refuses layers of other kinds; ``given`` is what was not used yet."""
    wanted = {"conv_op": f"Conv{dims}d", "norm_op": f"InstanceNorm{dims}d", "nonlin": "LeakyReLU"}
    for name, layer in wanted.items():
        seen = str(given.pop(name, None)).rpartition(".")[2]
        if seen != layer:
            raise _Unsupported(f"{name} {seen!r} is not supported, only {layer}")
    given.pop("deep_supervision", None)
    used = {name: value for name, value in given.items() if value not in (None, False, {})}
    if used:
        raise _Unsupported(f"arch_kwargs has {next(iter(used))!r}, which is not supported")
    if norm.get("affine") is not True or norm.get("track_running_stats", False):
        raise _Unsupported(f"norm_op_kwargs {dict(norm)} are not supported: the norm must be affine")
    unknown = (norm.keys() - {"eps", "affine", "track_running_stats", "momentum"}) | (
        active.keys() - {"inplace", "negative_slope"}
    )
    if unknown:
        raise _Unsupported(f"the layers have {min(unknown)!r}, which is not supported")


def _old_network(found: Mapping[str, Any]) -> dict[str, Any]:
    """The same from the fields of plans before nnU-Net 2.2."""
    missing = [name for name in _OLD_FIELDS if name not in found]
    if missing:
        raise KeyError("architecture" if len(missing) == len(_OLD_FIELDS) else missing[0])
    kind = found["UNet_class_name"]
    if kind not in _NETWORKS:
        raise _Unsupported(f"UNet_class_name {kind!r} is not supported, only {', '.join(_NETWORKS)}")
    repeats = list(found["n_conv_per_stage_encoder"])
    base, most = found["UNet_base_num_features"], found["unet_max_num_features"]
    return {
        "kind": _NETWORKS[kind],
        "widths": [min(base * 2**stage, most) for stage in range(min(len(repeats), 32))],
        "kernels": found["conv_kernel_sizes"],
        "strides": found["pool_op_kernel_sizes"],
        "convolutions" if kind == "PlainConvUNet" else "blocks": repeats,
        "decoder_convolutions": list(found["n_conv_per_stage_decoder"]),
        "deep_supervision": supervision(len(repeats)),
    }


def _each(value: Any, count: int) -> list[Any]:
    """A list of ``count`` values, for which nnU-Net also accepts a single one."""
    if not 1 <= count <= 32:
        raise ValueError(f"{count} stages")
    return list(value) if isinstance(value, list | tuple) else [value] * count


def supervision(stages: int) -> list[float]:
    """nnU-Net's weights of its outputs, finest first: each half of the one before, the coarsest 0."""
    weights = [0.5**number for number in range(stages - 1)]
    return weights if len(weights) == 1 else [*weights[:-1], 0.0]
