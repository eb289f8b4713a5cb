"""What a training keeps on disk so that it can go on after any interruption, and when it ends.

``checkpoints/last.ckpt`` and ``previous.ckpt`` hold everything that decides how it goes on, after
the last epoch and the one before it. ``best.ckpt`` holds the weights of the best validation. Each
is replaced whole, so that a process killed at any moment leaves the older one.
"""

from __future__ import annotations

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
    """Where a training goes on.

    Attributes:
        checkpoint: The file.
        epochs_done: Epochs behind it.
    """

    checkpoint: Path
    epochs_done: int


def resumption(folder: Path) -> ResumePoint | None:
    """The last whole checkpoint of a run; None before the end of its first epoch.

    A damaged ``last.ckpt`` is passed over for ``previous.ckpt`` with a warning that says so.

    Args:
        folder: Of the run.

    Raises:
        ModelRefused: both are damaged, or are no checkpoints of this program
            (``checkpoint-content``, or as :func:`medseg.training.checkpoint_files.contents`).
    """
    places = [folder / FOLDER / name for name in (_LAST, _PREVIOUS)]
    there = [place for place in places if place.is_file()]
    refused: ModelRefused | None = None
    for place in there:
        try:
            found = ResumePoint(place, _epochs_done(place))
        except ModelRefused as error:
            refused = refused or error
            continue
        if refused is not None:
            notify(
                "checkpoint-damaged",
                f"{refused.where} is damaged ({refused.problem}): "
                f"going on from {place.name}, after epoch {found.epochs_done}",
            )
        return found
    if refused is not None:
        raise refused
    return None


def chosen(folder: Path) -> dict[str, Any]:
    """The checkpoint that becomes the model: the best, or the last where nothing was validated.

    Raises:
        ModelRefused: as :func:`resumption`.
    """
    best = folder / FOLDER / _BEST
    if best.is_file():
        _check(best)
        return contents(best)
    last = resumption(folder)
    if last is None:
        raise UsageError(
            "no epoch was finished, so there is no model",
            where=folder,
            remedy="allow more time",
            reason="no-epoch",
        )
    return contents(last.checkpoint)


def used(folder: Path) -> bool:
    """Whether a training has been started in this folder."""
    return (folder / "recipe.yaml").exists() or (folder / FOLDER).exists()


class WholeFiles(TorchCheckpointIO):  # type: ignore[misc]  # lightning is not typed strictly
    """Writes checkpoints that are whole or not there, and keeps the one before the last."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: object = None
    ) -> None:
        """Replaces ``path`` once the new file is on the disk."""
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(place) as fresh:
            torch.save(checkpoint, fresh)
            if place.name == _LAST and place.is_file():
                self._keep(place, fresh.parent / "kept")

    def _keep(self, last: Path, temporary: Path) -> None:
        # `last.ckpt` never goes away meanwhile: a second name for the old file, then a new file.
        try:
            temporary.hardlink_to(last)
        except OSError:  # a disk without hard links
            shutil.copyfile(last, temporary)
        temporary.replace(last.with_name(_PREVIOUS))


class CheckpointCallback(Callback):  # type: ignore[misc]  # lightning is not typed strictly
    """Keeps the best and last state, and ends the training early where there is a reason.

    Reasons are ``patience`` validations in a row without a better mean Dice, and that another
    epoch would end after ``most_seconds`` or be one more than ``most_epochs``. Its own state is in
    the checkpoints: a resumed training remembers the best Dice, how long it has waited for a
    better one, and its time.

    Args:
        folder: Of the run.
        rules: Of the recipe.
        most_seconds: Time for all epochs, those before an interruption counted in.
        most_epochs: Epochs to stop after, although the recipe, and its schedule, have more.
    """

    def __init__(
        self, folder: Path, rules: Train, most_seconds: float | None, most_epochs: int | None = None
    ) -> None:
        self.folder = folder / FOLDER
        self.rules = rules
        self.most_seconds = most_seconds
        self.most_epochs = most_epochs
        self.best: float | None = None
        self.waited = 0
        self.seconds = 0.0
        self.longest = 0.0
        self._since = 0.0

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training has to know."""
        return {name: getattr(self, name) for name in ("best", "waited", "seconds", "longest")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from what :meth:`state_dict` gave."""
        for name, value in state_dict.items():
            setattr(self, name, value)

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Starts the clock; a training that had ended does not go on."""
        self._since = time.monotonic()
        if trainer.current_epoch and self._over(trainer, trainer.current_epoch):
            trainer.should_stop = True

    def on_validation_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Keeps the weights when they are the best so far."""
        dice = float(trainer.callback_metrics["val_dice"])
        if self.best is None or dice > self.best:
            self.best, self.waited = dice, 0
            trainer.save_checkpoint(self.folder / _BEST, weights_only=True)
        else:
            self.waited += 1

    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Keeps the state after every epoch."""
        now = time.monotonic()
        spent, self._since = now - self._since, now
        self.seconds += spent
        self.longest = max(self.longest, spent)
        trainer.save_checkpoint(self.folder / _LAST)
        if self._over(trainer, trainer.current_epoch + 1):
            trainer.should_stop = True

    def _over(self, trainer: pl.Trainer, epochs_done: int) -> bool:
        late = self.most_seconds is not None and self.seconds + self.longest > self.most_seconds
        # One clock for all processes, or some would stop and others wait for them.
        late = bool(trainer.strategy.broadcast(late))
        enough = self.most_epochs is not None and epochs_done >= self.most_epochs
        return late or enough or self.waited >= self.rules.patience


def _epochs_done(checkpoint: Path) -> int:
    _check(checkpoint)
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


def _check(checkpoint: Path) -> None:
    """Compares all checksums of the archive, which torch does not."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            bad = archive.testzip()
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, NotImplementedError):
        return  # `contents` refuses it with the reason
    if bad is not None:
        raise ModelRefused(
            f"damaged: the checksum of {bad!r} in it is wrong",
            where=checkpoint,
            remedy="go on from an older checkpoint, or train again",
            reason="checkpoint-archive",
        )
