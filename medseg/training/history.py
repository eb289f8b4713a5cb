"""The training history: one row per epoch in ``history.csv``, and a report to the caller."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from medseg.recipe import Recipe
from medseg.system.atomic_write import replacing
from medseg.training.dataloaders import Loader


@dataclass(frozen=True)
class EpochEnd:
    """Results of an epoch.

    Attributes:
        epoch: Number of the epoch, from 1.
        epochs: Number of planned epochs.
        loss: Mean training loss of the epoch.
        dice: Validation Dice by label (NaN if no scan has the label); None if this epoch did not validate.
        seconds_left: Estimated time to the end of the last planned epoch.
        waiting: Share of the training time (without validation) spent waiting for data, 0..1, over all
            epochs of this process but its first, in which the workers start; None in the first.
    """

    epoch: int
    epochs: int
    loss: float
    dice: dict[str, float] | None
    seconds_left: float
    waiting: float | None = None


class History(Callback):  # type: ignore[misc]  # lightning is not typed strictly
    """Writes ``history.csv`` and reports each epoch, in the first process only.

    Columns: ``epoch`` (from 1), ``seconds`` since the start (including earlier parts of a resumed
    training), ``train_loss``, ``waiting`` (share of this epoch's training time spent waiting for data),
    ``val_loss`` (of a patch of each validation scan), ``val_dice`` and ``val_dice_<label>``, which are empty
    if the epoch did not validate.

    Args:
        path: Path of the CSV file.
        recipe: Recipe of the training.
        loader: Training batches; it measures the time spent waiting.
        on_epoch: Called after every epoch.
    """

    def __init__(
        self, path: Path, recipe: Recipe, loader: Loader, on_epoch: Callable[[EpochEnd], None]
    ) -> None:
        self.path = path
        self.labels = [label.name for label in recipe.labels]
        dice = [f"val_dice_{name}" for name in self.labels]
        self.columns = ["epoch", "seconds", "train_loss", "waiting", "val_loss", "val_dice", *dice]
        self.loader = loader
        self.on_epoch = on_epoch
        self.rows: list[dict[str, float | str]] = []
        self.started = self.before = 0.0
        self.first = 0
        self._clock = _Clock()

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Reads the rows of finished epochs."""
        self.first, self.started = trainer.current_epoch, time.monotonic()
        if self.first and self.path.is_file():
            with self.path.open(newline="") as file:
                # Epochs after the checkpoint are repeated, so their rows are dropped.
                self.rows = [dict(row) for row in csv.DictReader(file) if int(row["epoch"]) <= self.first]
            self.before = float(self.rows[-1]["seconds"]) if self.rows else 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Starts the epoch's clock."""
        self._clock.start(self.loader.waited_seconds)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Stops the epoch's clock; after the last batch this is the training time without validation."""
        self._clock.stop(self.loader.waited_seconds)

    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Writes and reports the epoch."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        epoch, epochs = trainer.current_epoch + 1, task.recipe.train.epochs
        validated = trainer.enable_validation and epoch % task.recipe.train.validate_every == 0
        spent = time.monotonic() - self.started
        self._clock.add(first=epoch == self.first + 1)
        if not trainer.is_global_zero:
            return
        row: dict[str, float | str] = {
            "epoch": epoch,
            "seconds": round(self.before + spent, 1),
            "train_loss": metrics["train_loss"],
            "waiting": round(self._clock.share, 4),
        }
        if validated:
            row |= {name: value for name, value in metrics.items() if name.startswith("val_")}
        self.rows.append(row)
        self._write()
        left = spent / (epoch - self.first) * (epochs - epoch)
        dice = {name: metrics[f"val_dice_{name}"] for name in self.labels} if validated else None
        self.on_epoch(EpochEnd(epoch, epochs, metrics["train_loss"], dice, left, self._clock.total_share))

    def _write(self) -> None:
        text = StringIO()
        writer = csv.DictWriter(text, self.columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        with replacing(self.path) as fresh:
            fresh.write_text(text.getvalue())


class _Clock:
    """Total training time, and the part of it that was spent waiting for data."""

    def __init__(self) -> None:
        self._started = self._waited_before = 0.0
        self._spent = self._waited = 0.0
        self._all_spent = self._all_waited = 0.0

    def start(self, waited: float) -> None:
        self._started, self._waited_before = time.monotonic(), waited
        self._spent = self._waited = 0.0

    def stop(self, waited: float) -> None:
        self._spent, self._waited = time.monotonic() - self._started, waited - self._waited_before

    def add(self, *, first: bool) -> None:
        if not first:
            self._all_spent += self._spent
            self._all_waited += self._waited

    @property
    def share(self) -> float:
        return self._waited / self._spent if self._spent else 0.0

    @property
    def total_share(self) -> float | None:
        return self._all_waited / self._all_spent if self._all_spent else None
