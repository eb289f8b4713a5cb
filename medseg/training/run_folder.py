"""The folder of a training: begun, resumed, and its provenance recorded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medseg.datasets.manifest import Case
from medseg.errors import UsageError
from medseg.recipe import Recipe
from medseg.system.atomic_write import replacing
from medseg.training import checkpointing, provenance
from medseg.training.hardware import Hardware, is_first_process
from medseg.training.provenance import Record
from medseg.training.training_data import TrainingData


def start(folder: Path, recipe: Recipe, *, resume: bool) -> checkpointing.ResumePoint | None:
    """The checkpoint to continue from, or None for a training that starts at the first epoch.

    A new folder gets the recipe.

    Args:
        folder: Folder of the training.
        recipe: Recipe to train.
        resume: Whether to continue the training in the folder.

    Raises:
        UsageError: there is nothing to resume (``nothing-to-resume``), or a new training would write
            into the folder of another (``has-results``).
        ModelRefused: the checkpoints to resume from are damaged.
    """
    if resume:
        if checkpointing.is_used(folder):
            return checkpointing.find_resume_point(folder)
        raise UsageError(
            "nothing to resume",
            where=folder,
            remedy="leave out --resume to start a new training",
            reason="nothing-to-resume",
        )
    if not is_first_process():  # the first process has just begun the folder
        return None
    if (folder / checkpointing.FOLDER).exists() or (folder / "model.safetensors").exists():
        raise UsageError(
            "the folder already holds a training",
            where=folder,
            remedy="add --resume, or choose a new folder",
            reason="has-results",
        )
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / provenance.RECIPE) as fresh:
        fresh.write_text(recipe.yaml(), encoding="utf-8")
    return None


def record(
    folder: Path,
    recipe: Recipe,
    cases: Sequence[Case],
    data: TrainingData,
    *,
    hardware: Hardware,
    repeats: Record | None,
) -> None:
    """Writes the provenance of a new training; compares it with the record of one to be repeated.

    Args:
        folder: Folder of the training; it exists.
        recipe: Recipe to train.
        cases: All cases of the manifest.
        data: The prepared ones.
        hardware: Device and number of processes.
        repeats: Record of a training to repeat.

    Raises:
        UsageError: as :func:`medseg.training.provenance.check`.
    """
    if repeats is not None:
        provenance.check(repeats, data.digests, processes=hardware.processes)
    if is_first_process() and not (folder / provenance.RUN).exists():
        options = {"processes": hardware.processes, "device": hardware.kind, "workers": hardware.workers}
        provenance.write(folder, recipe, cases, options=options, data=data.digests)
