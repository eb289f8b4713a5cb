"""Checkpoints of a training, and the conditions under which it ends early.

``checkpoints/last.ckpt`` and ``previous.ckpt`` hold the whole state of the training after the last epoch
and after the one before it; ``best.ckpt`` holds the weights of the best validation. Each file is replaced
atomically: a process killed at any moment leaves either the old or the new one.
"""

from __future__ import annotations

import math
import os
import shutil
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO

from medseg.errors import ModelRefused, UsageError
from medseg.recipe import Train
from medseg.system.atomic_write import replacing
from medseg.system.notices import notify
from medseg.training.checkpoint_files import contents

FOLDER = "checkpoints"
_LAST, _PREVIOUS, _BEST = "last.ckpt", "previous.ckpt", "best.ckpt"


@dataclass(frozen=True)
class ResumePoint:
    """The checkpoint that a training continues from.

    Attributes:
        checkpoint: Path of the checkpoint.
        epochs_done: Number of epochs that were finished when it was written.
    """

    checkpoint: Path
    epochs_done: int


def find_resume_point(folder: Path) -> ResumePoint | None:
    """The last intact checkpoint of a training; None before the end of its first epoch.

    A damaged ``last.ckpt`` is skipped in favour of ``previous.ckpt``, with a warning.

    Args:
        folder: Folder of the training.

    Raises:
        ModelRefused: both are damaged, or not written by `medseg train` (``checkpoint-content``, or as
            :func:`medseg.training.checkpoint_files.contents`).
    """
    paths = [folder / FOLDER / name for name in (_LAST, _PREVIOUS)]
    refused: ModelRefused | None = None
    for path in (path for path in paths if path.is_file()):
        try:
            point = ResumePoint(path, _epochs_done(path))
        except ModelRefused as error:
            refused = refused or error
            continue
        if refused is not None:
            notify(
                "checkpoint-damaged",
                f"{refused.where} is damaged ({refused.problem}): "
                f"continuing from {path.name}, after epoch {point.epochs_done}",
            )
        return point
    if refused is not None:
        raise refused
    return None


def load_chosen(folder: Path) -> dict[str, Any]:
    """The content of the checkpoint that becomes the model: the best, or the last if there is no best.

    Raises:
        UsageError: no epoch was finished (``no-epoch``).
        ModelRefused: as :func:`find_resume_point`.
    """
    best = folder / FOLDER / _BEST
    if best.is_file():
        _check(best)
        return contents(best)
    last = find_resume_point(folder)
    if last is None:
        raise UsageError(
            "no epoch was finished, so there is no model",
            where=folder,
            remedy="allow more time",
            reason="no-epoch",
        )
    return contents(last.checkpoint)


def is_used(folder: Path) -> bool:
    """Whether a training has been started in this folder."""
    return (folder / "recipe.yaml").exists() or (folder / FOLDER).exists()


class AtomicCheckpointIO(TorchCheckpointIO):  # type: ignore[misc]  # lightning is not typed strictly
    """Writes each checkpoint atomically, and keeps the one before the last."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: object = None
    ) -> None:
        """Replaces ``path`` once the new file is on the disk."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as fresh:
            torch.save(checkpoint, fresh)
            if target.name == _LAST and target.is_file():
                self._keep_previous(target, fresh.parent / "kept")

    def _keep_previous(self, last: Path, temporary: Path) -> None:
        # A hard link to the old file becomes `previous.ckpt`, so that `last.ckpt` exists at every moment.
        try:
            temporary.hardlink_to(last)
        except OSError:  # a disk without hard links
            shutil.copyfile(last, temporary)
        temporary.replace(last.with_name(_PREVIOUS))


class CheckpointCallback(Callback):  # type: ignore[misc]  # lightning is not typed strictly
    """Saves the best and the last state, and ends the training early.

    A training ends early after ``patience`` validations in a row without a better mean Dice, before an
    epoch that would exceed ``max_seconds``, and after ``max_epochs``. The callback's own state is part of
    the checkpoints: a resumed training keeps the best Dice, the number of validations since then, and the
    time spent.

    Args:
        folder: Folder of the training.
        rules: Section ``train`` of the recipe.
        max_seconds: Time limit for all epochs, including those before an interruption.
        max_epochs: Number of epochs to stop after, although the recipe and its schedule have more.
    """

    def __init__(
        self, folder: Path, rules: Train, max_seconds: float | None, max_epochs: int | None = None
    ) -> None:
        self.folder = folder / FOLDER
        self.rules = rules
        self.max_seconds = max_seconds
        self.max_epochs = max_epochs
        self.best: float | None = None
        self.waited = 0
        self.seconds = 0.0
        self.longest = 0.0
        self._since = 0.0
        self._warned = False

    def state_dict(self) -> dict[str, Any]:
        """State that a resumed training needs."""
        return {name: getattr(self, name) for name in ("best", "waited", "seconds", "longest")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state that :meth:`state_dict` returned."""
        for name, value in state_dict.items():
            setattr(self, name, value)

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Starts the clock; ends a training that had already ended."""
        self._since = time.monotonic()
        if trainer.current_epoch and self._is_over(trainer, trainer.current_epoch):
            trainer.should_stop = True

    def on_validation_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Saves the weights if they are the best so far; does nothing if no Dice could be measured."""
        dice = float(trainer.callback_metrics["val_dice"])
        if math.isnan(dice):
            if trainer.is_global_zero and not self._warned:
                notify(
                    "validation-undefined",
                    "no validation case contains a label, so that no Dice can be measured: "
                    "the last weights become the model, and patience does not end the training",
                    remedy="add cases with labels to split 'val'",
                )
            self._warned = True
            return
        if self.best is None or dice > self.best:
            self.best, self.waited = dice, 0
            trainer.save_checkpoint(self.folder / _BEST, weights_only=True)
        else:
            self.waited += 1

    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Saves the state after every epoch."""
        now = time.monotonic()
        spent, self._since = now - self._since, now
        self.seconds += spent
        self.longest = max(self.longest, spent)
        trainer.save_checkpoint(self.folder / _LAST)
        if self._is_over(trainer, trainer.current_epoch + 1):
            trainer.should_stop = True

    def _is_over(self, trainer: pl.Trainer, epochs_done: int) -> bool:
        late = self.max_seconds is not None and self.seconds + self.longest > self.max_seconds
        # The first process decides for all: otherwise some would stop and the others wait for them.
        late = bool(trainer.strategy.broadcast(late))
        enough = self.max_epochs is not None and epochs_done >= self.max_epochs
        return late or enough or self.waited >= self.rules.patience


def _epochs_done(checkpoint: Path) -> int:
    _check(checkpoint)
    held = contents(checkpoint)
    epoch, ours = held.get("epoch"), held.get("medseg")
    if not (type(epoch) is int and isinstance(ours, dict) and {"recipe", "data"} <= ours.keys()):
        raise ModelRefused(
            "not a checkpoint of `medseg train`",
            where=checkpoint,
            remedy="train into a new folder",
            reason="checkpoint-content",
        )
    return epoch + 1


def _check(checkpoint: Path) -> None:
    """Verifies the checksums of the archive, which torch does not."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            bad = archive.testzip()
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, NotImplementedError):
        return  # refused by `contents`, with the reason
    if bad is not None:
        raise ModelRefused(
            f"damaged: its entry {bad!r} has a wrong checksum",
            where=checkpoint,
            remedy="continue from an older checkpoint, or train again",
            reason="checkpoint-archive",
        )
