"""The folder of a training: begun, resumed, and its provenance recorded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from medseg.datasets.manifest import Case
from medseg.errors import UsageError
from medseg.recipe import Recipe
from medseg.system.atomic_write import replacing
from medseg.system.file_lock import locked
from medseg.system.output_folder import make_output_folder
from medseg.training import checkpointing, provenance
from medseg.training.fine_tuning import SOURCE, FineTuning
from medseg.training.hardware import Hardware, is_first_process
from medseg.training.options import TrainingOptions
from medseg.training.training_data import TrainingData

_LOCK = ".lock"


@contextmanager
def lock(folder: Path, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Keeps other trainings out of a folder while the block runs; the folder is made if necessary.

    The first process of a training holds the lock for all.

    Args:
        folder: Folder of the training.
        wait_seconds: How long to wait for another process to leave the folder.

    Raises:
        UsageError: another training is running in the folder (``in-use``).
        ResourceError: the folder cannot be written to (``disk``).
    """
    if not is_first_process():
        yield
        return
    make_output_folder(folder)
    remedy = "wait until that training has ended, or choose another folder"
    with locked(folder / _LOCK, remedy=remedy, wait_seconds=wait_seconds):
        yield


def start(
    folder: Path, recipe: Recipe, *, resume: bool, tuning: FineTuning | None = None
) -> checkpointing.ResumePoint | None:
    """The checkpoint to continue from, or None for a training that starts at the first epoch.

    A new folder gets the recipe, and a copy of the model that the training starts from.

    Args:
        folder: Folder of the training.
        recipe: Recipe to train.
        resume: Whether to continue the training in the folder.
        tuning: The model that a new training starts from.

    Raises:
        UsageError: there is nothing to resume (``nothing-to-resume``), the recipe has changed
            (``resume-changed``), or a new training would write into the folder of another
            (``has-results``).
        ModelRefused: the checkpoints to resume from are damaged.
    """
    if resume:
        check_resumable(folder)
        if (folder / provenance.RUN).exists():
            provenance.check_recipe(provenance.read(folder), recipe)
        return checkpointing.find_resume_point(folder)
    if not is_first_process():  # the first process has just begun the folder
        return None
    if (folder / checkpointing.FOLDER).exists() or (folder / "model.safetensors").exists():
        raise UsageError(
            "the folder already holds a training",
            where=folder,
            remedy="add --resume, or choose a new folder",
            reason="has-results",
        )
    # The record of a training that was killed in its first epoch, and is now started anew.
    (folder / provenance.RUN).unlink(missing_ok=True)
    # Before the recipe: a folder with a recipe can be resumed, and then needs its source.
    if tuning is not None:
        tuning.write(folder)
    elif (folder / provenance.RECIPE).exists():
        (folder / SOURCE).unlink(missing_ok=True)
    with replacing(folder / provenance.RECIPE) as fresh:
        fresh.write_text(recipe.yaml(), encoding="utf-8")
    return None


def check_resumable(folder: Path) -> None:
    """Refuses a folder without a training.

    Raises:
        UsageError: there is nothing to resume (``nothing-to-resume``).
    """
    if not checkpointing.is_used(folder):
        raise UsageError(
            "nothing to resume",
            where=folder,
            remedy="leave out --resume to start a new training",
            reason="nothing-to-resume",
        )


def record(
    folder: Path,
    recipe: Recipe,
    cases: Sequence[Case],
    data: TrainingData,
    *,
    hardware: Hardware,
    options: TrainingOptions,
    tuning: FineTuning | None = None,
) -> None:
    """Writes the provenance of a new training, or compares it with that of a resumed or repeated one.

    Args:
        folder: Folder of the training; it exists.
        recipe: Recipe to train.
        cases: All cases of the manifest.
        data: The prepared ones.
        hardware: Device and number of processes.
        options: Options of the training.
        tuning: The model that the training starts from.

    Raises:
        UsageError: as :func:`medseg.training.provenance.check` or, for a resumed training,
            :func:`medseg.training.provenance.check_resume`.
    """
    if options.repeats is not None:
        provenance.check(options.repeats, data.digests, processes=hardware.processes)
    settings = {"processes": hardware.processes, "device": hardware.kind, "workers": hardware.workers}
    if not (folder / provenance.RUN).exists():
        if is_first_process():
            source = tuning.facts() if tuning else None
            provenance.write(folder, recipe, cases, options=settings, data=data.digests, source=source)
    elif is_first_process():
        changes = provenance.check_resume(
            provenance.read(folder), cases, data.digests, options=settings, accept=options.accept_changes
        )
        provenance.add_changes(folder, changes)
