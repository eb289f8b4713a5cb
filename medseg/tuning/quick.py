"""A small version of a search: few steps and cases."""

from __future__ import annotations

from collections.abc import Sequence

from medseg.datasets.manifest import Case
from medseg.recipe import Recipe

EPOCHS, STEPS = 4, 25
MOST_CASES = {"train": 16, "val": 6}


def quick_recipe(recipe: Recipe) -> Recipe:
    """The recipe with at most 4 epochs of 25 steps, each with a validation."""
    rules = recipe.train
    changed = {
        "epochs": min(rules.epochs, EPOCHS),
        "steps_per_epoch": min(rules.steps_per_epoch, STEPS),
        "validate_every": 1,
    }
    return recipe.model_copy(update={"train": rules.model_copy(update=changed)})


def quick_cases(cases: Sequence[Case]) -> list[Case]:
    """The first cases of each split: at most 16 for training and 6 for validation, of different patients."""
    kept: list[Case] = []
    for split, most in MOST_CASES.items():
        first: dict[str, Case] = {}
        for case in cases:
            if case.split == split:
                first.setdefault(case.patient, case)
        kept += list(first.values())[:most]
    return kept
