from __future__ import annotations

import math

import pytest
import torch
from worlds import tiny

from medseg.losses import KINDS, DiceBCE, build
from medseg.recipe import Loss


def test_dice_bce_by_hand():
    # Four voxels with probabilities .5 .5 .75 .25 and truth 1 0 1 0.
    logits = torch.tensor([0.0, 0.0, math.log(3), -math.log(3)]).reshape(1, 1, 4, 1, 1)
    truth = torch.tensor([1.0, 0.0, 1.0, 0.0]).reshape(1, 1, 4, 1, 1)
    bce = -(2 * math.log(0.5) + 2 * math.log(0.75)) / 4
    dice = 1 - 2 * (0.5 + 0.75) / (2.0 + 2.0)
    assert float(DiceBCE()(logits, truth)) == pytest.approx(bce + dice, abs=1e-5)
    assert float(DiceBCE(dice_weight=0)(logits, truth)) == pytest.approx(bce, abs=1e-6)
    assert float(DiceBCE(bce_weight=0)(logits, truth)) == pytest.approx(dice, abs=1e-5)


def test_labels_may_overlap():
    """A perfect prediction of a lesion inside a lung costs nothing, on both channels."""
    truth = torch.zeros(1, 2, 6, 6, 6)
    truth[:, 0, 1:5] = 1
    truth[:, 1, 2:4] = 1
    assert float(DiceBCE()((truth - 0.5) * 200, truth)) == pytest.approx(0, abs=1e-4)


def test_empty_truth_is_finite():
    loss = DiceBCE()(torch.full((1, 1, 4, 4), -20.0, requires_grad=True), torch.zeros(1, 1, 4, 4))
    loss.backward()
    assert torch.isfinite(loss)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("dims", [2, 3])
def test_every_loss_prefers_the_truth(kind, dims):
    recipe = tiny(dims, loss={"kind": kind})
    loss = build(Loss(kind=kind))
    truth = (torch.rand(2, 2, *recipe.patch.size) > 0.5).to(torch.uint8)
    right, wrong = (truth.float() - 0.5) * 8, (0.5 - truth.float()) * 8
    assert float(loss(right, truth)) < float(loss(right * 0, truth)) < float(loss(wrong, truth))
