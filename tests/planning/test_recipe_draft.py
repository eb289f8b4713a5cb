"""Recipes with reasons: the YAML that is written is the recipe that was planned."""

from __future__ import annotations

import yaml

from medseg.planning.recipe_draft import RecipeDraft
from medseg.recipe import Recipe

DATA = {
    "name": "liver",
    "modality": "CT",
    "channels": ["CT"],
    "labels": [{"name": "liver: left", "values": [1]}],
    "prepare": {
        "spacing_mm": [1.0, 1.0, 2.0],
        "intensity": {"kind": "window", "low_hu": -100.0, "high_hu": 200.0},
    },
    "patch": {"size": [32, 32, 16]},
    "network": {"kind": "unet", "widths": [8, 16]},
    "train": {"epochs": 1, "steps_per_epoch": 1, "batch_size": 1},
}


def test_the_text_is_the_recipe():
    draft = RecipeDraft(DATA, {"prepare.spacing_mm": "The median."}, ("A caution: mind it.",))
    text = draft.yaml("A long opening. " * 20)
    assert yaml.safe_load(text) == DATA
    assert Recipe.parse(text) == draft.recipe
    assert max(len(line) for line in text.splitlines()) <= 100


def test_a_reason_stands_above_its_number():
    lines = RecipeDraft(DATA, {"prepare.spacing_mm": "The median.", "patch": "It fits."}).yaml().splitlines()
    assert lines[lines.index("  spacing_mm: [1.0, 1.0, 2.0]") - 1] == "  # The median."
    assert lines[lines.index("patch: {size: [32, 32, 16]}") - 1] == "# It fits."
    assert "  - {name: 'liver: left', values: [1]}" in lines
