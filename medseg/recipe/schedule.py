"""The recipe's section ``train``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from medseg.recipe.part import Count, Fraction, NotNegative, Part, Positive, Size


class Train(Part):
    """The training schedule.

    Attributes:
        epochs: Longest training, in epochs.
        steps_per_epoch: Optimiser steps in an epoch.
        batch_size: Patches a step.
        foreground_fraction: Share of patches centred on a voxel of a (randomly drawn) label.
        learning_rate: Peak learning rate of AdamW; reached over a tenth of the steps, then
            down along a cosine.
        weight_decay: AdamW weight decay.
        gradient_clip: Largest norm of the gradient; 12 as in nnU-Net.
        validate_every: Epochs between validations with the whole sliding window.
        patience: Validations without a better Dice before training stops early.
        seed: Decides initial weights, order, patches and augmentation.
    """

    epochs: Count
    steps_per_epoch: Count
    batch_size: Size
    foreground_fraction: Fraction = 0.5
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 1e-4
    gradient_clip: Positive = 12.0
    validate_every: Count = 5
    patience: Count = 10
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
