"""Fine-tuning of a model on submitted labels, by ``medseg train`` in a process of its own."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from medseg.errors import MedsegError, UsageError
from medseg.inference.model_file import ModelFile
from medseg.inference.model_files import find
from medseg.inference.model_package import read_model
from medseg.inference.registry import load_segmenter
from medseg.inference.threshold_segmenter import ThresholdSegmenter
from medseg.recipe import Recipe
from medseg.serving.loaded_models import LoadedModel, LoadedModels
from medseg.system.output_folder import make_output_folder

_TRAININGS = "trainings"
_MODEL, _HISTORY = "model.safetensors", "history.csv"
_LINES = 50
_PATIENCE_SECONDS = 10.0
EPOCHS = 50
"""Epochs of a training whose length the client does not choose."""
_MOST_EPOCHS = 10_000


@dataclass
class Task:
    """A training.

    Attributes:
        id: Name of its folder.
        model: Name of the model that it starts from.
        folder: Folder of the training.
        epochs: Number of planned epochs.
        process: The process.
        start: When it began.
        end: When it ended; empty before.
        stopped: Whether a client stopped it.
    """

    id: str
    model: str
    folder: Path
    epochs: int
    process: subprocess.Popen[bytes]
    start: str
    end: str = ""
    stopped: bool = False
    loaded: str = field(default="")

    @property
    def log(self) -> Path:
        """File of what the process prints."""
        return self.folder.with_name(f"{self.id}.log")

    def status(self) -> str:
        """``RUNNING``, ``DONE``, ``STOPPED`` or ``FAILED``."""
        code = self.process.poll()
        if code is None:
            return "RUNNING"
        self.end = self.end or _now()
        return "DONE" if code == 0 else "STOPPED" if self.stopped else "FAILED"

    def epochs_done(self) -> list[dict[str, str]]:
        """The rows of the training's history so far."""
        path = self.folder / _HISTORY
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def best_dice(self) -> float:
        """The highest mean validation Dice so far; 0 if there is none."""
        given = [row.get("val_dice") or "" for row in self.epochs_done()]
        return max((float(text) for text in given if text and text != "nan"), default=0.0)


class BackgroundTraining:
    """At most one training at a time.

    Args:
        output: Folder for trainings; None if there is no data folder.
        models: The models of the server; a trained one is added to them.
        device: Device of the training.
    """

    def __init__(self, output: Path | None, models: LoadedModels, *, device: str = "auto") -> None:
        self._output, self._models, self._device = output, models, device
        self._task: Task | None = None

    def trainers(self) -> dict[str, dict[str, object]]:
        """The models that can be fine-tuned, as MONAI Label describes trainers."""
        if self._output is None:
            return {}
        return {
            name: {
                "labels": list(model.labels),
                "description": f"fine-tune {name} on submitted labels",
                "config": {"max_epochs": EPOCHS},
            }
            for name, model in self._models.all().items()
            if _is_trainable(model)
        }

    def stats(self) -> dict[str, dict[str, object]]:
        """Progress of the last training, by its model."""
        task = self._task
        if task is None:
            return {}
        done = len(task.epochs_done())
        facts = {
            "epoch": done,
            "total_epochs": task.epochs,
            "best_metric": task.best_dice(),
            "start_ts": task.start,
        }
        return {task.model: facts}

    def start(self, name: str, manifest: Path | None, params: Mapping[str, object]) -> dict[str, object]:
        """Starts a training.

        Args:
            name: Model to start from.
            manifest: Manifest of the submitted labels.
            params: ``max_epochs``, if the client chooses it.

        Raises:
            UsageError: a training runs (``training-runs``); there is no data folder (``no-data-folder``), no
                label (``nothing-to-train``), or the model cannot be fine-tuned (``not-trainable``).
        """
        if self._task is not None and self._task.status() == "RUNNING":
            raise UsageError(
                "a training is running", remedy="wait for its end, or stop it", reason="training-runs"
            )
        model = self._models.named(name)
        if self._output is None:
            raise UsageError(
                "this server keeps no trainings",
                remedy="start it with a data folder: medseg serve FOLDER",
                reason="no-data-folder",
            )
        if manifest is None or not manifest.is_file():
            raise UsageError(
                "no label was submitted yet", remedy="submit labels first", reason="nothing-to-train"
            )
        recipe = _trainable(model)
        epochs = params.get("max_epochs")
        count = epochs if isinstance(epochs, int) and 0 < epochs <= _MOST_EPOCHS else EPOCHS
        recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": count})})
        self._task = self._started(model, recipe, manifest, count)
        return self.status()

    def _started(self, model: LoadedModel, recipe: Recipe, manifest: Path, epochs: int) -> Task:
        assert self._output is not None  # checked by the caller
        folder = self._output / _TRAININGS
        make_output_folder(folder)
        number = 1
        while (folder / f"{model.name}-{number}.yaml").exists():
            number += 1
        name = f"{model.name}-{number}"
        (folder / f"{name}.yaml").write_text(recipe.yaml(), encoding="utf-8")
        command = [
            *(sys.executable, "-m", "medseg", "train", str(folder / f"{name}.yaml"), str(manifest)),
            *("-o", str(folder / name), "--from", str(find(model.source)), "--device", self._device),
            *("--workers", "0"),
        ]
        with (folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return Task(name, model.name, folder / name, epochs, process, _now())

    def status(self, *, running: bool = False) -> dict[str, object]:
        """The last training, with the last lines that it printed.

        Args:
            running: Only a training that runs.

        Raises:
            UsageError: there is none (``not-training``).
        """
        task = self._task
        if task is None or (running and task.status() != "RUNNING"):
            raise UsageError("no training is running", remedy="start one", reason="not-training")
        state = task.status()
        return {
            "id": task.id,
            "model": task.model,
            "status": state,
            "start_ts": task.start,
            "end_ts": task.end,
            "progress": {
                "epoch": len(task.epochs_done()),
                "epochs": task.epochs,
                "best_dice": task.best_dice(),
            },
            "details": _last_lines(task.log) or [state],
        }

    def load_result(self) -> None:
        """Adds the model of a training that has ended to those of the server, once."""
        task = self._task
        if task is None or task.loaded or task.status() != "DONE":
            return
        task.loaded = task.id
        path = task.folder / _MODEL
        try:
            self._models.add(LoadedModel(task.id, load_segmenter(path, device=self._device), str(path)))
        except MedsegError as error:
            with task.log.open("a", encoding="utf-8") as log:
                log.write(f"\nthe model was not loaded: {error}\n")

    def stop(self) -> dict[str, object]:
        """Stops the training; ``medseg train --resume`` can continue it.

        Raises:
            UsageError: none is running (``not-training``).
        """
        self.status(running=True)
        self.close()
        return self.status()

    def close(self) -> None:
        """Ends the process, if one runs."""
        task = self._task
        if task is None or task.process.poll() is not None:
            return
        task.stopped = True
        task.process.terminate()
        try:
            task.process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            task.process.kill()
            task.process.wait()


def _is_trainable(model: LoadedModel) -> bool:
    try:
        _trainable(model)
    except MedsegError:
        return False
    return True


def _trainable(model: LoadedModel) -> Recipe:
    """The recipe of a model that can be fine-tuned.

    Raises:
        UsageError: it has none, or one that ``medseg train`` does not train (``not-trainable``).
    """
    recipe = None
    if model.method.name != ThresholdSegmenter.name:
        file = read_model(model.source)
        recipe = file.recipe if isinstance(file, ModelFile) else None
    if (
        recipe is None
        or recipe.context is not None
        or recipe.pipeline is not None
        or len(recipe.channels) > 1
    ):
        raise UsageError(
            f"{model.name} cannot be fine-tuned: it is not one network of medseg train for one scan",
            remedy="serve a model that medseg train has made",
            reason="not-trainable",
        )
    return recipe


def _last_lines(path: Path) -> Sequence[str]:
    if not path.is_file():
        return ()
    return path.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()[-_LINES:]


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
