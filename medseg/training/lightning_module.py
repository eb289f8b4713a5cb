"""The network with its loss and optimiser, as a Lightning module."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import distributed, nn

from medseg.errors import UsageError, listed
from medseg.inference.label_decision import LabelDecision
from medseg.inference.sliding_window import planes
from medseg.networks import build as build_network
from medseg.networks import channels_last
from medseg.preprocessing.label_classes import LabelClasses
from medseg.recipe import Recipe, Train
from medseg.system.notices import notify
from medseg.training.dataloaders import Batch, Scan
from medseg.training.fine_tuning import FineTuning, freeze, parameter_groups
from medseg.training.loggers import Picture, log_pictures
from medseg.training.losses import build as build_loss
from medseg.training.missed_labels import FEWEST_STEPS, EpochLabels
from medseg.training.optimizer import build as build_optimizer
from medseg.training.patches import Patches, Sample
from medseg.training.validation_images import snapshot
from medseg.training.validation_loss import ValidationPatch

# Number of validation cases that are shown, always the first ones.
_PICTURES = 4


def learning_rate_factor(step: int, rules: Train) -> float:
    """The learning rate at a step relative to its peak: rising over the warm-up, then falling to 0.

    Args:
        step: Number of optimiser steps done.
        rules: Section ``train`` of the recipe; ``epochs * steps_per_epoch`` steps are planned.
    """
    # Not SequentialLR of LinearLR and CosineAnnealingLR: they update the previous rate, so that rounding
    # errors add up (relative 1.5e-11 after 75,000 steps, and other bits than earlier runs, which --rerun
    # repeats), divide by 0 if all steps are warm-up, and cannot read the state of our checkpoints.
    total = rules.epochs * rules.steps_per_epoch
    warm = max(1, int(total * rules.warm_up)) if rules.warm_up else 0
    if step < warm:
        return (step + 1) / warm
    if rules.schedule == "poly_epoch":
        step = max(warm, step - step % rules.steps_per_epoch)
    done = min(1.0, (step - warm) / max(1, total - warm))
    return 0.5 * (1 + math.cos(math.pi * done)) if rules.schedule == "cosine" else (1 - done) ** 0.9


class SegmentationModule(pl.LightningModule):  # type: ignore[misc]  # lightning is not typed strictly
    """Training and validation steps of a recipe.

    Attributes:
        network: The network that is trained.
        averaged: The moving average of its weights, if the recipe has an ``ema_decay``.
        scores: After a validation, for each scan of this process, its case id, the Dice of every label, and
            whether its truth has the label.

    Args:
        recipe: Recipe of the training.
        data: Digest of the prepared data, which is kept in checkpoints.
        augmenter: Augments the patches of a batch on their device; None if the loader has done so.
        tuning: The model whose weights the network starts from; None: random weights.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: str,
        augmenter: Patches | None = None,
        tuning: FineTuning | None = None,
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.data = data
        self.network = channels_last(build_network(recipe))
        self._tuning = tuning
        self._frozen = recipe.fine_tune.frozen if recipe.fine_tune else ()
        if tuning is not None:
            tuning.initialise(self.network)
        freeze(self.network, self._frozen)
        decay = recipe.train.ema_decay
        self.averaged = copy.deepcopy(self.network).requires_grad_(False) if decay else None
        self.loss = build_loss(recipe)
        self.scores: list[tuple[str, list[float], list[bool]]] = []
        self._seen = EpochLabels(recipe)
        self._augmenter = augmenter
        self._cases: list[str] = []
        self._pictures: dict[str, Picture] = {}

    @property
    def product(self) -> nn.Module:
        """The network that is validated and becomes the model."""
        return self.network if self.averaged is None else self.averaged

    def on_train_epoch_start(self) -> None:
        """Seeds dropout for the epoch."""
        # Dropout draws from torch's global state. A seed per epoch keeps a resumed training equal to an
        # uninterrupted one.
        torch.manual_seed((self.recipe.train.seed * 1_000_003 + self.current_epoch) * 64 + self.global_rank)
        freeze(self.network, self._frozen)  # Lightning has just put every module into training mode
        if self.averaged is not None:
            self.averaged.eval()
        self._seen = EpochLabels(self.recipe)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """The batch, augmented on its device unless the loader has done so."""
        if not self.trainer.training or self._augmenter is None:
            return batch
        parts = zip(*(batch[key] for key in ("image", "label", "table", "case", "seed")), strict=True)
        changed = [
            self._augmenter.augmented_patch(
                Sample(image=image, label=label, table=table, case=case, seed=int(seed))
            )
            for image, label, table, case, seed in parts
        ]
        return batch | {
            key: torch.stack([one[key] for one in changed]) for key in ("image", "label", "table")
        }

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        """The loss of a batch."""
        self._cases = batch["case"]
        outputs = self.network(batch["image"])
        loss: torch.Tensor = self.loss(outputs, batch["label"], batch["table"])
        first = outputs if isinstance(outputs, torch.Tensor) else outputs[0]
        if not torch.isfinite(loss):
            raise self._not_finite_error(f"the loss is {loss.item()}", _not_finite(batch, first))
        self._seen.add(first, batch["label"], batch["table"])
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["image"]))
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips the gradient to the recipe's norm; raises an error if it is not finite."""
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.train.gradient_clip)
        # In fp16 the loss scaling produces infinite gradients now and then, and skips the step.
        if self.recipe.train.precision != "fp16" and not torch.isfinite(norm):
            raise self._not_finite_error(f"the gradient's norm is {norm.item()}", [])

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        """Updates the average after an optimiser step."""
        # Not Lightning's EMAWeightAveraging (2.6): it begins with a copy of the weights after the first step
        # instead of a smaller decay, leaves the average out of checkpoints with `weights_only` (our
        # best.ckpt), rounds the counter of batch normalisation down, copies the whole module including the
        # augmenter's cases, and cannot read checkpoints that have both networks in `state_dict`.
        if self.averaged is None or (batch_idx + 1) % self.recipe.train.accumulate:
            return
        # The decay is smaller at first, or the random initial weights would stay in the average for long
        # (as TensorFlow's ExponentialMovingAverage with num_updates).
        step = self.global_step
        decay = min(self.recipe.train.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            averages, weights = self.averaged.state_dict(), self.network.state_dict()
            for name, average in averages.items():
                if average.is_floating_point():
                    average.lerp_(weights[name], 1 - decay)
                else:
                    average.copy_(weights[name])

    def on_train_end(self) -> None:
        """Tells of labels of which nothing was found in the patches of the last epoch, or in validation."""
        missed = self._seen.missed(_gather((self._seen.patches.cpu(), self._seen.found.cpu())))
        dice = self.trainer.callback_metrics
        names = [
            label.name
            for label, one in zip(self.recipe.labels, missed, strict=True)
            if one and not float(dice.get(f"val_dice_{label.name}", 0)) > 0
        ]
        if names and self.trainer.is_global_zero and self.global_step >= FEWEST_STEPS:
            notify(
                "label-never-found",
                f"after {self.global_step} steps the network finds nothing of {listed(names)} in the patches "
                "of the last epoch that contain it: its masks will probably be empty",
                remedy="train for longer, or with another train.learning_rate or train.seed",
            )

    def on_validation_epoch_start(self) -> None:
        """Clears the results of the last validation."""
        self.scores, self._pictures = [], {}
        self._losses: dict[str, float] = {}

    def validation_step(self, scan: Scan, _: int) -> None:
        """Segments a whole scan with the sliding window, and measures the result."""
        patch = ValidationPatch(scan, self.recipe)
        masks = self.segment(scan["image"], patch.take)
        self._losses[scan["case"]] = patch.loss(self.loss)
        if self.trainer.is_global_zero and len(self._pictures) < _PICTURES:
            image, classes, table, predicted = (
                each.cpu().numpy() for each in (scan["image"][0].float(), scan["label"], scan["table"], masks)
            )
            self._pictures[f"validation/{scan['case']}"] = snapshot(
                image, LabelClasses(classes, table), predicted, scan["spacing_mm"]
            )
        dice, present = [], []
        index = scan["label"].to(torch.int32)
        for mask, row in zip(masks, scan["table"].T, strict=True):
            truth = row.index_select(0, index.flatten()).view(index.shape)  # one label at a time
            known = truth >= 0
            dice.append(_dice(mask & known, truth == 1, known))
            present.append(bool((truth == 1).any()))
        self.scores.append((scan["case"], dice, present))

    def segment(
        self, image: torch.Tensor, seen: Callable[[int, torch.Tensor], None] | None = None
    ) -> torch.Tensor:
        """Masks, bool (L, X, Y, Z), of a prepared ``image`` (C, X, Y, Z) on its own grid.

        Args:
            image: The image.
            seen: Called with the logits (L, X, Y, planes) of a few planes and the number of the first.
        """
        recipe = self.recipe
        decision = LabelDecision.from_recipe(recipe)
        # Plane by plane: the logits of all labels of a whole scan would take many times the memory.
        masks = image.new_empty((len(recipe.labels), *image.shape[1:]), dtype=torch.bool)
        portions = planes(
            image,
            self.product,
            labels=len(recipe.labels),
            patch=recipe.patch,
            predict=recipe.predict,
            divisor=recipe.network.divisor,
        )
        for first, values in portions:
            masks[..., first : first + values.shape[-1]] = decision.masks(values)
            if seen is not None:
                seen(first, values)
        return masks

    def on_validation_epoch_end(self) -> None:
        """Logs loss and Dice of every label, means over the scans of all processes, and the mean over labels.

        A label that no validation case contains is undefined, NaN, whatever was predicted: it has no
        overlap to measure. ``val_dice`` is NaN if that holds for all labels.
        """
        # By case, because with more processes than scans a scan is measured twice.
        rows = {case: (dice, present) for part in _gather(self.scores) for case, dice, present in part}
        ordered = [rows[case] for case in sorted(rows)]
        means = torch.tensor([dice for dice, _ in ordered], dtype=torch.float64).nanmean(0)
        present = torch.tensor([each for _, each in ordered]).any(0)
        means = means.masked_fill(~present, torch.nan)
        for label, mean in zip(self.recipe.labels, means, strict=True):
            self.log(f"val_dice_{label.name}", mean.to(torch.float32))
        self.log("val_dice", means.nanmean().to(torch.float32))
        losses = {case: value for part in _gather(self._losses) for case, value in part.items()}
        in_order = torch.tensor([losses[case] for case in sorted(losses)], dtype=torch.float64)
        self.log("val_loss", in_order.nanmean().to(torch.float32))
        log_pictures(self.trainer.loggers, self._pictures, self.global_step)

    def configure_optimizers(self) -> dict[str, Any]:
        """The recipe's optimiser and schedule."""
        rules = self.recipe.train
        weights = parameter_groups(self.network, self._tuning, self.recipe)
        optimizer = build_optimizer(weights, rules)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, rules)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the digests of recipe and data to the checkpoint."""
        checkpoint["medseg"] = {"recipe": self.recipe.digest, "data": self.data}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses the checkpoint of another recipe or of other data."""
        for what, current in (("recipe", self.recipe.digest), ("data", self.data)):
            saved = checkpoint["medseg"][what]
            if saved != current:
                raise UsageError(
                    f"the {what} has changed since the checkpoint (digest {saved[:12]}, now {current[:12]})",
                    where="--resume",
                    remedy="train into a new folder",
                    reason="resume-changed",
                )

    def _not_finite_error(self, problem: str, cases: list[str]) -> UsageError:
        """The error that names ``cases``, or all cases of the batch if there are none."""
        everywhere = [case for part in _gather((cases, self._cases)) for case in part[0]]
        batch = [case for part in _gather((cases, self._cases)) for case in part[1]]
        named = sorted(set(everywhere or batch))
        of = "in the patch of" if everywhere else "with patches of"
        return UsageError(
            f"{problem} in epoch {self.current_epoch + 1}, {of} {', '.join(named)}",
            where="training",
            remedy="inspect these cases with `medseg check`, or lower train.learning_rate",
            reason="nan-loss",
        )


def _not_finite(batch: Batch, outputs: torch.Tensor) -> list[str]:
    """Ids of the cases whose image or logits are not finite."""
    bad = [
        not bool(torch.isfinite(image).all() and torch.isfinite(out).all())
        for image, out in zip(batch["image"], outputs, strict=True)
    ]
    return [case for case, wrong in zip(batch["case"], bad, strict=True) if wrong]


def _gather(own: Any) -> list[Any]:
    """The values of all processes, in the order of their ranks."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [own]
    everything: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everything, own)
    return everything


def _dice(mask: torch.Tensor, truth: torch.Tensor, known: torch.Tensor) -> float:
    """Dice of two boolean tensors; NaN if both are empty or nothing is known."""
    both = float(mask.sum() + truth.sum())
    return 2 * float((mask & truth).sum()) / both if both and bool(known.any()) else float("nan")
