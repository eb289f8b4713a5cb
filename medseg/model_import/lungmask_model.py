"""A weights file of lungmask as recipe and weights."""

from __future__ import annotations

from typing import Any

import torch

from medseg.errors import UsageError
from medseg.inference.model import weight_kinds
from medseg.model_import.checkpoint import Checkpoint, refused, tensor_table, type_of
from medseg.model_import.nnunet_model import check_fit
from medseg.model_import.pickled_values import TensorPlace
from medseg.recipe import Recipe

_SIDES = {
    3: (("right_lung", "right"), ("left_lung", "left")),
    6: (
        ("left_upper_lobe", "left"),
        ("left_lower_lobe", "left"),
        ("right_upper_lobe", "right"),
        ("right_middle_lobe", "right"),
        ("right_lower_lobe", "right"),
    ),
}
"""Names and sides of the labels 1, 2, ... of R231 (3 classes) and LTRCLobes (6), with the background."""
_NAMES = {3: "r231", 6: "ltrclobes"}
_LEVELS = 5


def is_lungmask(checkpoint: Checkpoint) -> bool:
    """Whether this is a state dict with the names of lungmask's network."""
    table = tensor_table(checkpoint.values)
    return table is not None and "last.weight" in table and "down_path.0.block.0.weight" in table


def lungmask_model(
    checkpoint: Checkpoint, name: str | None, fill: Checkpoint | None = None
) -> tuple[Recipe, dict[str, torch.Tensor]]:
    """Recipe and weights of R231, R231CovidWeb or LTRCLobes.

    Args:
        checkpoint: The weights.
        name: Name of the model; None: that of the network.
        fill: Weights of the network that fills what the first one misses (lungmask's fused mode), or None.

    Raises:
        ModelRefused: another number of classes or levels, or a fill model of other widths
            (``import-plans``), or tensors that are not those of lungmask's network (``weights``).
    """
    tables = [_table(each) for each in (checkpoint, fill) if each is not None]
    classes = [_classes(table, checkpoint) for table in tables]
    sides = enumerate(_SIDES[classes[0]], 1)
    data: dict[str, Any] = {
        "name": name or "_".join(["lungmask", *(_NAMES[count] for count in classes)]),
        "description": "Imported from lungmask",
        "modality": "CT",
        "channels": ["CT"],
        "labels": [{"name": label, "values": [value], "side": side} for value, (label, side) in sides],
        "prepare": {
            "spacing_mm": [1, 1, 1],
            "intensity": {"kind": "window", "low_hu": -1024, "high_hu": 600},
        },
        "patch": {"size": [256, 256]},
        "network": {"kind": "lungmask_unet", "widths": _widths(tables[0])},
        "loss": {"kind": "dice_ce"},
        "train": {"epochs": 1, "steps_per_epoch": 1, "batch_size": 1},
        "pipeline": {"kind": "lungmask", "fill_labels": classes[1] - 1 if fill else None},
    }
    try:
        recipe = Recipe.checked(data)
    except UsageError as error:
        problem = f"not a network of lungmask: {error.problem}"
        raise refused(checkpoint.path, problem, "import-plans") from None
    if fill is None:
        check_fit(checkpoint.path, weight_kinds(recipe), _kinds(tables[0]))
        return recipe, checkpoint.tensors(tables[0])
    if _widths(tables[1]) != _widths(tables[0]):
        raise refused(fill.path, "the fill model has other widths than the model", "import-plans")
    weights: dict[str, torch.Tensor] = {}
    for number, (table, each) in enumerate(zip(tables, (checkpoint, fill), strict=True)):
        prefix = f"networks.{number}."
        own = {n.removeprefix(prefix): k for n, k in weight_kinds(recipe).items() if n.startswith(prefix)}
        check_fit(each.path, own, _kinds(table))
        weights |= {prefix + n: tensor for n, tensor in each.tensors(table).items()}
    return recipe, weights


def _table(checkpoint: Checkpoint) -> dict[str, TensorPlace]:
    """The tensors of lungmask's network; those that it never uses are left out."""
    if not is_lungmask(checkpoint):
        raise refused(checkpoint.path, "not a weights file of lungmask", "import-source")
    table = tensor_table(checkpoint.values) or {}
    return {name: place for name, place in table.items() if ".residual_" not in name}


def _classes(table: dict[str, TensorPlace], checkpoint: Checkpoint) -> int:
    shape = table["last.weight"].shape
    classes = shape[0] if shape else 0
    if classes not in _SIDES:
        raise refused(checkpoint.path, f"{classes} classes: lungmask's networks have 3 or 6", "import-plans")
    return classes


def _widths(table: dict[str, TensorPlace]) -> list[int]:
    weights = (table.get(f"down_path.{level}.block.0.weight") for level in range(_LEVELS))
    return [place.shape[0] for place in weights if place is not None and place.shape]


def _kinds(table: dict[str, TensorPlace]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    return {name: (type_of(place), place.shape) for name, place in table.items()}
