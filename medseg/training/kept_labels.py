"""Labels that a fine-tuned model keeps: the source model segments them where cases are not annotated.

Adding a label to a trained model needs cases with that label alone. The old ones would be forgotten, because
nothing measures them any more; so the trained model's own masks stand for them (pseudo-labels, Lee 2013; in
continual segmentation: Douillard et al. 2021, arXiv:2011.11390). What is annotated takes precedence.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medseg.datasets.manifest import Case
from medseg.datasets.validation import examine, refuse
from medseg.errors import UsageError
from medseg.images.label import Label
from medseg.images.mask_placement import placed_on
from medseg.images.volume import Mask
from medseg.inference.segmenter import Segmenter
from medseg.recipe import Recipe
from medseg.system.file_names import file_name
from medseg.system.output_folder import make_output_folder
from medseg.training.fine_tuning import FineTuning

FOLDER = "kept_labels"
"""Folder of the label maps, in the folder of a training."""


def missing_labels(cases: Sequence[Case], recipe: Recipe, source: Recipe) -> dict[str, tuple[str, ...]]:
    """For each training case the labels that the source model knows and the case is not annotated for.

    Raises:
        UsageError: there is no such case, or the data are pictures (``keep-labels``).
    """
    old = {label.name for label in source.labels}
    found = {
        case.id: tuple(
            label.name
            for label in recipe.labels
            if label.name in old and case.annotated is not None and label.name not in case.annotated
        )
        for case in cases
        if case.split == "train"
    }
    if not any(found.values()):
        kept = [label.name for label in recipe.labels if label.name in old]
        raise _refused(
            f"every training case counts as annotated for the labels that the model knows: {kept}",
            "name in the manifest's column annotated what each case is annotated for, such as the new label",
        )
    if recipe.modality == "picture":
        raise _refused("labels of pictures cannot be kept", "remove fine_tune.keep_labels")
    return {case: names for case, names in found.items() if names}


def completed(
    cases: Sequence[Case], recipe: Recipe, tuning: FineTuning, folder: Path, *, device: str, resume: bool
) -> tuple[Case, ...]:
    """The cases with the source model's masks for labels of training cases that are not annotated.

    The label maps are written to ``kept_labels`` in the folder of the training, once.

    Args:
        cases: Cases to train and validate.
        recipe: Recipe to train.
        tuning: The source model.
        folder: Folder of the training.
        device: Device of the source model, as for :class:`medseg.Segmenter`.
        resume: Whether label maps that are there belong to this training.

    Raises:
        UsageError: no case needs them, or they cannot be expressed (``keep-labels``).
        InputRefused: a case cannot be read.
    """
    wanted = missing_labels(cases, recipe, tuning.model.recipe)
    table = {names: values(recipe, tuning.model.recipe, names) for names in set(wanted.values())}
    place = folder / FOLDER
    make_output_folder(place)
    segment = Segmenter(tuning.model, device=device, engine="torch")
    made = []
    for case in cases:
        names = wanted.get(case.id)
        if names is None:
            made.append(case)
            continue
        path = place / f"{file_name(case.id)}.nii.gz"
        if not (resume and path.is_file()):
            _combined(case, recipe, segment, table[names]).save(path)
        known = (*(case.annotated or ()), *names)
        made.append(case.model_copy(update={"label": path, "annotated": known}))
    return tuple(made)


def values(recipe: Recipe, source: Recipe, names: Sequence[str]) -> dict[int, int]:
    """For each value of the source model's masks, the value of the recipe's label maps that has these labels.

    Raises:
        UsageError: no value stands for the same combination of labels (``keep-labels``).
    """

    def meaning(labels: Sequence[Label], value: int) -> frozenset[str]:
        return frozenset(label.name for label in labels if label.name in names and value in label.values)

    found = {}
    for old in sorted({value for label in source.painted for value in label.values}):
        wanted = meaning(source.labels, old)
        # A value of the kept labels only: others would say something about the new ones.
        fitting = [
            value
            for value in sorted({value for label in recipe.labels for value in label.values})
            if meaning(recipe.labels, value) == wanted
            and all(label.name in names for label in recipe.labels if value in label.values)
        ]
        if wanted and not fitting:
            raise _refused(
                f"no value of the recipe's labels stands for {' and '.join(sorted(wanted))} alone",
                "give these labels the values that they have in the model",
            )
        if wanted:
            found[old] = old if old in fitting else fitting[0]
    return found


def _combined(case: Case, recipe: Recipe, segment: Segmenter, table: dict[int, int]) -> Mask:
    """The case's label map, and around what it annotates the values of the source model's mask."""
    examined = examine(case, recipe)
    refuse(examined.findings)
    assert examined.truth is not None  # a training case has a label
    scan = examined.volumes[0]
    truth = placed_on(examined.truth, scan.grid, names=("truth", "scan"))
    predicted = placed_on(segment(examined.volumes), scan.grid, names=("mask", "scan"))
    own = {value for label in recipe.labels if label.name in (case.annotated or ()) for value in label.values}
    annotated = np.isin(truth.array, [*own, *([recipe.ignore_value] if recipe.ignore_value else [])])
    top = max(int(predicted.array.max(initial=0)), *table)
    lookup: npt.NDArray[np.uint16] = np.zeros(top + 1, np.uint16)
    for old, new in table.items():
        lookup[old] = new
    array = np.where(annotated, truth.array, lookup[predicted.array])
    return Mask(array, scan.grid, recipe.labels)


def _refused(problem: str, remedy: str) -> UsageError:
    return UsageError(problem, where="fine_tune.keep_labels", remedy=remedy, reason="keep-labels")
