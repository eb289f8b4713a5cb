"""What is learned: the network, its loss and its optimiser, as Lightning steps through them."""

from __future__ import annotations

import copy
import math
from typing import Any

import lightning.pytorch as pl
import torch
from torch import distributed, nn

from medseg.errors import UsageError
from medseg.inference.label_decision import LabelDecision
from medseg.inference.sliding_window import logits
from medseg.networks import build as build_network
from medseg.networks import channels_last
from medseg.recipe import Recipe, Train
from medseg.training.case_cache import Patches, Sample
from medseg.training.dataloaders import Batch, Scan
from medseg.training.loggers import Picture, log_pictures
from medseg.training.losses import build as build_loss
from medseg.training.validation_images import snapshot

# Of the first validation cases, the same ones every time.
_PICTURES = 4


def learning_rate_factor(step: int, rules: Train) -> float:
    """Share of the peak learning rate at a step: up over the warm-up, then down to 0.

    Args:
        step: Optimiser steps done.
        rules: ``epochs * steps_per_epoch`` steps are planned.
    """
    # Not SequentialLR of LinearLR and CosineAnnealingLR: those update the rate before, so that rounding
    # adds up (relative 1.5e-11 after 75,000 steps, and other bits than the runs of before, which --rerun
    # repeats), they divide by 0 for a warm-up of all steps, and do not read the state of our checkpoints.
    total = rules.epochs * rules.steps_per_epoch
    warm = max(1, int(total * rules.warm_up)) if rules.warm_up else 0
    if step < warm:
        return (step + 1) / warm
    done = min(1.0, (step - warm) / max(1, total - warm))
    return 0.5 * (1 + math.cos(math.pi * done)) if rules.schedule == "cosine" else (1 - done) ** 0.9


class SegmentationModule(pl.LightningModule):  # type: ignore[misc]  # lightning is not typed strictly
    """Training and validation steps of a recipe.

    Attributes:
        network: What is trained.
        averaged: The moving average of its weights, when the recipe has an ``ema_decay``.
        found: After a validation, of each of this process' scans its id and the Dice of every label.

    Args:
        recipe: What to learn.
        data: Digest of the prepared data, kept in checkpoints.
        changes: Augments the patches of a batch where they are when they have not been by the loader.
    """

    def __init__(self, recipe: Recipe, data: str, changes: Patches | None = None) -> None:
        super().__init__()
        self.recipe = recipe
        self.data = data
        self.network = channels_last(build_network(recipe))
        decay = recipe.train.ema_decay
        self.averaged = copy.deepcopy(self.network).requires_grad_(False) if decay else None
        self.loss = build_loss(recipe)
        self.found: list[tuple[str, list[float]]] = []
        self._changes = changes
        self._cases: list[str] = []
        self._pictures: dict[str, Picture] = {}

    @property
    def product(self) -> nn.Module:
        """The network that validation measures and that becomes the model."""
        return self.network if self.averaged is None else self.averaged

    def on_train_epoch_start(self) -> None:
        """Ties dropout to the epoch."""
        # Dropout draws from torch's global state; tying it to the epoch keeps resumed
        # training equal to uninterrupted training.
        torch.manual_seed((self.recipe.train.seed * 1_000_003 + self.current_epoch) * 64 + self.global_rank)
        if self.averaged is not None:
            self.averaged.eval()

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """The batch, augmented on its device if the loader has not done it."""
        if not self.trainer.training or self._changes is None:
            return batch
        parts = zip(batch["image"], batch["label"], batch["case"], batch["seed"], strict=True)
        changed = [
            self._changes.changed(Sample(image=image, label=label, case=case, seed=int(seed)))
            for image, label, case, seed in parts
        ]
        return batch | {key: torch.stack([one[key] for one in changed]) for key in ("image", "label")}

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        """The loss of a batch."""
        self._cases = batch["case"]
        outputs = self.network(batch["image"])
        loss: torch.Tensor = self.loss(outputs, batch["label"])
        if not torch.isfinite(loss):
            first = outputs if isinstance(outputs, torch.Tensor) else outputs[0]
            raise self._broken(f"the loss is {loss.item()}", _not_finite(batch, first))
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["image"]))
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips the gradient to the recipe's norm, and stops where it is not finite."""
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.train.gradient_clip)
        # In fp16 the loss scaling makes infinite gradients now and then and skips the step.
        if self.recipe.train.precision != "fp16" and not torch.isfinite(norm):
            raise self._broken(f"the gradient's norm is {norm.item()}", [])

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        """Moves the average on after an optimiser step."""
        # Not Lightning's EMAWeightAveraging (2.6): it begins as a copy of the weights after the first step
        # in the place of a smaller decay, leaves the average out of checkpoints with `weights_only`
        # (our best.ckpt), rounds the count of batch normalisation down, copies the whole module with the
        # cases it augments, and cannot go on from checkpoints that have both networks in `state_dict`.
        if self.averaged is None or (batch_idx + 1) % self.recipe.train.accumulate:
            return
        # Smaller at first, or the random first weights would stay in the average for long
        # (as TensorFlow's ExponentialMovingAverage with num_updates).
        step = self.global_step
        decay = min(self.recipe.train.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            theirs, ours = self.averaged.state_dict(), self.network.state_dict()
            for name, average in theirs.items():
                if average.is_floating_point():
                    average.lerp_(ours[name], 1 - decay)
                else:
                    average.copy_(ours[name])

    def on_validation_epoch_start(self) -> None:
        """Forgets the last validation."""
        self.found, self._pictures = [], {}

    def validation_step(self, scan: Scan, _: int) -> None:
        """Segments a whole scan with the sliding window."""
        truth = scan["label"]
        found = self.segmented(scan["image"])
        if self.trainer.is_global_zero and len(self._pictures) < _PICTURES:
            image, true, seen = (each.cpu().numpy() for each in (scan["image"][0].float(), truth == 1, found))
            self._pictures[f"validation/{scan['case']}"] = snapshot(image, true, seen, scan["spacing_mm"])
        known = truth >= 0
        self.found.append(
            (scan["case"], [_dice(f & k, t == 1, k) for f, t, k in zip(found, truth, known, strict=True)])
        )

    def segmented(self, image: torch.Tensor) -> torch.Tensor:
        """Boolean (L, X, Y, Z) on the prepared grid of a prepared ``image`` (C, X, Y, Z)."""
        recipe = self.recipe
        out = logits(
            image,
            self.product,
            labels=len(recipe.labels),
            patch=recipe.patch,
            predict=recipe.predict,
            divisor=recipe.network.divisor,
        )
        return LabelDecision.from_recipe(recipe).masks(out)

    def on_validation_epoch_end(self) -> None:
        """Logs the mean Dice of every label over the scans of all processes."""
        # By case: with more processes than scans one is seen twice.
        rows = {case: dice for part in _gathered(self.found) for case, dice in part}
        means = torch.tensor([rows[case] for case in sorted(rows)], dtype=torch.float64).nanmean(0)
        for label, mean in zip(self.recipe.labels, means, strict=True):
            self.log(f"val_dice_{label.name}", mean.to(torch.float32))
        # A label absent from all validation cases is undefined and does not count.
        self.log("val_dice", means.nanmean().nan_to_num(0.0).to(torch.float32))
        log_pictures(self.trainer.loggers, self._pictures, self.global_step)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) with the recipe's schedule."""
        rules = self.recipe.train
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=rules.learning_rate, weight_decay=rules.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, rules)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Notes what is trained on what."""
        checkpoint["medseg"] = {"recipe": self.recipe.digest, "data": self.data}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses the checkpoint of another recipe or of other data."""
        for what, ours in (("recipe", self.recipe.digest), ("data", self.data)):
            theirs = checkpoint["medseg"][what]
            if theirs != ours:
                raise UsageError(
                    f"the {what} has changed since the checkpoint ({theirs[:12]}, now {ours[:12]})",
                    where="--resume",
                    remedy="train into a new folder",
                    reason="resume-changed",
                )

    def _broken(self, problem: str, cases: list[str]) -> UsageError:
        everywhere = [case for part in _gathered((cases, self._cases)) for case in part[0]]
        batch = [case for part in _gathered((cases, self._cases)) for case in part[1]]
        named = sorted(set(everywhere or batch))
        of = "in the patch of" if everywhere else "with patches of"
        return UsageError(
            f"{problem} in epoch {self.current_epoch + 1}, {of} {', '.join(named)}",
            where="training",
            remedy="look at this data with `medseg check`, or lower train.learning_rate",
            reason="nan-loss",
        )


def _not_finite(batch: Batch, outputs: torch.Tensor) -> list[str]:
    """The cases whose own image or logits are not finite."""
    bad = [
        not bool(torch.isfinite(image).all() and torch.isfinite(out).all())
        for image, out in zip(batch["image"], outputs, strict=True)
    ]
    return [case for case, wrong in zip(batch["case"], bad, strict=True) if wrong]


def _gathered(own: Any) -> list[Any]:
    """What every process has, in their order."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [own]
    everything: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everything, own)
    return everything


def _dice(found: torch.Tensor, truth: torch.Tensor, known: torch.Tensor) -> float:
    """Dice of two boolean tensors; NaN when both are empty or nothing is known."""
    both = float(found.sum() + truth.sum())
    return 2 * float((found & truth).sum()) / both if both and bool(known.any()) else float("nan")
