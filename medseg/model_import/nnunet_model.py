"""A training folder of nnU-Net v2 as recipe and weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medseg.errors import ModelRefused, UsageError
from medseg.inference.model import weight_kinds
from medseg.inference.safetensors_header import shown
from medseg.model_import.checkpoint import Checkpoint, refused, tensor_table, type_of
from medseg.model_import.model_sources import TrainingFolder
from medseg.model_import.nnunet_plans import Dataset, Plan, dataset_of, json_object, plan_of
from medseg.recipe import Recipe
from medseg.system.notices import notify

# Trainers of nnU-Net that change the network, so that the plans do not say what it is.
_OTHER_NETWORKS = re.compile(r"nnUNetTrainerBN|.*(Primus|Mamba|UNETR|SegResNet|MedNeXt).*")


@dataclass(frozen=True)
class Training:
    """What is known of a training folder before its weights are read.

    Attributes:
        folder: The folder.
        plan: Its configuration.
        dataset: Channels and labels.
        checkpoints: One per fold.
        folds: The names of the folds.
    """

    folder: Path
    plan: Plan
    dataset: Dataset
    checkpoints: tuple[Checkpoint, ...]
    folds: tuple[str, ...]

    def settings(self) -> dict[str, Any]:
        """The configuration as an entry of ``pipeline.configurations``."""
        axes = self.checkpoints[0].values.get("inference_allowed_mirroring_axes")
        if not (axes is None or (isinstance(axes, tuple | list) and all(type(axis) is int for axis in axes))):
            problem = "its mirroring axes are not a list of whole numbers"
            raise refused(self.checkpoints[0].path, problem, "checkpoint-content")
        settings = self.plan.settings.model_dump(mode="json")
        return {**settings, "mirror_axes": sorted(set(axes or ()))}

    def facts(self) -> dict[str, Any]:
        """Where the weights come from, as plain data."""
        return {
            "configuration": self.plan.name,
            "dataset": shown(self.plan.dataset_name),
            "trainer": shown(_trainer(self.checkpoints[0], "")),
            "folds": list(self.folds),
            "checkpoints": [path.path.name for path in self.checkpoints],
            "sha256": [each.sha256() for each in self.checkpoints],
        }


def training_in(folder: TrainingFolder, folds: Sequence[str] | None) -> Training:
    """A training folder, opened; its JSON files and the values beside the weights are read.

    Args:
        folder: The folder.
        folds: Names of folds; None: all numbered ones, or ``all`` if there is no other.

    Raises:
        UsageError: a fold does not exist (``import-fold``).
        ModelRefused: as :meth:`Checkpoint.read`, :func:`dataset_of` and :func:`plan_of`.
    """
    chosen = tuple(folds or [name for name in folder.folds if name != "all"] or folder.folds)
    missing = [name for name in chosen if name not in folder.folds]
    if missing:
        raise UsageError(
            f"fold {missing[0]} has no checkpoint_final.pth or checkpoint_best.pth",
            where=folder.path,
            remedy=f"choose among the folds {', '.join(folder.folds)}",
            reason="import-fold",
        )
    if len(set(chosen)) < len(chosen):
        raise UsageError(
            "a fold is given twice", where="folds", remedy="give each fold once", reason="import-fold"
        )
    checkpoints = tuple(Checkpoint.read(folder.folds[name]) for name in chosen)
    path = folder.path / "plans.json"
    dataset = dataset_of(json_object(folder.path / "dataset.json"), folder.path / "dataset.json")
    names = {_configuration(each) for each in checkpoints}
    name = names.pop() or folder.configuration or "3d_fullres"
    if names:
        raise refused(folder.path, "its folds were trained with different configurations", "import-plans")
    plan = plan_of(json_object(path), name, len(dataset.channels), path)
    _check_trainer(checkpoints[0])
    return Training(folder.path, plan, dataset, checkpoints, chosen)


def _configuration(checkpoint: Checkpoint) -> str | None:
    arguments = checkpoint.values.get("init_args")
    name = arguments.get("configuration") if isinstance(arguments, dict) else None
    return name if isinstance(name, str) else None


def _trainer(checkpoint: Checkpoint, unknown: str) -> str:
    """The name of the trainer; other values are not written out, because small ones may be endless text."""
    name = checkpoint.values.get("trainer_name", unknown)
    if not isinstance(name, str):
        raise refused(checkpoint.path, "its trainer_name is not text", "checkpoint-content")
    return name


def _check_trainer(checkpoint: Checkpoint) -> None:
    trainer = _trainer(checkpoint, "nnUNetTrainer")
    if _OTHER_NETWORKS.fullmatch(trainer):
        raise refused(
            checkpoint.path,
            f"trainer {shown(trainer)} has a network of its own, which is not supported",
            "import-plans",
        )
    if not trainer.startswith("nnUNetTrainer"):
        notify(
            "import-trainer",
            f"trainer {shown(trainer)} is not one of nnU-Net: its network is taken to be that of the plans",
            path=str(checkpoint.path),
        )


def recipe_of(
    trainings: Sequence[Training], *, combine: str, name: str | None, step: float, mirror: bool
) -> Recipe:
    """The recipe of one or more configurations.

    Args:
        trainings: The configurations; the first one's network and patch are the recipe's.
        combine: ``mean``, ``cascade`` or ``parts``, for several.
        name: Name of the model; None: that of the data set and the configuration.
        step: Distance of windows as a fraction of a window.
        mirror: Whether windows are mirrored along the axes that the checkpoints allow.

    Raises:
        ModelRefused: something in the plans is beyond what a recipe may hold (``import-plans``).
    """
    first = trainings[0]
    dataset = first.dataset
    labels = _joined(trainings) if combine == "parts" else dataset.labels
    configurations = []
    for number, each in enumerate(trainings):
        settings = each.settings()
        if number:
            settings |= {"network": each.plan.network, "patch_size": each.plan.patch_size}
        if combine == "parts":
            settings["labels"] = [label.name for label in each.dataset.labels]
        configurations.append(settings)
    plan = first.plan
    named = name or _slug(f"{plan.dataset_name}_{'_'.join(dict.fromkeys(t.plan.name for t in trainings))}")
    modality = "CT" if any(channel.casefold() == "ct" for channel in dataset.channels) else "MR"
    data = {
        "name": named,
        "description": f"Imported from nnU-Net v2: {plan.dataset_name}, {plan.name}"[:200],
        "modality": modality,
        "channels": dataset.channels,
        "labels": [label.model_dump(mode="json") for label in labels],
        "ignore_value": dataset.ignore_value,
        "prepare": {"spacing_mm": _spacing(plan), "intensity": _intensity(plan, modality)},
        "patch": {"size": plan.patch_size},
        "network": plan.network,
        "loss": {"kind": "dice_ce" if dataset.exclusive else "dice_bce"},
        # nnU-Net's schedule, for the record: such a recipe is not trained.
        "train": {"epochs": 1000, "steps_per_epoch": 250, "batch_size": max(plan.batch_size, 1)},
        "pipeline": {
            "kind": "nnunet",
            "configurations": configurations,
            "combine": combine,
            "orientation": plan.orientation,
            "step": step,
            "tta": "mirror" if mirror else "none",
        },
    }
    try:
        return Recipe.checked(data)
    except UsageError as error:
        raise refused(first.folder, f"not a recipe of medseg: {error.problem}", "import-plans") from None


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9_-]+", "_", text.casefold()).strip("_-")[:64] or "nnunet"


def _spacing(plan: Plan) -> list[float]:
    """The voxel size along the stored axes, fastest first."""
    spacing = plan.settings.spacing_mm
    network = spacing if len(spacing) == 3 else (plan.slice_mm, *spacing)
    stored = dict(zip(plan.settings.transpose, network, strict=True))
    return [stored[2], stored[1], stored[0]]


def _intensity(plan: Plan, modality: str) -> dict[str, Any]:
    if modality == "MR":
        return {"kind": "zscore"}
    window = next((each for each in plan.settings.intensity if each.kind == "ct"), None)
    low, high = (window.low_hu, window.high_hu) if window else (-1024.0, 1024.0)
    return {"kind": "window", "low_hu": low, "high_hu": max(high, low + 1)}


def _joined(trainings: Sequence[Training]) -> list[Any]:
    """The labels of several parts by name, numbered in their order, from 1."""
    names = list(dict.fromkeys(label.name for each in trainings for label in each.dataset.labels))
    first = trainings[0].dataset.labels[0]
    return [first.model_copy(update={"name": name, "values": (n,)}) for n, name in enumerate(names, 1)]


def fold_weights(recipe: Recipe, trainings: Sequence[Training], fold: int) -> dict[str, torch.Tensor]:
    """The weights of one fold, by their names in medseg's network; only these are read from the files.

    Raises:
        ModelRefused: they are missing, or not those of the network in the plans (``weights``).
    """
    wanted = weight_kinds(recipe)
    weights: dict[str, torch.Tensor] = {}
    for number, training in enumerate(trainings):
        prefix = f"networks.{number}." if len(trainings) > 1 else ""
        own = {n.removeprefix(prefix): kind for n, kind in wanted.items() if n.startswith(prefix)}
        found = network_weights(training.checkpoints[fold], own)
        weights |= {prefix + n: tensor for n, tensor in found.items()}
    return weights


def network_weights(
    checkpoint: Checkpoint, wanted: dict[str, tuple[torch.dtype, tuple[int, ...]]], key: str | None = None
) -> dict[str, torch.Tensor]:
    """The tensors of a network from a checkpoint, read after their names, types and shapes were compared.

    Names are without ``module.`` and ``_orig_mod.``, which parallel and compiled training add. What nnU-Net
    stores a second time is left out.

    Args:
        checkpoint: The checkpoint.
        wanted: Type and shape of every tensor of the network.
        key: Where in the checkpoint the state dict is; None: ``network_weights``.

    Raises:
        ModelRefused: the checkpoint has none (``checkpoint-content``), or they do not fit (``weights``).
    """
    table = tensor_table(checkpoint.values.get(key or "network_weights"))
    if table is None:
        raise refused(
            checkpoint.path, "it holds no network_weights, a table of tensors", "checkpoint-content"
        )
    places = {}
    for full, place in table.items():
        name = full.removeprefix("module.").removeprefix("_orig_mod.")
        if ".all_modules." not in name and not name.startswith("decoder.encoder."):
            places[name] = place
    check_fit(checkpoint.path, wanted, {n: (type_of(p), p.shape) for n, p in places.items()})
    return checkpoint.tensors(places)


def check_fit(
    path: Path,
    wanted: dict[str, tuple[torch.dtype, tuple[int, ...]]],
    found: dict[str, tuple[torch.dtype, tuple[int, ...]]],
) -> None:
    """Refuses tensors that are not exactly those of a network; half precision counts as single."""

    def plain(kind: tuple[torch.dtype, tuple[int, ...]] | None) -> object:
        return kind and (torch.float32 if kind[0] == torch.float16 else kind[0], kind[1])

    wrong = sorted(n for n in wanted.keys() | found.keys() if plain(wanted.get(n)) != plain(found.get(n)))
    if wrong:
        first = wrong[0]
        raise ModelRefused(
            f"{len(wrong)} weights are not those of the network in the plans, first {shown(first)}: "
            f"{found.get(first, 'none')}, the network has {wanted.get(first, 'none')}",
            where=path,
            remedy="import the folder as nnU-Net wrote it; networks other than those of plans.json are not "
            "supported",
            reason="weights",
        )
