"""The time of a training, measured by steps."""

from __future__ import annotations

import pytest
import torch
from support.worlds import phantoms, tiny

from medseg.planning.step_timing import time_steps


@pytest.mark.parametrize(("optimizer", "kind"), [("adamw", "AdamW"), ("sgd", "SGD")])
def test_steps_are_measured_with_the_recipes_optimiser(tmp_path, monkeypatch, optimizer, kind):
    steps, step = [], getattr(torch.optim, kind).step

    def counted(self, *args, **kwargs):
        steps.append(type(self).__name__)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(getattr(torch.optim, kind), "step", counted)
    recipe = tiny(train={"optimizer": optimizer})
    timing = time_steps(recipe, phantoms(tmp_path, "train"), "cpu")
    assert steps == [kind] * 3
    assert timing.parameters > 0
    assert timing.step_s > 0
