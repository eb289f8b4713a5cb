"""The public function that trains a model from a recipe and a manifest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from medseg.datasets.manifest import Case, Manifest
from medseg.inference.model import Model
from medseg.recipe import Recipe
from medseg.system.progress import Shown, progress_bar
from medseg.training import provenance, trainer
from medseg.training.fine_tuning import SOURCE
from medseg.training.hardware import Hardware
from medseg.training.history import EpochEnd
from medseg.training.options import TrainingOptions
from medseg.training.provenance import check_outputs

__all__ = ["TrainingOptions", "rerun", "train"]


def train(
    recipe: Recipe | str | Path,
    cases: str | Path | Manifest | Sequence[Case],
    folder: str | Path,
    *,
    resume: bool = False,
    hardware: Hardware | None = None,
    options: TrainingOptions | None = None,
    on_epoch: Callable[[EpochEnd], None] = lambda end: None,
    progress: Shown = None,
) -> Model:
    """Trains a model and returns it; it is also saved as ``model.safetensors`` in ``folder``.

    The model has the weights with the highest mean validation Dice, or the last weights if there are no
    validation cases. The folder also holds everything needed to resume and to repeat the training: see
    :func:`medseg.training.trainer.train`. :func:`medseg.report` writes an HTML report of it.

    Args:
        recipe: A recipe, the path of its file, or the name of a shipped one.
        cases: A manifest, its path, or a sequence of cases. Splits other than ``train`` and ``val`` are
            ignored.
        folder: A new folder, or the folder of a training to resume.
        resume: Continue from the last checkpoint in ``folder``. On a CPU the result is identical, to the
            bit, to that of an uninterrupted training.
        hardware: Device and number of processes; by default one GPU, or this process on the CPU.
        options: Cache folder, time limit, additional trackers, and a model to start from.
        on_epoch: Called after every epoch.
        progress: Whether to show a progress bar; None shows it only on a terminal or in a notebook. A
            function is called with the number of prepared cases instead.

    Raises:
        UsageError: no training case, the folder is in use, nothing to resume, or the loss is not finite.
        InputRefused: :func:`medseg.check` finds an error in the cases (``data-errors``).
        ModelRefused: the checkpoints to resume from are damaged.
        ResourceError: out of memory; the error names sizes that fit.

    Example:
        >>> model = medseg.train("tiny.yaml", "cases.csv", "run", hardware=medseg.Hardware("cpu", workers=0))
        >>> [label.name for label in model.recipe.labels]
        ['right_lung', 'left_lung']
    """
    chosen = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
    check_outputs(Path(folder), [each for each in (recipe, cases) if isinstance(each, str | Path)], chosen)
    if isinstance(cases, str | Path):
        cases = Manifest.read(cases)
    with progress_bar("training", progress) as advance:

        def ended(end: EpochEnd) -> None:
            if not callable(progress):
                advance(end.epoch, end.epochs, f"loss {end.loss:.4f}")
            on_epoch(end)

        def prepared(done: int, total: int) -> None:
            advance(done, total, "cases prepared")

        return trainer.train(
            chosen,
            cases.cases if isinstance(cases, Manifest) else cases,
            folder,
            resume=resume,
            hardware=hardware,
            options=options,
            on_case=prepared,
            on_epoch=ended,
        )


def rerun(
    run: str | Path,
    folder: str | Path,
    *,
    root: str | Path | None = None,
    resume: bool = False,
    hardware: Hardware | None = None,
    options: TrainingOptions | None = None,
    on_epoch: Callable[[EpochEnd], None] = lambda end: None,
    progress: Shown = None,
) -> Model:
    """Repeats a training in a new folder, with the same recipe, cases and epochs, and returns the model.

    Args:
        run: Folder of the training to repeat.
        folder: A new folder, or one to resume.
        root: Folder of the data, if it has been moved since.
        resume: As for :func:`train`.
        hardware: As for :func:`train`.
        options: As for :func:`train`; ``repeats`` is replaced.
        on_epoch: As for :func:`train`.
        progress: As for :func:`train`.

    Raises:
        UsageError: ``run`` is not the folder of a training (``no-record``), or its data have changed.

    Example:
        >>> cpu = medseg.Hardware("cpu", workers=0)
        >>> model = medseg.train("tiny.yaml", "cases.csv", "original", hardware=cpu)
        >>> medseg.rerun("original", "repeated", hardware=cpu).digest == model.digest
        True
    """
    record = provenance.read(Path(run), root=root)
    options, source = options or TrainingOptions(), Path(run) / SOURCE
    if options.source is None and source.is_file():
        options = replace(options, source=source)
    return train(
        record.recipe,
        record.cases,
        folder,
        resume=resume,
        hardware=hardware,
        options=replace(options, repeats=record),
        on_epoch=on_epoch,
        progress=progress,
    )
