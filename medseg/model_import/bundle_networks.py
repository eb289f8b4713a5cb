"""Networks of MONAI bundles as networks of medseg: the same architectures and names of weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

from medseg.inference.model import weight_kinds
from medseg.model_import.bundle_config import Component
from medseg.model_import.checkpoint import Checkpoint, refused, tensor_table, type_of
from medseg.model_import.nnunet_model import check_fit
from medseg.recipe import Recipe

_SIZES = {"spatial_dims": 3, "in_channels": 1, "out_channels": 1}
_SCALES = re.compile(r"\.(?:adn\.N|norm\d)\.(?:weight|bias)$")
_WITHOUT_EFFECT = frozenset({"use_checkpoint", "img_size"})


def _unet(found: Component) -> dict[str, Any]:
    given = found.arguments(
        _WITHOUT_EFFECT, **_SIZES, channels=None, strides=None, kernel_size=3, up_kernel_size=3,
        num_res_units=0, act="PRELU", norm="INSTANCE", dropout=0.0, bias=True, adn_ordering="NDA",
    )  # fmt: skip
    _only(found, given, kernel_size=3, up_kernel_size=3, act="prelu", bias=True, adn_ordering="nda")
    widths = _widths(found, given["channels"])
    _halving(found, given["strides"], len(widths) - 1)
    if given["num_res_units"] == 0:
        raise found.refusal("num_res_units 0 is not supported: a UNet of residual units needs 1 or more")
    kind = {"kind": "residual_unet", "widths": widths, "units": given["num_res_units"]}
    return kind | {"norm": _norm(found, given["norm"]), "dropout": given["dropout"]}


def _attention_unet(found: Component) -> dict[str, Any]:
    given = found.arguments(
        _WITHOUT_EFFECT, **_SIZES, channels=None, strides=None, kernel_size=3, up_kernel_size=3, dropout=0.0
    )
    _only(found, given, kernel_size=3, up_kernel_size=3)
    widths = _widths(found, given["channels"])
    _halving(found, given["strides"], len(widths) - 1)
    return {"kind": "attention_unet", "widths": widths, "dropout": given["dropout"]}


def _segresnet(found: Component) -> dict[str, Any]:
    given = found.arguments(
        _WITHOUT_EFFECT, **_SIZES | {"out_channels": 2}, init_filters=8, dropout_prob=None, act="relu",
        norm=["GROUP", {"num_groups": 8}], use_conv_final=True, blocks_down=[1, 2, 2, 4],
        blocks_up=[1, 1, 1], upsample_mode="nontrainable",
    )  # fmt: skip
    _only(found, given, act="relu", use_conv_final=True, upsample_mode="nontrainable")
    if given["norm"] != ["GROUP", {"num_groups": 8}]:
        raise found.refusal("norm: only GROUP with 8 groups is supported")
    down = _widths(found, given["blocks_down"])
    if given["blocks_up"] != [1] * (len(down) - 1):
        raise found.refusal("blocks_up: only one block at each resolution is supported")
    dropout = given["dropout_prob"] or 0.0
    return {"kind": "segresnet", "filters": given["init_filters"], "blocks": down, "dropout": dropout}


def _dynunet(found: Component) -> dict[str, Any]:
    given = found.arguments(
        _WITHOUT_EFFECT, **_SIZES, kernel_size=None, strides=None, upsample_kernel_size=None, filters=None,
        dropout=None, norm_name="INSTANCE", deep_supervision=False, deep_supr_num=1, res_block=False,
        trans_bias=False,
    )  # fmt: skip
    _only(found, given, trans_bias=False, dropout=None)
    widths = _widths(found, given["filters"])
    if _norm(found, given["norm_name"]) != "instance":
        raise found.refusal("norm_name: only INSTANCE is supported")
    steps = given["strides"]
    if not isinstance(steps, list) or steps[:1] not in ([1], [[1, 1, 1]]):
        raise found.refusal("strides: the first must be 1")
    _halving(found, steps[1:], len(widths) - 1)
    _halving(found, given["upsample_kernel_size"], len(widths) - 1)
    kernels = given["kernel_size"]
    if not isinstance(kernels, list) or any(each not in (3, [3, 3, 3]) for each in kernels):
        raise found.refusal("kernel_size: only 3 is supported")
    heads = given["deep_supr_num"] if given["deep_supervision"] is True else 0
    if type(heads) is not int or not 0 <= heads < 8:
        raise found.refusal("deep_supr_num is no small number")
    supervision = [1.0 / 2**n for n in range(heads + 1)]
    return {
        "kind": "dynunet",
        "widths": widths,
        "deep_supervision": supervision,
        "residual": given["res_block"],
    }


def _swin_unetr(found: Component) -> dict[str, Any]:
    given = found.arguments(
        _WITHOUT_EFFECT, **_SIZES, feature_size=24, depths=[2, 2, 2, 2], num_heads=[3, 6, 12, 24],
        norm_name="instance", drop_rate=0.0, use_v2=False,
    )  # fmt: skip
    _only(found, given, num_heads=[3, 6, 12, 24], norm_name="instance", use_v2=False)
    kind = {"kind": "swin_unetr", "features": given["feature_size"], "depths": given["depths"]}
    return kind | {"dropout": given["drop_rate"]}


NETWORKS: dict[str, Callable[[Component], dict[str, Any]]] = {
    "UNet": _unet,
    "AttentionUnet": _attention_unet,
    "SegResNet": _segresnet,
    "DynUNet": _dynunet,
    "SwinUNETR": _swin_unetr,
}
"""The networks that a bundle may have, by their class in MONAI."""


def network_section(found: Component) -> tuple[dict[str, Any], int, int]:
    """The section ``network`` of a recipe for a network of a bundle, and its input and output channels.

    Raises:
        ModelRefused: another network, or an argument that is not supported (``import-plans``).
    """
    if found.name not in NETWORKS:
        known = ", ".join(NETWORKS)
        raise found.refusal(f"the network {found.name} is not supported; known are {known}")
    section = NETWORKS[found.name](found)
    values = {name: found.config.value(found.given.get(name, n), found.at) for name, n in _SIZES.items()}
    if found.name == "SegResNet":
        values["out_channels"] = found.config.value(found.given.get("out_channels", 2), found.at)
    if values["spatial_dims"] != 3:
        raise found.refusal("only networks with spatial_dims 3 are supported")
    counts = (values["in_channels"], values["out_channels"])
    if any(type(each) is not int or not 1 <= each <= 1024 for each in counts):
        raise found.refusal("in_channels and out_channels must be numbers from 1 to 1024")
    return section, *counts


def bundle_weights(checkpoint: Checkpoint, recipe: Recipe) -> dict[str, torch.Tensor]:
    """The weights of a recipe's network from a checkpoint of a bundle.

    Raises:
        ModelRefused: it holds no table of tensors (``checkpoint-content``), or others (``weights``).
    """
    values: Mapping[str, Any] = checkpoint.values
    tables = (
        tensor_table(values),
        *(tensor_table(values.get(key)) for key in ("model", "state_dict", "net")),
    )
    table = next((each for each in tables if each is not None), None)
    if table is None:
        raise refused(checkpoint.path, "it holds no table of tensors", "checkpoint-content")
    places = {name.removeprefix("module."): place for name, place in table.items()}
    if recipe.network.kind == "dynunet":  # the same blocks a second time
        places = {name: place for name, place in places.items() if not name.startswith("skip_layers.")}
    wanted = weight_kinds(recipe)
    # Instance norms of MONAI have no scales by default; medseg's are 1 and 0 then.
    scales = [name for name in wanted if _SCALES.search(name)]
    without = recipe.network.kind in ("dynunet", "residual_unet") and places.keys().isdisjoint(scales)
    absent = scales if without else []
    found = {name: (type_of(place), place.shape) for name, place in places.items()}
    check_fit(checkpoint.path, wanted, found | {name: wanted[name] for name in absent})
    tensors = checkpoint.tensors(places)
    for name in absent:
        kind, shape = wanted[name]
        tensors[name] = torch.full(shape, float(name.endswith("weight")), dtype=kind)
    return {name: tensors[name] for name in wanted}


def _only(found: Component, given: Mapping[str, Any], **values: Any) -> None:
    for name, value in values.items():
        seen = given[name].casefold() if isinstance(given[name], str) else given[name]
        if seen != value and seen != [value] * 3:
            raise found.refusal(f"{name}: only {value!r} is supported")


def _widths(found: Component, value: Any) -> list[int]:
    if not isinstance(value, list) or not all(type(n) is int and n > 0 for n in value) or len(value) < 2:
        raise found.refusal("numbers of maps or blocks must be a list of whole numbers")
    return value


def _halving(found: Component, value: Any, count: int) -> None:
    if not isinstance(value, list) or len(value) != count or any(n not in (2, [2, 2, 2]) for n in value):
        raise found.refusal(f"strides: only 2 at each of {count} steps is supported")


def _norm(found: Component, value: Any) -> str:
    name, more = value if isinstance(value, list) and len(value) == 2 else (value, {})
    name = name[0] if isinstance(name, list) and len(name) == 1 else name
    known = {"batch": ({},), "instance": ({}, {"affine": True}, {"affine": False})}
    text = name.casefold() if isinstance(name, str) else ""
    if text not in known or more not in known[text]:
        raise found.refusal("norm: only BATCH and INSTANCE are supported")
    return text
