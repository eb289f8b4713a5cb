"""The recipe's section ``train``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from medseg.recipe.section import Count, Fraction, NotNegative, Positive, Section, Size


class Train(Section):
    """The training schedule.

    Attributes:
        epochs: Longest training, in epochs.
        steps_per_epoch: Optimiser steps in an epoch.
        batch_size: Patches a step and process.
        accumulate: Batches whose gradients are averaged into one optimiser step: as a batch that
            many times larger, except that batch Dice and batch normalisation see the parts.
        foreground_fraction: Share of patches centred on a voxel of a (randomly drawn) label.
        learning_rate: Peak learning rate of AdamW.
        warm_up: Share of all steps in which the learning rate rises to its peak.
        schedule: How it goes down to 0 from there: along a ``cosine`` (Loshchilov and Hutter
            2017, arXiv:1608.03983), or ``poly``, (1 - t)^0.9 as in DeepLab and nnU-Net.
        weight_decay: AdamW weight decay.
        gradient_clip: Largest norm of the gradient; 12 as in nnU-Net.
        ema_decay: The model is the exponential moving average of the weights with this decay a
            step, smaller in the first steps; 0 takes the last weights themselves.
        precision: ``fp32``, or mixed precision: ``bf16``, ``fp16`` (GPU only, with loss scaling).
        deterministic: Let torch use deterministic algorithms only. On a CPU the same bits come
            out anyway; on a GPU it is slower, and an operation that has none stops the training.
        validate_every: Epochs between validations with the whole sliding window.
        patience: Validations without a better Dice before training stops early.
        seed: Decides initial weights, order, patches and augmentation.
    """

    epochs: Count
    steps_per_epoch: Count
    batch_size: Size
    accumulate: Size = 1
    foreground_fraction: Fraction = 0.5
    learning_rate: Positive = 1e-3
    warm_up: Fraction = 0.1
    schedule: Literal["cosine", "poly"] = "cosine"
    weight_decay: NotNegative = 1e-4
    gradient_clip: Positive = 12.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    deterministic: bool = False
    validate_every: Count = 5
    patience: Count = 10
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
