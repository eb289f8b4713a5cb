"""A training that starts from the weights of another model.

The source model is copied into the folder of the training, so that resuming and repeating it need no other
file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medseg.errors import UsageError, listed
from medseg.inference.model import Model
from medseg.inference.model_files import find
from medseg.io.overwrite_guard import replacing_equal
from medseg.recipe import Recipe
from medseg.system.atomic_write import replacing
from medseg.system.notices import notify
from medseg.training.provenance import RECIPE, Record
from medseg.training.weight_transfer import WeightTransfer

SOURCE = "source.safetensors"
"""The copy of the source model in the folder of a training."""


@dataclass(frozen=True, eq=False)
class FineTuning:
    """The model that a training starts from, and what it takes from it.

    Attributes:
        model: The source model; of several folds the first is taken.
        digest: SHA-256 of its file.
        transfer: What is taken.
        content: The bytes of the model file.
        pseudo_labels: For each case the labels for which the model's masks stand; see
            :mod:`medseg.training.kept_labels`.
    """

    model: Model
    digest: str
    transfer: WeightTransfer
    content: bytes = field(repr=False)
    pseudo_labels: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, source: Model | str | Path, recipe: Recipe) -> FineTuning:
        """Starting a training of ``recipe`` from a model, its file or a name of `medseg models`.

        Raises:
            UsageError: no such model (``model-not-found``); its network does not fit the recipe's
                (``fine-tune-network``); the recipe freezes a stage that the network lacks, or that is not
                taken from the model (``fine-tune-stage``).
            ModelRefused: as :meth:`medseg.inference.model.Model.load`.
        """
        model = source if isinstance(source, Model) else Model.load(source)
        content = model.to_bytes() if isinstance(source, Model) else find(source).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if not isinstance(source, Model) and digest != model.digest:  # replaced since it was read
            content, digest = model.to_bytes(), hashlib.sha256(model.to_bytes()).hexdigest()
        tuning = cls(model, digest, WeightTransfer.between(model.recipe, recipe), content)
        tuning._check_frozen(recipe)
        return tuning

    def initialise(self, network: nn.Module) -> None:
        """Replaces the random weights of a new network by those that are taken."""
        network.load_state_dict(self.transfer.apply(self.model.folds[0], network.state_dict()))

    def facts(self) -> dict[str, Any]:
        """The source and what is taken from it, as plain data for the record and the new model."""
        count = len(self.model.folds)
        facts = {"digest": self.digest, "fold": 0, "folds": count, **self.transfer.facts()}
        if self.pseudo_labels:
            facts["pseudo_labels"] = {case: list(names) for case, names in self.pseudo_labels.items()}
        return facts

    def write(self, folder: Path) -> None:
        """Copies the source model into the folder of a new training.

        Raises:
            UsageError: a file of that name and of another origin is there (``foreign-file``).
        """
        # A training that was killed in its first epoch may have had another source.
        replace = replacing if (folder / RECIPE).exists() else replacing_equal
        with replace(folder / SOURCE) as fresh:
            fresh.write_bytes(self.content)

    def _check_frozen(self, recipe: Recipe) -> None:
        if recipe.fine_tune is None:
            return
        own = (*self.transfer.taken, *self.transfer.by_label, *self.transfer.by_channel, *self.transfer.new)
        for stage in recipe.fine_tune.frozen:
            inside = [name for name in own if is_within(name, (stage,))]
            foreign = [name for name in inside if name in self.transfer.new]
            if not inside or foreign:
                stages = sorted({".".join(name.split(".")[:2]) for name in self.transfer.taken})
                raise UsageError(
                    f"the frozen stage {stage!r} is not in the network"
                    if not inside
                    else f"the frozen stage {stage!r} has weights that the model lacks, such as {foreign[0]}",
                    where="fine_tune.frozen",
                    remedy=f"choose from: {listed(stages, 12)}",
                    reason="fine-tune-stage",
                )


def prepare(
    source: Model | str | Path | None, recipe: Recipe, folder: Path, *, resume: bool, repeats: Record | None
) -> FineTuning | None:
    """How a new, resumed or repeated training starts from another model; None if it does not.

    Args:
        source: The model given by the user, if any.
        recipe: Recipe to train.
        folder: Folder of the training.
        resume: Whether the training in the folder goes on.
        repeats: Record of the training to repeat.

    Raises:
        UsageError: as :meth:`FineTuning.of`; a resumed training started from another model
            (``resume-changed``), and so did a repeated one (``rerun-source``); the recipe has a section
            ``fine_tune`` but there is no source (``fine-tune-source``).
    """
    held = folder / SOURCE
    given = None if source is None else FineTuning.of(source, recipe)
    if resume:
        saved = FineTuning.of(held, recipe) if held.is_file() else None
        if given is not None and (saved is None or saved.digest != given.digest):
            began = "with random weights" if saved is None else f"from another model ({saved.digest[:12]})"
            raise UsageError(
                f"this training began {began}, not from that of --from ({given.digest[:12]})",
                where="--from",
                remedy="leave out --from to resume, or train into a new folder",
                reason="resume-changed",
            )
        given = saved
    if repeats is not None:
        then = (repeats.facts.get("source") or {}).get("digest")
        if then != (given.digest if given else None):
            raise UsageError(
                f"the training to repeat started from {_named(then)}, now from "
                f"{_named(given.digest if given else None)}",
                where="--rerun",
                remedy="leave out --from, and keep source.safetensors in the folder of that training",
                reason="rerun-source",
            )
    if given is None and recipe.fine_tune is not None:
        raise UsageError(
            "the recipe has a section fine_tune, but the training starts from no model",
            where="fine_tune",
            remedy="add --from MODEL, or remove the section",
            reason="fine-tune-source",
        )
    return given


def notify_leaks(tuning: FineTuning, validation: Sequence[str]) -> None:
    """Gives a notice if the source model was trained on cases that measure the new one."""
    seen = sorted(set(tuning.model.provenance.get("train_cases", ())) & set(validation))
    if seen:
        notify(
            "source-saw-validation",
            f"the model that this training starts from was trained on {len(seen)} of the validation cases, "
            f"the first is {seen[0]}: their Dice is too high",
            remedy="validate on cases that neither training has seen",
        )


def summary_lines(facts: dict[str, Any]) -> list[str]:
    """What was and was not taken from a source model, in words.

    Args:
        facts: From :meth:`FineTuning.facts`, the record of a training, or the provenance of a model.
    """
    folds = f", fold 1 of {facts['folds']}" if facts["folds"] > 1 else ""
    lines = [
        f"from {facts['recipe']} (sha256 {facts['digest'][:12]}{folds}): "
        f"{len(facts['taken'])} weights taken, "
        f"{len(facts['by_label']) + len(facts['by_channel'])} adapted, {len(facts['new'])} new, "
        f"{len(facts['unused'])} not used"
    ]
    for key, text in (("labels_kept", "kept"), ("labels_new", "new"), ("labels_left_out", "left out")):
        if facts[key]:
            lines.append(f"labels {text}: {', '.join(facts[key])}")
    if facts["by_channel"]:
        channels = facts["channels"]
        lines.append(
            f"channels {', '.join(channels['source'])} adapted to {', '.join(channels['now'])}: "
            f"{', '.join(facts['by_channel'])}"
        )
    if facts.get("pseudo_labels"):
        names = sorted({name for each in facts["pseudo_labels"].values() for name in each})
        lines.append(
            f"the model's masks stand for {', '.join(names)} in {len(facts['pseudo_labels'])} training cases"
        )
    lines += [f"{text}: {', '.join(facts[key])}" for key, text in _NAMED if facts[key]]
    return lines


_NAMED = (
    ("by_label", "rows taken by label"),
    ("new", "new, with random weights"),
    ("unused", "in the model only"),
)


def is_within(name: str, stages: Sequence[str]) -> bool:
    """Whether a weight or module belongs to one of the stages, which are beginnings of names."""
    return any(name == stage or name.startswith(f"{stage}.") for stage in stages)


def freeze(network: nn.Module, stages: Sequence[str]) -> None:
    """Puts stages into evaluation mode; their weights need no gradient."""
    for name, module in network.named_modules():
        if is_within(name, stages):
            module.eval()
    for name, weight in network.named_parameters():
        if is_within(name, stages):
            weight.requires_grad_(False)


def parameter_groups(
    network: nn.Module, tuning: FineTuning | None, recipe: Recipe
) -> list[torch.nn.Parameter] | list[dict[str, Any]]:
    """The weights for the optimiser: with a lower rate for those that were taken, if the recipe has one."""
    rules = recipe.fine_tune
    trained = {name: each for name, each in network.named_parameters() if each.requires_grad}
    if rules is None or tuning is None or rules.rate == 1:
        return list(trained.values())
    slow = [each for name, each in trained.items() if name in tuning.transfer.taken]
    fast = [each for name, each in trained.items() if name not in tuning.transfer.taken]
    groups: list[dict[str, Any]] = [
        {"params": slow, "lr": recipe.train.learning_rate * rules.rate},
        {"params": fast},
    ]
    return [group for group in groups if group["params"]]


def _named(digest: str | None) -> str:
    return "random weights" if digest is None else f"the model with sha256 {digest[:12]}"
