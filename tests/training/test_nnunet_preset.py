"""A training with nnU-Net's preset, from the recipe as written to the model that segments."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.worlds import phantoms, tiny

import medseg
from medseg.recipe import Recipe
from medseg.training.trainer import Hardware, train

pytestmark = pytest.mark.filterwarnings("ignore::medseg.errors.InputWarning")


def test_the_preset_trains_a_model_that_segments(tmp_path: Path) -> None:
    data = json.loads(tiny().model_dump_json())
    del data["augment"]
    data["train"] = {"preset": "nnunet", "epochs": 2, "steps_per_epoch": 2, "validate_every": 1}
    (tmp_path / "preset.yaml").write_text(json.dumps(data))  # YAML includes JSON
    recipe = Recipe.read(tmp_path / "preset.yaml")
    cases = phantoms(tmp_path, "train", "val")
    ends = []
    model = train(recipe, cases, tmp_path / "run", hardware=Hardware("cpu", workers=0), on_epoch=ends.append)
    assert [end.epoch for end in ends] == [1, 2]
    assert all(np.isfinite(end.loss) for end in ends)
    used = model.recipe
    assert (used.train.optimizer, used.train.schedule, used.train.forced_foreground) == (
        "sgd",
        "poly_epoch",
        True,
    )
    assert used.augment == Recipe.checked({**data, "augment": "nnunet"}).augment
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=False)
    (group,) = state["optimizer_states"][0]["param_groups"]
    # nnU-Net: 0.01 * (1 - epoch / epochs) ** 0.9, after the second of two epochs 0.
    assert (group["momentum"], group["nesterov"], group["lr"]) == (0.99, True, pytest.approx(0, abs=1e-9))
    mask = medseg.Segmenter(model, device="cpu", engine="torch")(medseg.read(cases[1].images[0]))
    assert mask.grid.shape == medseg.read(cases[1].images[0]).grid.shape
