"""The public function that trains and measures a recipe in folds."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd

from medseg.cross_validation.fold_assignment import FILE, FoldAssignment
from medseg.cross_validation.out_of_fold import (
    choose_steps,
    fold_folder,
    read_ensemble,
    save_ensemble,
    score_out_of_fold,
)
from medseg.datasets.manifest import Case, Manifest
from medseg.errors import UsageError
from medseg.evaluation import summary_table
from medseg.inference.model import Model
from medseg.recipe import Recipe
from medseg.system.output_folder import make_output_folder
from medseg.training import checkpointing, provenance, run_folder, trainer
from medseg.training.case_cache import CachedCase, cached
from medseg.training.hardware import Hardware, is_first_process
from medseg.training.history import EpochEnd
from medseg.training.options import TrainingOptions

# Longer than the slowest evaluation of all cases.
_FINISHING_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class Folds:
    """Which folds to train.

    Attributes:
        count: Number of folds, at least 2.
        only: Train this fold alone, from 0, for example on its own machine; None for all in turn.

    Example:
        >>> medseg.Folds(5, only=0).count
        5
    """

    count: int = 5
    only: int | None = None


@dataclass(frozen=True)
class CrossValidation:
    """The result of :func:`cross_validate`.

    Attributes:
        fold_of: The fold that held out each case, from 0, by case id.
        table: Scores of every case and label by the model that has not seen the case, with the column
            ``fold``; None as long as a fold is not finished.
        model: The ensemble of all folds; None as long as a fold is not finished.

    Example:
        >>> medseg.CrossValidation({"a": 0, "b": 1}).model is None
        True
    """

    fold_of: dict[str, int]
    table: pd.DataFrame | None = None
    model: Model | None = None

    @property
    def summary(self) -> pd.DataFrame | None:
        """Statistics over all cases, as :attr:`medseg.Evaluation.summary`."""
        return None if self.table is None else summary_table.summary(self.table)


def cross_validate(
    recipe: Recipe | str | Path,
    cases: str | Path | Manifest | Sequence[Case],
    folder: str | Path,
    *,
    folds: Folds | int = 5,
    resume: bool = False,
    hardware: Hardware | None = None,
    options: TrainingOptions | None = None,
    on_epoch: Callable[[int, EpochEnd], None] = lambda fold, end: None,
) -> CrossValidation:
    """Trains a recipe once per fold, and measures each case with the model that has not seen it.

    ``folds.json`` in ``folder`` keeps the folds, which are drawn by patient and stratified by group and by
    the labels that occur. Each fold is a training in ``fold_0``, ``fold_1`` and so on, all with the cache in
    ``folder``. When the last one is finished, ``out_of_fold`` gets the masks and their scores, and
    ``model.safetensors`` holds all folds: it segments with the mean of their logits. Its recipe has further
    ``postprocess.steps`` if they improve the out-of-fold masks and make no label worse.

    Each fold's best epoch is chosen by the Dice of the same cases that it holds out, so that out-of-fold
    scores are slightly too good; for an unbiased number, keep cases in split ``test``.

    Args:
        recipe: A recipe, the path of its file, or the name of a shipped one.
        cases: A manifest, its path, or a sequence of cases. Patients in split ``test`` and cases without a
            label take no part; other splits are replaced.
        folder: A new folder, or that of a cross-validation to continue.
        folds: Number of folds, or :class:`Folds` to train only one.
        resume: Continue: finished folds are not trained again.
        hardware: Device and number of processes. Several processes need ``Folds.only``.
        options: As for :func:`medseg.train`; a time limit holds for each fold.
        on_epoch: Called after every epoch with the number of its fold, from 0, and its result.

    Raises:
        UsageError: there are fewer patients than folds, or fewer than two folds (``manifest-folds``); no such
            fold, or several processes for several folds (``usage``); the folder holds trainings
            (``has-results``); recipe, cases or number of folds have changed (``folds-changed``); the
            file of folds is damaged (``fold-file``).
        InputRefused, ModelRefused, ResourceError: as :func:`medseg.train`.

    Example:
        >>> result = medseg.cross_validate(
        ...     "tiny.yaml", "cases.csv", "cv", folds=2, hardware=medseg.Hardware("cpu", workers=0)
        ... )
        >>> len(result.model.folds)
        2
    """
    inputs = [each for each in (recipe, cases) if isinstance(each, str | Path)]
    chosen = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
    if isinstance(cases, str | Path):
        cases = Manifest.read(cases)
    listed = cases.cases if isinstance(cases, Manifest) else tuple(cases)
    folds = Folds(folds) if isinstance(folds, int) else folds
    folder, hardware, options = Path(folder), hardware or Hardware(), options or TrainingOptions()
    _check(folds, folder, hardware, resume=resume)
    for fold in _numbers(folds):
        provenance.check_outputs(fold_folder(folder, fold), inputs, chosen)
    options = replace(options, cache=options.cache or folder / "cache")
    assert options.cache is not None  # just set
    assignment = _assignment(listed, chosen, folder, folds.count, options.cache)
    for fold in _numbers(folds):
        run = fold_folder(folder, fold)
        if not _is_finished(run):
            trainer.train(
                chosen,
                assignment.cases(listed, fold),
                run,
                resume=resume and checkpointing.is_used(run),
                hardware=hardware,
                options=options,
                on_epoch=partial(on_epoch, fold),
            )
    finished = all(_is_finished(fold_folder(folder, fold)) for fold in range(folds.count))
    if not finished or not is_first_process():
        return CrossValidation(assignment.fold_of)
    return _finish(folder, listed, assignment, chosen, hardware.device)


def _finish(
    folder: Path, cases: Sequence[Case], assignment: FoldAssignment, recipe: Recipe, device: str
) -> CrossValidation:
    """Out-of-fold masks and scores, and the model of all folds, once every fold is trained."""
    # Two folds may end at the same time, on two machines: the second one finds what the first has made.
    with run_folder.lock(folder, wait_seconds=_FINISHING_SECONDS):
        made = read_ensemble(folder, assignment)
        if made is not None:
            return CrossValidation(assignment.fold_of, *made)
        table = score_out_of_fold(folder, cases, assignment, recipe, device)
        choice = choose_steps(folder, cases, table, recipe)
        return CrossValidation(assignment.fold_of, table, save_ensemble(folder, assignment, choice))


def _numbers(folds: Folds) -> Sequence[int]:
    return range(folds.count) if folds.only is None else (folds.only,)


def _check(folds: Folds, folder: Path, hardware: Hardware, *, resume: bool) -> None:
    if folds.only is not None and not 0 <= folds.only < folds.count:
        raise UsageError(
            f"there is no fold {folds.only}",
            where="--fold",
            remedy=f"choose a number from 0 to {folds.count - 1}",
            reason="usage",
        )
    if folds.only is None and hardware.processes > 1:
        raise UsageError(
            f"one command trains several folds in turn only with one process, not {hardware.processes}",
            where="--folds",
            remedy="train each fold with its own command: --fold 0, --fold 1, and so on",
            reason="usage",
        )
    begun = [fold for fold in _numbers(folds) if checkpointing.is_used(fold_folder(folder, fold))]
    other = (folder / "model.safetensors").exists() and not (folder / FILE).exists()
    if other or (begun and not resume and is_first_process()):
        raise UsageError(
            "the folder already holds a training" if other else f"fold {begun[0]} has already begun",
            where=folder,
            remedy="choose a new folder" if other else "add --resume, or choose a new folder",
            reason="has-results",
        )


def _assignment(
    cases: Sequence[Case], recipe: Recipe, folder: Path, count: int, cache: Path
) -> FoldAssignment:
    """The folds in the folder, or new ones; every case is prepared on the way, or found in the cache."""
    held = FoldAssignment.read(folder)  # refused before any work
    tested = {case.patient for case in cases if case.split == "test"}
    takes_part = [case for case in cases if case.label is not None and case.patient not in tested]
    if not takes_part:
        raise UsageError(
            "no case outside split 'test' has a label",
            where="manifest",
            remedy="add labels",
            reason="no-training-case",
        )
    make_output_folder(folder)
    prepared = {case.id: cached(case, recipe, cache) for case in takes_part}
    data = {case: each.digest for case, each in prepared.items()}
    if held is None:
        present = {case: _present(each, recipe) for case, each in prepared.items()}
        held = FoldAssignment.draw(cases, recipe, count, data, present)
        if is_first_process():
            held.write(folder)
    held.check(recipe, count, data)
    return held


def _present(case: CachedCase, recipe: Recipe) -> list[str]:
    return [recipe.labels[number].name for number in case.present_labels]


def _is_finished(run: Path) -> bool:
    """Whether the training in a folder has ended and its model is complete."""
    try:
        facts = json.loads((run / provenance.RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return "epochs_done" in facts and (run / "model.safetensors").is_file()
