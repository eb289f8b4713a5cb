"""Predictions of each case by the model that has not seen it, their scores, and the ensemble of all folds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from medseg.cross_validation.fold_assignment import FoldAssignment
from medseg.cross_validation.postprocessing_choice import (
    MaskPair,
    PostprocessingChoice,
    choose_postprocessing,
)
from medseg.datasets.manifest import Case
from medseg.errors import MedsegError
from medseg.evaluation import summary_table, tables
from medseg.evaluation.evaluation_files import read_evaluation
from medseg.evaluation.evaluator import evaluate_cases, read_truth
from medseg.evaluation.scoring import on_one_grid
from medseg.images.grid import ROUNDED_GRID_MM
from medseg.images.volume import Mask
from medseg.inference import exported_graphs
from medseg.inference.model import Model
from medseg.inference.registry import SegmentationMethod, load_segmenter
from medseg.io import read_channels, read_mask
from medseg.io.formats import mask_ending
from medseg.io.mask_files import write_mask
from medseg.io.sidecar import facts_of
from medseg.recipe import Recipe
from medseg.system.atomic_write import replacing
from medseg.system.file_names import file_name
from medseg.system.notices import collect_notices
from medseg.system.own_version import own_version

FOLDER = "out_of_fold"


def fold_folder(folder: Path, fold: int) -> Path:
    """The folder of the training of one fold."""
    return folder / f"fold_{fold}"


def score_out_of_fold(
    folder: Path, cases: Sequence[Case], assignment: FoldAssignment, recipe: Recipe, device: str
) -> pd.DataFrame:
    """The scores of every case, segmented by the model of the fold that held it out.

    Writes ``out_of_fold/``: ``masks/``, ``evaluation.csv`` (one row per case and label, with its fold), the
    summary over all cases with its confidence intervals, and ``folds.csv``, the same summary by fold.

    Args:
        folder: Folder of the cross-validation; all folds are finished.
        cases: Cases of the cross-validation.
        assignment: Their folds.
        recipe: Recipe of the models.
        device: Device of the networks.
    """
    output = folder / FOLDER
    (output / "masks").mkdir(parents=True, exist_ok=True)
    loaded: dict[int, SegmentationMethod] = {}

    def predict(case: Case) -> Mask:
        fold = assignment.fold_of[case.id]
        if fold not in loaded:
            loaded.clear()  # one model in memory at a time
            loaded[fold] = load_segmenter(_model_path(folder, fold), device=device)
        segment = loaded[fold]
        mask = segment(read_channels(case.images, channels=len(segment.channels)))
        write_mask(mask, _mask_path(folder, case), facts_of(mask, segment))
        return mask

    held = [case for case in cases if case.id in assignment.fold_of]
    held.sort(key=lambda case: assignment.fold_of[case.id])  # stable: in the manifest's order within a fold
    table = evaluate_cases(
        held, predict, recipe.painted, ignore_value=recipe.ignore_value, coding=recipe.coding
    )
    table["fold"] = table["case"].map(assignment.fold_of)
    summary_table.write(table, output)
    parts = [summary_table.summary(part).assign(fold=fold) for fold, part in table.groupby("fold")]
    by_fold = pd.concat(parts).reset_index()
    by_fold = by_fold[["fold", *(name for name in by_fold.columns if name != "fold")]]
    with replacing(output / "folds.csv") as fresh:
        fresh.write_text(tables.as_csv(by_fold), encoding="utf-8", newline="\n")
    return table


def choose_steps(
    folder: Path, cases: Sequence[Case], table: pd.DataFrame, recipe: Recipe
) -> PostprocessingChoice:
    """The cleaning steps that improve the out-of-fold masks; ``summary.md`` and a table tell what they do.

    Args:
        folder: Folder of the cross-validation, with the out-of-fold masks.
        cases: Cases of the cross-validation.
        table: Their scores; cases that failed do not count.
        recipe: Recipe of the models.
    """
    scored = set(table.loc[table["status"] == "ok", "case"])

    def pairs() -> Iterator[MaskPair]:
        for case in cases:
            if case.id in scored:
                prediction = read_mask(_mask_path(folder, case), recipe.painted)
                truth = read_truth(case, recipe.painted, recipe.coding)
                known = None if case.annotated is None else tuple(case.annotated)
                with collect_notices():  # the evaluation has reported them
                    yield (*on_one_grid(prediction, truth, ROUNDED_GRID_MM), known)

    if recipe.context is not None or not scored:
        return PostprocessingChoice()
    choice = choose_postprocessing(pairs, recipe.painted, recipe.ignore_value)
    rows = [
        {"label": name, "dice_before": before, "dice_after": choice.after[name]}
        for name, before in choice.before.items()
    ]
    output = folder / FOLDER
    with replacing(output / "postprocessing.csv") as fresh:
        fresh.write_text(tables.as_csv(pd.DataFrame(rows)), encoding="utf-8", newline="\n")
    summary = (output / "summary.md").read_text(encoding="utf-8")
    with replacing(output / "summary.md") as fresh:
        fresh.write_text(f"{summary}\n{_paragraph(choice)}", encoding="utf-8", newline="\n")
    return choice


def _paragraph(choice: PostprocessingChoice) -> str:
    if not choice.steps:
        return "Postprocessing: none, because no step improved a label without making another worse.\n"
    steps = "; ".join(map(str, choice.steps))
    cells = [
        [name, tables.numbers((before,), ".4f"), tables.numbers((choice.after[name],), ".4f")]
        for name, before in choice.before.items()
    ]
    notes = (
        f"Postprocessing of the model: {steps}. Chosen by the mean Dice of these out-of-fold masks, so the "
        "numbers after it are slightly too good. The masks and the table above are without it."
    )
    return tables.markdown(("label", "Dice before", "Dice after"), cells, notes)


def save_ensemble(folder: Path, assignment: FoldAssignment, choice: PostprocessingChoice) -> Model:
    """The model of all folds, whose logits are averaged; it is also ``model.safetensors`` in ``folder``.

    Args:
        folder: Folder of the cross-validation; all folds are finished.
        assignment: The folds.
        choice: Cleaning steps for the model's recipe, after those it has.
    """
    models = [Model.load(_model_path(folder, fold)) for fold in range(assignment.count)]
    recipe = models[0].recipe
    facts: dict[str, Any] = {
        "medseg": own_version(),
        "recipe_digest": recipe.digest,
        "train_cases": sorted(assignment.fold_of),
        "folds": [{"digest": model.digest, **model.provenance} for model in models],
        "research_use_only": True,
    }
    if choice.steps:
        dice = {name: [_plain(before), _plain(choice.after[name])] for name, before in choice.before.items()}
        facts["postprocessing"] = {"dice_before_and_after": dice}
        steps = (*recipe.postprocess.steps, *choice.steps)
        postprocess = recipe.postprocess.model_copy(update={"steps": steps})
        recipe = recipe.model_copy(update={"postprocess": postprocess})
    ensemble = Model(recipe, tuple(model.folds[0] for model in models), facts)
    ensemble.save(folder / "model.safetensors")
    exported_graphs.export(ensemble)
    return ensemble


def read_ensemble(folder: Path, assignment: FoldAssignment) -> tuple[pd.DataFrame, Model] | None:
    """The scores and the ensemble in a folder, if they were made of the folds that are there now.

    Args:
        folder: Folder of the cross-validation; all folds are finished.
        assignment: The folds.
    """
    path, table = folder / "model.safetensors", folder / FOLDER / summary_table.FILES[0]
    if not (path.is_file() and table.is_file()):
        return None
    try:
        ensemble = Model.load(path)
    except MedsegError:
        return None
    made_of = [each.get("digest") for each in ensemble.provenance.get("folds", [])]
    if made_of != [Model.load(_model_path(folder, fold)).digest for fold in range(assignment.count)]:
        return None
    return read_evaluation(table), ensemble


def _model_path(folder: Path, fold: int) -> Path:
    return fold_folder(folder, fold) / "model.safetensors"


def _plain(dice: float) -> float | None:
    return None if math.isnan(dice) else round(dice, 6)


def _mask_path(folder: Path, case: Case) -> Path:
    return folder / FOLDER / "masks" / f"{file_name(case.id)}{mask_ending(case.images[0])}"
