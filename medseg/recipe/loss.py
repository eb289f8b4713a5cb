"""The recipe's section ``loss``."""

from __future__ import annotations

from typing import Literal

from medseg.recipe.part import NotNegative, Part


class Loss(Part):
    """The training loss; weights of its two parts.

    Dice + binary cross-entropy on one sigmoid channel a label, as in nnU-Net's region
    training (Isensee et al. 2021), each with weight 1.
    """

    kind: Literal["dice_bce"] = "dice_bce"
    dice_weight: NotNegative = 1.0
    bce_weight: NotNegative = 1.0
