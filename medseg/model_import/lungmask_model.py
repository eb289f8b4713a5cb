"""A weights file of lungmask as recipe and weights."""

from __future__ import annotations

from typing import Any

import torch

from medseg.errors import UsageError
from medseg.inference.model import weight_kinds
from medseg.model_import.checkpoint import Checkpoint, refused, tensor_table, type_of
from medseg.model_import.nnunet_model import check_fit
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
_LEVELS = 5


def is_lungmask(checkpoint: Checkpoint) -> bool:
    """Whether this is a state dict with the names of lungmask's network."""
    table = tensor_table(checkpoint.values)
    return table is not None and "last.weight" in table and "down_path.0.block.0.weight" in table


def lungmask_model(checkpoint: Checkpoint, name: str | None) -> tuple[Recipe, dict[str, torch.Tensor]]:
    """Recipe and weights of R231, R231CovidWeb or LTRCLobes.

    Raises:
        ModelRefused: another number of classes or levels (``import-plans``), or its tensors are not those of
            lungmask's network (``weights``).
    """
    table = tensor_table(checkpoint.values) or {}
    places = {n: place for n, place in table.items() if ".residual_" not in n}
    last, path = places["last.weight"].shape, checkpoint.path
    classes = last[0] if last else 0
    if classes not in _SIDES:
        raise refused(path, f"{classes} classes: lungmask's networks have 3 or 6", "import-plans")
    weights = (places.get(f"down_path.{level}.block.0.weight") for level in range(_LEVELS))
    widths = [place.shape[0] for place in weights if place is not None and place.shape]
    labels = [{"name": n, "values": [v], "side": s} for v, (n, s) in enumerate(_SIDES[classes], 1)]
    data: dict[str, Any] = {
        "name": name or ("lungmask_r231" if classes == 3 else "lungmask_ltrclobes"),
        "description": "Imported from lungmask",
        "modality": "CT",
        "channels": ["CT"],
        "labels": labels,
        "prepare": {
            "spacing_mm": [1, 1, 1],
            "intensity": {"kind": "window", "low_hu": -1024, "high_hu": 600},
        },
        "patch": {"size": [256, 256]},
        "network": {"kind": "lungmask_unet", "widths": widths},
        "loss": {"kind": "dice_ce"},
        "train": {"epochs": 1, "steps_per_epoch": 1, "batch_size": 1},
        "pipeline": {"kind": "lungmask"},
    }
    try:
        recipe = Recipe.checked(data)
    except UsageError as error:
        raise refused(path, f"not a network of lungmask: {error.problem}", "import-plans") from None
    check_fit(path, weight_kinds(recipe), {n: (type_of(p), p.shape) for n, p in places.items()})
    return recipe, checkpoint.tensors(places)
