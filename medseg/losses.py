"""The table of training losses. Each maps (logits, truth) to one number to minimise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.losses.dice import DiceLoss
from torch import nn
from torch.nn import functional as F

from medseg.recipe import Loss


class DiceBCE(nn.Module):
    """Soft Dice loss plus binary cross-entropy, on one sigmoid channel a label.

    BCE = -mean(y log p + (1 - y) log(1 - p)) drives every voxel and gives smooth gradients;
    Dice = 1 - (2 sum(p y) + e) / (sum(p) + sum(y) + e), e = 1e-5, drives the overlap and does not mind
    that most voxels are background (Milletari et al. 2016, doi:10.1109/3DV.2016.79, with the
    plain denominator; MONAI's DiceLoss). Dice is taken over the whole batch for each label
    (nnU-Net's batch Dice), so that a patch without the label does not dominate.

    Args:
        dice_weight: Weight of the Dice part.
        bce_weight: Weight of the cross-entropy part.
    """

    def __init__(self, dice_weight: float = 1.0, bce_weight: float = 1.0) -> None:
        super().__init__()
        self.dice_weight = dice_weight
        self.bce_weight = bce_weight
        self.dice = DiceLoss(sigmoid=True, batch=True, smooth_nr=1e-5, smooth_dr=1e-5)

    def forward(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """The loss of logits (N, L, ...) against truth (N, L, ...) in {0, 1}, a scalar."""
        truth = truth.to(logits.dtype)
        bce = F.binary_cross_entropy_with_logits(logits, truth)
        dice: torch.Tensor = self.dice(logits, truth)
        return self.dice_weight * dice + self.bce_weight * bce


KINDS: dict[str, Callable[[Loss], nn.Module]] = {
    "dice_bce": lambda loss: DiceBCE(loss.dice_weight, loss.bce_weight),
}


def build(loss: Loss) -> nn.Module:
    """The loss a recipe asks for."""
    return KINDS[loss.kind](loss)
