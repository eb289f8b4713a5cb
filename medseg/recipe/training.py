"""The recipe's section ``train``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from medseg.recipe.section import Count, Fraction, NotNegative, Positive, Section, Size

# nnU-Net v2 (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z; nnUNetTrainer of version 2.8).
_NNUNET: dict[str, object] = {
    "epochs": 1000,
    "steps_per_epoch": 250,
    "batch_size": 2,
    "foreground_fraction": 0.33,
    "forced_foreground": True,
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "warm_up": 0.0,
    "schedule": "poly_epoch",
    "weight_decay": 3e-5,
    "gradient_clip": 12.0,
    "validate_every": 50,
    "patience": 20,
}


def _or_a_preset(schema: dict[str, Any]) -> None:
    """Adds ``preset``, which is no field of the model, and makes the others optional beside it."""
    # writeOnly: may be given, but is never part of a recipe that medseg writes.
    known = {"enum": ["nnunet"], "title": "Preset", "type": "string", "writeOnly": True}
    schema["properties"] = {"preset": known, **schema["properties"]}
    schema["if"] = {"not": {"required": ["preset"]}}
    schema["then"] = {"required": schema.pop("required")}


class Train(Section):
    """The training schedule.

    ``preset: nnunet`` stands for nnU-Net's default training: SGD with Nesterov momentum, a rate of 0.01
    that decays with every epoch, 1000 epochs of 250 steps, and the last third of each batch on foreground;
    fields beside it take precedence. A recipe without a section ``augment`` gets nnU-Net's augmentation, too.
    It is replaced by its numbers when the recipe is read.

    Attributes:
        epochs: Largest number of epochs.
        steps_per_epoch: Optimiser steps per epoch.
        batch_size: Patches per step and process.
        accumulate: Number of batches whose gradients are averaged into one optimiser step. Equivalent to a
            batch that many times larger, except that batch Dice and batch normalisation use each batch.
        foreground_fraction: Fraction of patches centred on a voxel of a (randomly drawn) label.
        forced_foreground: False: each patch is centred on a label by chance. True: in each batch exactly the
            last ``batch_size * foreground_fraction`` patches are (rounded, as in nnU-Net), and each patch
            is from a random case.
        optimizer: ``adamw`` (Loshchilov and Hutter 2019, arXiv:1711.05101), or ``sgd`` with Nesterov momentum
            0.99, as in nnU-Net.
        learning_rate: Peak learning rate.
        warm_up: Fraction of all steps during which the learning rate rises to its peak.
        schedule: Decay of the learning rate from its peak to 0: ``cosine`` (Loshchilov and Hutter
            2017, arXiv:1608.03983); ``poly``, (1 - t)^0.9 as in DeepLab; or ``poly_epoch``, the same with the
            epoch's first step, as in nnU-Net.
        weight_decay: Weight decay: decoupled with ``adamw``, added to the gradient with ``sgd``.
        gradient_clip: Largest norm of the gradient; 12 as in nnU-Net.
        ema_decay: Decay per step of the exponential moving average of the weights, which becomes the
            model; smaller in the first steps. 0 uses the last weights themselves.
        precision: ``fp32``, or mixed precision: ``bf16``, ``fp16`` (GPU only, with loss scaling).
        deterministic: Restrict torch to deterministic algorithms. On a CPU results are reproducible
            anyway; on a GPU this is slower, and an operation without such an algorithm is an error.
        validate_every: Epochs between validations, which run the sliding window over whole scans.
        patience: Validations without a better Dice before training stops early.
        seed: Seed of initial weights, order of cases, patches and augmentation.
    """

    model_config = ConfigDict(json_schema_extra=_or_a_preset)

    epochs: Count
    steps_per_epoch: Count
    batch_size: Size
    accumulate: Size = 1
    foreground_fraction: Fraction = 0.5
    forced_foreground: bool = False
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Positive = 1e-3
    warm_up: Fraction = 0.1
    schedule: Literal["cosine", "poly", "poly_epoch"] = "cosine"
    weight_decay: NotNegative = 1e-4
    gradient_clip: Positive = 12.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    deterministic: bool = False
    validate_every: Count = 5
    patience: Count = 10
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="before")
    @classmethod
    def _expanded(cls, data: Any) -> Any:
        """The section with a preset replaced by its numbers."""
        if not isinstance(data, dict) or "preset" not in data:
            return data
        given = {key: value for key, value in data.items() if key != "preset"}
        if data["preset"] != "nnunet":
            raise ValueError(f"train.preset is {data['preset']!r}: the only one is nnunet")
        return {**_NNUNET, **given}

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Recipes written before these fields existed keep their YAML and their digest.
        data: dict[str, Any] = handler(self)
        if self.optimizer == "adamw":
            data.pop("optimizer", None)
        if not self.forced_foreground:
            data.pop("forced_foreground", None)
        return data


class FineTune(Section):
    """How a training that starts from another model treats the weights that it takes unchanged.

    Attributes:
        rate: Their learning rate relative to ``train.learning_rate``. New and adapted weights, such as the
            output layer, keep the full rate.
        frozen: Stages of the network that are not trained: beginnings of the names of their weights, such as
            ``stem`` or ``encoder.0``. They stay in evaluation mode: no dropout, and a batch normalisation
            keeps its statistics.
        keep_labels: Whether the trained model segments its labels in the training cases that are not
            annotated for them (``annotated`` in the manifest). Its masks stand for them wherever the case's
            own annotation has no label, so that a label is added without forgetting the others.
    """

    rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    frozen: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=64)
    ] = ()
    keep_labels: bool = False

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Recipes written before this field existed keep their YAML and their digest.
        data: dict[str, Any] = handler(self)
        if not self.keep_labels:
            data.pop("keep_labels", None)
        return data
