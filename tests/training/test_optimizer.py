"""The optimiser of a training."""

from __future__ import annotations

import pytest
import torch
from support.worlds import tiny

from medseg.training.optimizer import build


@pytest.mark.parametrize(("name", "copies"), [("sgd", 1), ("adamw", 2)])
def test_each_optimiser_keeps_its_copies_of_the_weights(name, copies):
    """SGD keeps the momentum; AdamW (Loshchilov and Hutter 2019, algorithm 2) keeps two moments."""
    weight = torch.nn.Parameter(torch.ones(100))
    optimizer = build([weight], tiny(train={"optimizer": name}).train)
    weight.sum().backward()
    optimizer.step()
    kept = [each for each in optimizer.state[weight].values() if torch.is_tensor(each)]
    assert sum(each.numel() for each in kept if each.numel() > 1) == copies * 100


def test_a_step_of_sgd_is_nesterovs():
    # Gradient g = 1: momentum v = 1, update g + 0.99 v = 1.99, so that the weight falls by 0.01 * 1.99.
    weight = torch.nn.Parameter(torch.zeros(1))
    rules = tiny(train={"optimizer": "sgd", "learning_rate": 0.01, "weight_decay": 0}).train
    optimizer = build([weight], rules)
    weight.sum().backward()
    optimizer.step()
    assert weight.item() == pytest.approx(-0.0199)
