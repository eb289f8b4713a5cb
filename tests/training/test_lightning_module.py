from __future__ import annotations

import math

import pytest
import torch
from support.worlds import tiny

from medseg.errors import UsageError
from medseg.inference.label_decision import LabelDecision
from medseg.inference.sliding_window import logits
from medseg.recipe import Train
from medseg.training import lightning_module
from medseg.training.checkpoint_files import network_weights
from medseg.training.lightning_module import SegmentationModule, learning_rate_factor


def rules(**changes) -> Train:
    return Train(epochs=10, steps_per_epoch=10, batch_size=1, **changes)


def test_poly_by_epoch_and_sgd_are_those_of_nnunet():
    # nnU-Net: 0.01 * (1 - epoch / epochs) ** 0.9; epoch 3 of 10 has steps 30 to 39.
    recipe = tiny(train={"preset": "nnunet", "epochs": 10, "steps_per_epoch": 10})
    schedule = recipe.train
    assert [learning_rate_factor(step, schedule) for step in (0, 9)] == [1, 1]
    assert learning_rate_factor(30, schedule) == learning_rate_factor(39, schedule) == pytest.approx(0.7**0.9)
    optimizer = SegmentationModule(recipe, "").configure_optimizers()["optimizer"]
    assert isinstance(optimizer, torch.optim.SGD)
    (group,) = optimizer.param_groups
    assert [group[key] for key in ("momentum", "nesterov", "weight_decay", "lr")] == [0.99, True, 3e-5, 0.01]


def test_the_learning_rate_rises_over_the_warm_up_then_falls_to_zero():
    factors = [learning_rate_factor(step, rules()) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1
    assert factors[55] == pytest.approx(0.5)  # half way down the cosine
    assert factors[100] == pytest.approx(0)
    assert learning_rate_factor(0, Train(epochs=1, steps_per_epoch=1, batch_size=1)) == 1


def test_the_poly_schedule_by_hand():
    poly = rules(schedule="poly", warm_up=0)
    assert learning_rate_factor(0, poly) == 1
    assert learning_rate_factor(50, poly) == pytest.approx(0.5**0.9)
    assert learning_rate_factor(100, poly) == 0


def test_validation_dice_by_hand():
    found, truth = torch.tensor([1, 1, 0, 0]).bool(), torch.tensor([1, 0, 1, 0]).bool()
    known = torch.ones(4).bool()
    assert lightning_module._dice(found, truth, known) == 0.5
    assert math.isnan(lightning_module._dice(found & ~found, truth & ~truth, known))
    assert math.isnan(lightning_module._dice(found, truth & ~truth, ~known))


def test_the_average_follows_the_weights_by_hand(monkeypatch):
    one = SegmentationModule(tiny(train={"ema_decay": 0.5, "accumulate": 2}), "")
    monkeypatch.setattr(SegmentationModule, "global_step", 8)
    for network, value in ((one.network, 1.0), (one.averaged, 0.0)):
        for parameter in network.parameters():
            parameter.data.fill_(value)
    one.on_train_batch_end(None, {}, 0)  # half of a step: nothing moves
    assert all((p == 0).all() for p in one.averaged.parameters())
    one.on_train_batch_end(None, {}, 1)
    # Decay min(0.5, 9 / 18) = 0.5: half of the way from 0 to 1.
    assert all((p == 0.5).all() for p in one.averaged.parameters())
    monkeypatch.setattr(SegmentationModule, "global_step", 0)
    one.on_train_batch_end(None, {}, 1)
    # Decay 1/10 in the first step: 0.5 + 0.9 * 0.5.
    assert all((p == pytest.approx(0.95)) for p in one.averaged.parameters() for p in p.flatten())
    assert one.product is one.averaged
    weights = network_weights(one.state_dict())
    assert set(weights) == set(one.network.state_dict())
    assert all(bool((w == 0.95).all()) or w.allclose(torch.tensor(0.95)) for w in weights.values())


def test_a_loss_that_is_not_finite_names_the_case():
    one = SegmentationModule(tiny(), "")
    image = torch.zeros(2, 1, 16, 24, 16)
    image[1, 0, 3, 4, 5] = float("nan")
    table = torch.zeros(2, 5, 2, dtype=torch.int8)
    label = torch.zeros(2, 1, 16, 24, 16, dtype=torch.uint8)
    batch = {"image": image, "label": label, "table": table, "case": ["good", "bad"]}
    with pytest.raises(UsageError, match=r"loss is nan in epoch 1, in the patch of bad\n.*medseg check"):
        one.training_step(batch, 0)


def test_a_gradient_that_is_not_finite_names_the_batch():
    one = SegmentationModule(tiny(), "")
    one._cases = ["b", "a", "b"]
    for parameter in one.network.parameters():
        parameter.grad = torch.full_like(parameter, float("inf"))
    with pytest.raises(UsageError, match=r"gradient's norm is inf in epoch 1, with patches of a, b"):
        one.configure_gradient_clipping(torch.optim.SGD(one.network.parameters(), 0.1))


def test_gradients_are_clipped_to_the_norm():
    one = SegmentationModule(tiny(train={"gradient_clip": 3.0}), "")
    for parameter in one.network.parameters():
        parameter.grad = torch.ones_like(parameter)
    one.configure_gradient_clipping(torch.optim.SGD(one.network.parameters(), 0.1))
    squares = sum(float((p.grad**2).sum()) for p in one.network.parameters())
    assert math.sqrt(squares) == pytest.approx(3.0, rel=1e-4)


@pytest.mark.parametrize("kind", ["dice_ce", "dice_bce"])
def test_masks_of_a_validation_are_those_of_all_logits_at_once(kind):
    labels = [{"name": f"l{n}", "values": [n]} for n in (1, 2, 3)]
    recipe = tiny(labels=labels, loss={"kind": kind}, patch={"size": [16, 16, 8]})
    module = SegmentationModule(recipe, "")
    image = torch.rand((1, 20, 18, 40), generator=torch.Generator().manual_seed(0))
    module.eval()
    with torch.no_grad():
        masks = module.segment(image)
        whole = logits(image, module.network, labels=3, patch=recipe.patch, predict=recipe.predict)
    expected = LabelDecision.from_recipe(recipe).masks(whole)
    assert masks.dtype == torch.bool
    assert torch.equal(masks, expected)
    assert 0 < int(masks.sum()) < masks.numel()
