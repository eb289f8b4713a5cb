"""Predictions of each case by the model that has not seen it, their scores, and the ensemble of all folds."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from medseg.cross_validation.fold_assignment import FoldAssignment
from medseg.datasets.manifest import Case
from medseg.evaluation import summary_table, tables
from medseg.evaluation.evaluator import evaluate_cases
from medseg.images.volume import Mask
from medseg.inference import exported_graphs
from medseg.inference.model import Model
from medseg.inference.registry import SegmentationMethod, load_segmenter
from medseg.io import read_channels
from medseg.io.mask_files import write_mask
from medseg.io.sidecar import facts_of
from medseg.recipe import Recipe
from medseg.system.atomic_write import replacing
from medseg.system.file_names import file_name

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
            loaded[fold] = load_segmenter(fold_folder(folder, fold) / "model.safetensors", device=device)
        segment = loaded[fold]
        mask = segment(read_channels(case.images, channels=len(segment.channels)))
        path = output / "masks" / f"{file_name(case.id)}.nii.gz"
        write_mask(mask, path, facts_of(mask, segment))
        return mask

    held = [case for case in cases if case.id in assignment.fold_of]
    held.sort(key=lambda case: assignment.fold_of[case.id])  # stable: in the manifest's order within a fold
    table = evaluate_cases(held, predict, recipe.painted, ignore_value=recipe.ignore_value)
    table["fold"] = table["case"].map(assignment.fold_of)
    summary_table.write(table, output)
    parts = [summary_table.summary(part).assign(fold=fold) for fold, part in table.groupby("fold")]
    by_fold = pd.concat(parts).reset_index()
    by_fold = by_fold[["fold", *(name for name in by_fold.columns if name != "fold")]]
    with replacing(output / "folds.csv") as fresh:
        fresh.write_text(tables.as_csv(by_fold), encoding="utf-8", newline="\n")
    return table


def save_ensemble(folder: Path, assignment: FoldAssignment) -> Model:
    """The model of all folds, whose logits are averaged; it is also ``model.safetensors`` in ``folder``.

    Args:
        folder: Folder of the cross-validation; all folds are finished.
        assignment: The folds.
    """
    models = [Model.load(fold_folder(folder, fold) / "model.safetensors") for fold in range(assignment.count)]
    facts = {
        "medseg": version("medseg"),
        "recipe_digest": models[0].recipe.digest,
        "train_cases": sorted(assignment.fold_of),
        "folds": [{"digest": model.digest, **model.provenance} for model in models],
        "research_use_only": True,
    }
    ensemble = Model(models[0].recipe, tuple(model.folds[0] for model in models), facts)
    ensemble.save(folder / "model.safetensors")
    exported_graphs.export(ensemble)
    return ensemble
