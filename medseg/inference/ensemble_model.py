"""One model file of several models: folds if their recipes agree, otherwise a pipeline ``ensemble``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError, UsageError
from medseg.inference import exported_graphs
from medseg.inference.model import Model
from medseg.inference.model_output import check_model_output
from medseg.recipe import Recipe
from medseg.system.own_version import own_version

_PARTS = "ensemble_of"
"""Key of a model's provenance: the models that it was made of."""


def ensemble(
    sources: Sequence[str | Path | Model], output: str | Path | None = None, *, name: str | None = None
) -> Model:
    """One model that segments with the mean of several models.

    Models with the same preparation, patch, network and sliding window become folds of one model, whose
    logits are averaged. Otherwise the probabilities of all are averaged on the grid of the scan, each model
    with its own preparation and network; models that agree with each other count together as one.
    Postprocessing, threshold and values of the labels are those of the first model.

    Args:
        sources: Model files, names of ``medseg models``, or models; at least two.
        output: File to write, with the suffix ``.safetensors``.
        name: Name of the new recipe; None: that of the first with ``_ensemble``.

    Raises:
        UsageError: fewer than two models (``usage``); they differ in their labels, channels, modality or in
            whether labels exclude each other, or one has a section ``context`` or ``pipeline``
            (``ensemble``); the output has another suffix (``format``) or no folder (``no-folder``), or would
            replace an input (``overwrites-input``) or another file (``foreign-file``).
        ModelRefused: a model is damaged.

    Example:
        >>> both = medseg.ensemble(["model.safetensors", "model.safetensors"], "both.safetensors")
        >>> both.recipe.pipeline, len(both.folds)
        (None, 2)
    """
    if len(sources) < 2:
        raise UsageError(
            f"an ensemble needs at least two models, not {len(sources)}",
            where="models",
            remedy="medseg ensemble A.safetensors B.safetensors -o both.safetensors",
            reason="usage",
        )
    if output is not None:
        check_model_output(
            Path(output), [each for each in sources if not isinstance(each, Model)], is_own=_is_ensemble
        )
    models = [each if isinstance(each, Model) else Model.load(each) for each in sources]
    named = [each.recipe.name if isinstance(each, Model) else str(each) for each in sources]
    for model, where in zip(models, named, strict=True):
        _check_fits(models[0].recipe, model.recipe, where, named[0])
    groups: list[_Group] = []
    for model in models:
        same = [group for group in groups if group.rules == _rules(model.recipe)]
        if same:
            same[0].models.append(model)
        else:
            groups.append(_Group(_rules(model.recipe), [model]))
    recipe = models[0].recipe
    # A valid name has up to 64 characters.
    data = recipe.model_dump() | {"name": name or f"{recipe.name[:55]}_ensemble"}
    facts: dict[str, Any] = {
        "medseg": own_version(),
        _PARTS: [{"digest": model.digest, **model.provenance} for model in models],
        "train_cases": sorted({case for model in models for case in model.provenance.get("train_cases", [])}),
        "research_use_only": True,
    }
    if len(groups) == 1:
        made = Model(Recipe.checked(data), tuple(fold for model in models for fold in model.folds), facts)
    else:
        members = [group.member() for group in groups]
        data["pipeline"] = {"kind": "ensemble", "members": members}
        data["description"] = f"Mean of {len(groups)} models: {', '.join(each['name'] for each in members)}"
        every = [fold for group in groups for model in group.models for fold in model.folds]
        weights = {
            f"networks.{number}.{key}": tensor
            for number, fold in enumerate(every)
            for key, tensor in fold.items()
        }
        made = Model(Recipe.checked(data), (weights,), facts)
    if output is not None:
        made.save(output)
        exported_graphs.export(made)
    return made


@dataclass(frozen=True)
class _Group:
    """Models whose logits are averaged, and the rules that they share."""

    rules: dict[str, Any]
    models: list[Model]

    def member(self) -> dict[str, Any]:
        folds = sum(len(model.folds) for model in self.models)
        return {"name": self.models[0].recipe.name, "folds": folds, **self.rules}


def _rules(recipe: Recipe) -> dict[str, Any]:
    """Everything that decides the probabilities of a model, apart from its weights."""
    rules = recipe.model_dump(include={"prepare", "patch", "network", "predict"})
    return {**rules, "labels": [label.name for label in recipe.labels]}


def _check_fits(first: Recipe, other: Recipe, where: str, first_name: str) -> None:
    problem = None
    names = [sorted(label.name for label in recipe.labels) for recipe in (first, other)]
    if other.context is not None or other.pipeline is not None:
        section = "context" if other.context is not None else "pipeline"
        problem = f"its recipe has a section {section}, and gives no probabilities that could be averaged"
    elif names[0] != names[1]:
        missing, more = (sorted(set(one) - set(two)) for one, two in (names, names[::-1]))
        lacks = [f"it has no label {label!r}" for label in missing[:3]]
        has = [f"it has the label {label!r}, which {first_name} has not" for label in more[:3]]
        problem = "its labels are others: " + "; ".join(lacks + has)
    elif first.channels != other.channels or first.modality != other.modality:
        one, two = (f"{', '.join(recipe.channels)} ({recipe.modality})" for recipe in (first, other))
        problem = f"its channels are {two}, those of {first_name} are {one}"
    elif first.exclusive != other.exclusive:
        problem = f"its labels {'exclude each other' if other.exclusive else 'may overlap'}, unlike those of "
        problem += first_name
    if problem is not None:
        raise UsageError(
            problem,
            where=where,
            remedy="give models for the same labels and scans, trained with medseg",
            reason="ensemble",
        )


def _is_ensemble(path: Path) -> bool:
    try:
        return _PARTS in Model.load(path).provenance
    except MedsegError:
        return False
