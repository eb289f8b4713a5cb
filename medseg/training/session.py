"""A training in one call: a recipe and a manifest in, one model file out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.datasets.manifest import Case, Manifest
from medseg.inference.model import Model
from medseg.recipe import Recipe
from medseg.system.progress import Shown, progress_bar
from medseg.training import trainer
from medseg.training.hardware import Hardware
from medseg.training.history import EpochEnd
from medseg.training.provenance import Record


@dataclass(frozen=True)
class TrainingOptions:
    """What may be decided about a training beside its recipe.

    Attributes:
        cache: Folder of prepared cases; ``cache`` in the training's folder by default.
        max_seconds: Stop before the epoch that would end after this time, the time of resumed parts counted
            in. The first epoch is always run.
        track: Further trackers: ``wandb``, ``mlflow``.
        repeats: The record of a training to be done again, of :func:`medseg.training.provenance.read`: the
            data must be what they were, and it ends after the same epoch.

    Example:
        >>> medseg.TrainingOptions(max_seconds=1200).track
        ()
    """

    cache: Path | None = None
    max_seconds: float | None = None
    track: tuple[str, ...] = ()
    repeats: Record | None = None


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
    """The trained model, which is also ``model.safetensors`` in ``folder``.

    It is the one with the highest mean validation Dice; without validation cases, the last. The folder also
    gets what is needed to resume and to repeat the training: see :func:`medseg.training.trainer.train`.
    :func:`medseg.report` makes a page of it.

    Args:
        recipe: Decides everything that is learned: a recipe, its file, or the name of a shipped one.
        cases: A manifest, its path, or cases, of the splits ``train`` and ``val``; others are ignored.
        folder: A new folder, or one to resume.
        resume: Go on from the last checkpoint of ``folder``: on a CPU the result is the same to the bit.
        hardware: Where it runs; by default one GPU, or this process on the CPU.
        options: Where prepared cases lie, how long it may take, and who else is told of it.
        on_epoch: Called after every epoch.
        progress: Whether to show a bar; None on a terminal or in a notebook only. A function is called with
            the number of cases that are prepared.

    Raises:
        UsageError: no training case, a folder in use, nothing to resume, or the loss is not a number.
        InputRefused: :func:`medseg.check` finds an error in the cases (``data-errors``).
        ModelRefused: the checkpoints to resume from are damaged.
        ResourceError: out of memory; the error names sizes that fit.

    Example:
        >>> model = medseg.train("tiny.yaml", "cases.csv", "run", hardware=medseg.Hardware("cpu", workers=0))
        >>> [label.name for label in model.recipe.labels]
        ['right_lung', 'left_lung']
    """
    chosen = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
    if isinstance(cases, str | Path):
        cases = Manifest.read(cases)
    options = options or TrainingOptions()
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
            cache=options.cache,
            resume=resume,
            max_seconds=options.max_seconds,
            hardware=hardware,
            track=options.track,
            repeats=options.repeats,
            on_case=prepared,
            on_epoch=ended,
        )
