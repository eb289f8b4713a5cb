"""Recipes and patches for the tests of augmentation."""

from __future__ import annotations

import torch
import yaml

from medseg.recipe import Recipe

OFF = {"rotate_degrees": 0, "scale": 0, "noise_sd": 0, "gamma": 0, "brightness": 0, "contrast": 0}


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def checked(base: Recipe, rules: object) -> Recipe:
    return Recipe.checked({**yaml.safe_load(base.yaml()), "augment": rules})
