"""Training: a recipe and a manifest in, one model file out."""

from __future__ import annotations

import csv
import logging
import math
import platform
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, Timer
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from medseg.checkpoint import contents
from medseg.dataset import CachedCase, EpochSampler, Patches, cached
from medseg.errors import ModelRefused, UsageError
from medseg.io.atomic import replacing
from medseg.losses import build as build_loss
from medseg.manifest import Case
from medseg.model import Model
from medseg.networks import build as build_network
from medseg.networks import channels_last
from medseg.recipe import Recipe, digest
from medseg.sliding import logits


@dataclass(frozen=True)
class EpochEnd:
    """What is known when an epoch ends.

    Attributes:
        epoch: Epochs done, counted from 1.
        epochs: Epochs planned.
        loss: Mean training loss of the epoch.
        dice: Validation Dice by label, when this epoch validated.
        seconds_left: Estimated time to the last planned epoch.
    """

    epoch: int
    epochs: int
    loss: float
    dice: dict[str, float] | None
    seconds_left: float


def train(
    recipe: Recipe,
    cases: Sequence[Case],
    folder: str | Path,
    *,
    cache: Path | None = None,
    resume: bool = False,
    max_seconds: float | None = None,
    workers: int = 1,
    on_epoch: Callable[[EpochEnd], None] = lambda end: None,
) -> Model:
    """Trains the recipe's network and returns the best model, which is also on disk.

    The folder gets ``model.safetensors`` (the product), ``recipe.yaml``, ``history.csv``,
    ``checkpoints/`` (best and last, for resuming) and ``tensorboard/``. The best model is that
    of the highest mean validation Dice over labels, measured on whole scans with the sliding
    window; without validation cases it is the last.

    Args:
        recipe: Decides everything that is learned.
        cases: Cases of the splits ``train`` and ``val``; others are ignored.
        folder: A new folder, or one to resume.
        cache: Where prepared cases are kept; ``folder/cache`` by default.
        resume: Go on from the last checkpoint of ``folder``.
        max_seconds: Stop at the end of the epoch in which this time is over, the time of
            resumed parts counted in, keeping the best model so far.
        workers: Processes that cut and augment patches; 0 does it in this one.
        on_epoch: Called after every epoch.

    Raises:
        UsageError: no training case, a folder in use, nothing to resume, another recipe or other data.
        InputRefused: a case cannot be read.
    """
    folder = Path(folder)
    fitting = [case for case in cases if case.split == "train"]
    checking = [case for case in cases if case.split == "val"]
    if not fitting:
        raise UsageError(
            "no case has split 'train'",
            where="manifest",
            remedy="fill the split column",
            reason="no-training-case",
        )
    last = _start(folder, recipe, resume)
    place = cache or folder / "cache"
    prepared = [cached(case, recipe, place) for case in fitting]
    held = [cached(case, recipe, place) for case in checking]
    data = digest(sorted(case.folder.name for case in (*prepared, *held)))
    with _quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.train.seed)
        task = _Task(recipe, data)
        trainer = _trainer(recipe, folder, bool(held), max_seconds, on_epoch)
        trainer.fit(
            task,
            _patches(prepared, recipe, workers, first_epoch=_epochs_done(last)),
            _whole(held) if held else None,
            ckpt_path=str(last) if last else None,
            weights_only=True,
        )
    model = _product(recipe, folder, data, [c.id for c in prepared], [c.id for c in held])
    model.save(folder / "model.safetensors")
    return model


def learning_rate_factor(step: int, total: int) -> float:
    """Share of the peak learning rate at ``step`` of ``total``: up over a tenth, then down a cosine to 0."""
    warm = max(1, total // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, total - warm))))


class _Task(pl.LightningModule):  # type: ignore[misc]  # lightning is not typed strictly
    def __init__(self, recipe: Recipe, data: str) -> None:
        super().__init__()
        self.recipe = recipe
        self.data = data
        self.network = channels_last(build_network(recipe))
        self.loss = build_loss(recipe.loss)
        self._dice: list[list[float]] = []

    def on_train_epoch_start(self) -> None:
        # Dropout draws from torch's global state; tying it to the epoch keeps resumed
        # training equal to uninterrupted training.
        torch.manual_seed(self.recipe.train.seed * 1_000_003 + self.current_epoch)

    def training_step(self, batch: dict[str, torch.Tensor], _: int) -> torch.Tensor:
        loss: torch.Tensor = self.loss(self.network(batch["image"]), batch["label"])
        if not torch.isfinite(loss):
            raise UsageError(
                f"the loss is {loss.item()} in epoch {self.current_epoch + 1}",
                where="training",
                remedy="lower train.learning_rate, or look for broken intensities in the data",
                reason="nan-loss",
            )
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["image"]))
        return loss

    def validation_step(self, case: dict[str, torch.Tensor], _: int) -> None:
        recipe = self.recipe
        out = logits(
            case["image"], self.network, labels=len(recipe.labels), patch=recipe.patch, predict=recipe.predict
        )
        found = torch.sigmoid(out) >= recipe.predict.threshold
        self._dice.append([_dice(f, t.bool()) for f, t in zip(found, case["label"], strict=True)])

    def on_validation_epoch_end(self) -> None:
        means = torch.tensor(self._dice).nanmean(0)
        self._dice = []
        for label, mean in zip(self.recipe.labels, means, strict=True):
            self.log(f"val_dice_{label.name}", mean)
        # A label absent from all validation cases is undefined and does not count.
        self.log("val_dice", means.nanmean().nan_to_num(0.0))

    def configure_optimizers(self) -> dict[str, Any]:
        rules = self.recipe.train
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=rules.learning_rate, weight_decay=rules.weight_decay
        )
        total = rules.epochs * rules.steps_per_epoch
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, total)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["medseg"] = {"recipe": self.recipe.digest, "data": self.data}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for what, ours in (("recipe", self.recipe.digest), ("data", self.data)):
            theirs = checkpoint["medseg"][what]
            if theirs != ours:
                raise UsageError(
                    f"the {what} has changed since the checkpoint ({theirs[:12]}, now {ours[:12]})",
                    where="--resume",
                    remedy="train into a new folder",
                    reason="resume-changed",
                )


class _History(Callback):  # type: ignore[misc]  # lightning is not typed strictly
    """Keeps history.csv, one row an epoch, and reports each epoch."""

    def __init__(self, path: Path, recipe: Recipe, on_epoch: Callable[[EpochEnd], None]) -> None:
        self.path = path
        self.labels = [label.name for label in recipe.labels]
        self.columns = ["epoch", "seconds", "train_loss", "val_dice", *(f"val_dice_{n}" for n in self.labels)]
        self.on_epoch = on_epoch
        self.rows: list[dict[str, float | str]] = []
        self.started = self.before = 0.0
        self.first = 0

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.first, self.started = trainer.current_epoch, time.monotonic()
        if self.first and self.path.is_file():
            with self.path.open(newline="") as file:
                # Epochs after the checkpoint are done again, so their rows go.
                self.rows = [dict(row) for row in csv.DictReader(file) if int(row["epoch"]) <= self.first]
            self.before = float(self.rows[-1]["seconds"]) if self.rows else 0.0

    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        seen = {name: float(value) for name, value in trainer.callback_metrics.items()}
        epoch, epochs = trainer.current_epoch + 1, task.recipe.train.epochs
        validated = trainer.enable_validation and epoch % task.recipe.train.validate_every == 0
        spent = time.monotonic() - self.started
        row: dict[str, float | str] = {
            "epoch": epoch,
            "seconds": round(self.before + spent, 1),
            "train_loss": seen["train_loss"],
        }
        if validated:
            row |= {name: value for name, value in seen.items() if name.startswith("val_")}
        self.rows.append(row)
        text = StringIO()
        writer = csv.DictWriter(text, self.columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        with replacing(self.path) as fresh:
            fresh.write_text(text.getvalue())
        left = spent / (epoch - self.first) * (epochs - epoch)
        dice = {name: seen[f"val_dice_{name}"] for name in self.labels} if validated else None
        self.on_epoch(EpochEnd(epoch, epochs, seen["train_loss"], dice, left))


def _start(folder: Path, recipe: Recipe, resume: bool) -> Path | None:
    """The checkpoint to go on from, None for a new training; the recipe is written beside it."""
    last = folder / "checkpoints" / "last.ckpt"
    if resume:
        if last.is_file():
            return last
        raise UsageError(
            "nothing to resume",
            where=folder,
            remedy="leave out --resume to start a new training",
            reason="nothing-to-resume",
        )
    if last.is_file() or (folder / "model.safetensors").exists():
        raise UsageError(
            "the folder holds a training already",
            where=folder,
            remedy="add --resume, or choose a new folder",
            reason="folder-in-use",
        )
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "recipe.yaml") as fresh:
        fresh.write_text(recipe.yaml(), encoding="utf-8")
    return None


def _epochs_done(checkpoint: Path | None) -> int:
    if checkpoint is None:
        return 0
    held = contents(checkpoint)
    epoch, ours = held.get("epoch"), held.get("medseg")
    if not (type(epoch) is int and isinstance(ours, dict) and {"recipe", "data"} <= ours.keys()):
        raise ModelRefused(
            "this is no checkpoint of `medseg train`",
            where=checkpoint,
            remedy="train into a new folder",
            reason="checkpoint-content",
        )
    return epoch + 1


def _trainer(
    recipe: Recipe,
    folder: Path,
    validating: bool,
    max_seconds: float | None,
    on_epoch: Callable[[EpochEnd], None],
) -> pl.Trainer:
    rules = recipe.train
    checkpoints = folder / "checkpoints"
    # Without the version counter off, a rerun would write last-v1.ckpt while resume reads last.ckpt.
    callbacks: list[Callback] = [
        _History(folder / "history.csv", recipe, on_epoch),
        ModelCheckpoint(checkpoints, "last", enable_version_counter=False, save_on_train_epoch_end=True),
    ]
    if validating:
        callbacks += [
            ModelCheckpoint(
                checkpoints,
                "best",
                monitor="val_dice",
                mode="max",
                enable_version_counter=False,
                save_on_train_epoch_end=False,
            ),
            EarlyStopping("val_dice", mode="max", patience=rules.patience),
        ]
    if max_seconds is not None:
        # By epoch: an epoch cut short would count as done, and resuming would skip the rest of it.
        callbacks.append(Timer(timedelta(seconds=max_seconds), interval="epoch", verbose=False))
    return pl.Trainer(
        accelerator="auto",
        devices=1,
        max_epochs=rules.epochs,
        check_val_every_n_epoch=rules.validate_every,
        num_sanity_val_steps=0,
        gradient_clip_val=rules.gradient_clip,
        logger=TensorBoardLogger(str(folder), name="", version="tensorboard"),
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )


def _patches(
    cases: Sequence[CachedCase], recipe: Recipe, workers: int, *, first_epoch: int
) -> DataLoader[Any]:
    rules = recipe.train
    return DataLoader(
        Patches(cases, recipe),
        batch_size=rules.batch_size,
        sampler=EpochSampler(rules.steps_per_epoch * rules.batch_size, first_epoch),
        num_workers=workers,
        persistent_workers=workers > 0,
        # The loader draws a seed for its workers; from torch's own generator that would shift dropout.
        generator=torch.Generator(),
    )


def _whole(cases: Sequence[CachedCase]) -> DataLoader[Any]:
    whole = [{"image": p.image, "label": p.label} for p in (case.load() for case in cases)]
    return DataLoader(whole, batch_size=None, collate_fn=_as_is)  # type: ignore[arg-type]  # a list is a dataset


def _as_is(case: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return case


def _dice(found: torch.Tensor, truth: torch.Tensor) -> float:
    """Dice of two boolean tensors; NaN when both are empty."""
    both = float(found.sum() + truth.sum())
    return 2 * float((found & truth).sum()) / both if both else float("nan")


def _product(recipe: Recipe, folder: Path, data: str, fitted: list[str], held: list[str]) -> Model:
    best, last = (folder / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    chosen = contents(best if best.is_file() else last)
    prefix = "network."
    weights = {
        name.removeprefix(prefix): tensor
        for name, tensor in chosen["state_dict"].items()
        if name.startswith(prefix)
    }
    provenance = {
        "medseg": version("medseg"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "recipe_digest": recipe.digest,
        "data_digest": data,
        "train_cases": fitted,
        "val_cases": held,
        "epoch": int(chosen["epoch"]) + 1,
        "research_use_only": True,
    }
    return Model(recipe, (weights,), provenance)


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's hints about workers and accelerators kept off the user's terminal, then restored."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
