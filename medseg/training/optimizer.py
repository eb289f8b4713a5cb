"""The optimiser of a training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from medseg.recipe.training import Train

# Isensee et al. 2021 (doi:10.1038/s41592-020-01008-z): nnU-Net's SGD.
_MOMENTUM = 0.99


def build(
    weights: Iterable[torch.nn.Parameter] | Iterable[dict[str, Any]], rules: Train
) -> torch.optim.Optimizer:
    """The optimiser that a recipe's section ``train`` describes.

    Args:
        weights: Weights to train, or groups of them with a learning rate of their own.
        rules: Kind, learning rate and weight decay.
    """
    if rules.optimizer == "sgd":
        return torch.optim.SGD(
            weights,
            lr=rules.learning_rate,
            momentum=_MOMENTUM,
            weight_decay=rules.weight_decay,
            nesterov=True,
        )
    return torch.optim.AdamW(weights, lr=rules.learning_rate, weight_decay=rules.weight_decay)
