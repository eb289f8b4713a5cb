"""Small worlds the tests share: recipes and models that run in a blink."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from medseg.datasets.manifest import Case
from medseg.inference.model import Model
from medseg.networks import build
from medseg.phantom.thorax import Thorax, default_grid
from medseg.recipe import Recipe


def tiny(dims: int = 3, **parts: Any) -> Recipe:
    """A recipe of the phantom's two lungs with a very small network; sections may be changed."""
    data: dict[str, Any] = {
        "name": f"tiny_{dims}d",
        "modality": "CT",
        "channels": ["CT"],
        "labels": [
            {"name": "right_lung", "values": [1, 3], "side": "right"},
            {"name": "left_lung", "values": [2, 4], "side": "left"},
        ],
        "prepare": {
            "spacing_mm": [8, 8, 10],
            "crop": {"above": -500, "margin_mm": 10},
            "intensity": {"kind": "window", "low_hu": -1024, "high_hu": 276},
        },
        "patch": {"size": [16, 24, 16]} if dims == 3 else {"size": [24, 32], "neighbours": 1},
        "network": {"widths": [4, 8, 8], "norm": "instance"},
        "train": {"epochs": 2, "steps_per_epoch": 3, "batch_size": 2, "validate_every": 1},
    }
    for name, value in parts.items():
        data[name] = {**data.get(name, {}), **value} if isinstance(value, dict) else value
    return Recipe.checked(data)


DIVIDED = {
    "labels": [{"name": "lungs", "values": [1, 2]}],
    "postprocess": {
        "divide": [
            {"name": "right_lung", "values": [1], "side": "right"},
            {"name": "left_lung", "values": [2], "side": "left"},
        ],
        "keep_components": 1,
    },
}
"""What makes :func:`tiny` find both lungs as one label, divided afterwards."""


def untrained(recipe: Recipe, *, folds: int = 1, seed: int = 0) -> Model:
    """A model with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Model(recipe, tuple(build(recipe).state_dict() for _ in range(folds)))


def phantoms(folder: Path, *splits: str) -> list[Case]:
    """One phantom patient per split, its scan and truth written into the folder."""
    grid, made = default_grid((8.0, 9.0, 12.0)), []
    for number, split in enumerate(splits):
        patient = Thorax.random(number)
        image, label = folder / f"{number}.nii.gz", folder / f"{number}_truth.nii.gz"
        patient.scan(grid, seed=number).save(image)
        patient.truth(grid).save(label)
        made.append(Case(id=f"case_{number}", images=(image,), label=label, split=split))  # type: ignore[arg-type]  # a split
    return made
