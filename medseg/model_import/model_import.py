"""``medseg.import_model``: a model of another tool as one model file."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from medseg.errors import ModelRefused, UsageError
from medseg.inference import exported_graphs
from medseg.inference.model import Model
from medseg.inference.model_output import check_model_output
from medseg.model_import.bundle_model import bundle_folder, bundle_model
from medseg.model_import.checkpoint import Checkpoint, refused
from medseg.model_import.lungmask_model import is_lungmask, lungmask_model
from medseg.model_import.model_sources import TrainingFolder, training_folders, unpacked
from medseg.model_import.nnunet_model import Training, fold_weights, recipe_of, training_in
from medseg.recipe import Recipe
from medseg.system.own_version import own_version
from medseg.training.checkpoint_files import IMPORTED, is_imported

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def import_model(
    source: str | Path,
    *,
    output: str | Path | None = None,
    folds: Iterable[int | str] | None = None,
    configuration: str | None = None,
    name: str | None = None,
    step: float = 0.5,
    mirror: bool = True,
    fill: str | Path | None = None,
) -> Model:
    """A medseg model made from another tool's, with all that its masks depend on; none of its code is run.

    Args:
        source: A training folder of nnU-Net v2 (``<trainer>__<plans>__<configuration>``), a folder above one,
            a zip archive of one, the folder of a task of TotalSegmentator, whose parts become one model with
            the labels of all, a bundle of MONAI (a folder or a zip archive of one), or a weights file of
            lungmask (``.pth``).
        output: Model file to write, ending in ``.safetensors``; None to write none.
        folds: Folds of nnU-Net, 0 to 4 or ``all``; None takes all numbered folds, or ``all`` if
            there are none. The logits of all folds are averaged.
        configuration: Which of several configurations, such as ``3d_fullres``; several, separated by commas,
            are averaged. ``3d_cascade_fullres`` takes the low resolution that lies beside it.
        name: Name of the model, in small letters; None makes one from the name of the data set.
        step: nnU-Net's ``tile_step_size``; TotalSegmentator uses 0.8 for most tasks.
        mirror: Whether windows are mirrored along the axes that the checkpoint allows, as nnU-Net does unless
            ``--disable_tta`` is given; up to eight times the work.
        fill: For lungmask: a second weights file, whose network fills what the first one misses (lungmask's
            fused mode, such as LTRCLobes filled by R231).

    Raises:
        UsageError: the output has another suffix (``format``) or no folder (``no-folder``), would replace an
            input (``overwrites-input``) or a file that is not an imported model (``foreign-file``); a fold
            does not exist (``import-fold``), or the choice among several configurations is not clear
            (``import-configuration``).
        ModelRefused: the source is none of these (``import-source``); an archive is damaged or unsafe
            (``import-archive``); plans that medseg cannot follow (``import-plans``); a checkpoint that is
            damaged (``checkpoint-archive``), needs more than tensors and plain values
            (``checkpoint-unsafe``), or lacks its weights (``checkpoint-content``); weights that are not the
            network's (``weights``).

    Example:
        >>> model = medseg.import_model("nnUNetTrainer__nnUNetPlans__3d_fullres", output="organs.safetensors")
        >>> model.recipe.network.kind
        'plain_conv_unet'
    """
    source = Path(source)
    if output is not None:
        check_model_output(Path(output), [source, *([] if fill is None else [fill])], is_own=is_imported)
    if name is not None:
        _check_name(name)
    if not source.exists():
        raise refused(source, "no such file or folder", "import-source", "check the path")
    if source.is_dir() or _is_archive(source):
        _check_unused("fill is for weights of lungmask", source, fill is not None)
        with unpacked(source) as folder:
            bundle = bundle_folder(folder)
            if bundle is not None:
                given = folds is not None or configuration is not None or step != 0.5 or not mirror
                _check_unused(
                    "folds, configuration, step and mirror are for models of nnU-Net", source, given
                )
                recipe, weights, facts = bundle_model(bundle, name)
                return _finished(recipe, weights, facts, source, output)
            chosen = [] if folds is None else [str(fold) for fold in folds]
            recipe, weights, facts = _nnunet(folder, chosen, configuration, name, step, mirror)
    else:
        given = folds is not None or configuration is not None or step != 0.5 or not mirror
        _check_unused("folds, configuration, step and mirror are for models of nnU-Net", source, given)
        recipe, weights, facts = _weights_file(source, name, None if fill is None else Path(fill))
    return _finished(recipe, weights, facts, source, output)


def _finished(
    recipe: Recipe,
    weights: tuple[dict[str, torch.Tensor], ...],
    facts: dict[str, Any],
    source: Path,
    output: str | Path | None,
) -> Model:
    """The model, checked, and written if there is an output."""
    model = Model(recipe, weights, _provenance(recipe, facts))
    try:
        model.check()
    except ModelRefused as error:
        error.where = str(source)
        raise
    if output is not None:
        model.save(output)
        exported_graphs.export(model)
    return model


def _check_unused(problem: str, source: Path, given: bool) -> None:
    if given:
        raise UsageError(problem, where=source, remedy="leave them out", reason="import-configuration")


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r:.80} is not a name of a model",
            where="name",
            remedy="use small letters, digits, _ and -",
            reason="import-name",
        )


def _is_archive(path: Path) -> bool:
    """Whether this is a zip archive that is not itself a checkpoint of ``torch.save``."""
    if not path.is_file() or path.suffix.lower() in (".pth", ".pt"):
        return False
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06") or zipfile.is_zipfile(path)


def _weights_file(
    path: Path, name: str | None, fill: Path | None
) -> tuple[Recipe, tuple[dict[str, torch.Tensor], ...], Any]:
    checkpoint = Checkpoint.read(path)
    if "network_weights" in checkpoint.values:
        raise refused(
            path,
            "a checkpoint of nnU-Net without its plans",
            "import-source",
            "give the folder that holds plans.json, dataset.json and fold_0 with this file",
        )
    if not is_lungmask(checkpoint):
        raise refused(
            path,
            "neither a folder of nnU-Net nor a weights file of lungmask",
            "import-source",
            "for bare weights of a network of medseg: medseg import-weights FILE --recipe RECIPE",
        )
    second = None if fill is None else Checkpoint.read(fill)
    recipe, weights = lungmask_model(checkpoint, name, second)
    digests = [each.sha256() for each in (checkpoint, second) if each is not None]
    return recipe, (weights,), {"tool": "lungmask", "parts": [{"sha256": digests}]}


def _nnunet(
    folder: Path, folds: Sequence[str], configuration: str | None, name: str | None, step: float, mirror: bool
) -> tuple[Recipe, tuple[dict[str, torch.Tensor], ...], Any]:
    chosen, combine = _chosen(training_folders(folder), configuration, folder)
    trainings = [training_in(each, folds or None) for each in chosen]
    if combine == "cascade" and trainings[-1].plan.previous != trainings[0].plan.name:
        raise refused(folder, "the cascade's previous_stage is another configuration", "import-plans")
    if combine != "cascade":
        _check_alone(trainings)
    if len({each.folds for each in trainings}) > 1:
        raise UsageError(
            "the configurations have different folds",
            where=folder,
            remedy="choose folds that all have: --folds 0",
            reason="import-fold",
        )
    recipe = recipe_of(trainings, combine=combine, name=name, step=step, mirror=mirror)
    weights = tuple(fold_weights(recipe, trainings, fold) for fold in range(len(trainings[0].folds)))
    return recipe, weights, {"tool": "nnU-Net v2", "parts": [each.facts() for each in trainings]}


def _check_alone(trainings: Sequence[Training]) -> None:
    for each in trainings:
        if each.plan.previous is not None:
            raise UsageError(
                f"configuration {each.plan.name} needs the masks of {each.plan.previous}",
                where=each.folder,
                remedy="give the folder above, which holds both, with --configuration " + each.plan.name,
                reason="import-configuration",
            )


def _chosen(
    found: list[TrainingFolder], configuration: str | None, where: Path
) -> tuple[list[TrainingFolder], str]:
    """The training folders to import, and how they belong together."""
    named = [each.configuration or "" for each in found]
    if configuration is None:
        if len(found) == 1:
            return found, "mean"
        if len(set(named)) == 1 and len({each.path.parent for each in found}) == len(found):
            return found, "parts"
        raise _unclear(f"there are {len(found)} training folders", named, where)
    wanted = [part.strip() for part in configuration.split(",")]
    if len(found) == 1 and len(wanted) == 1 and not found[0].configuration:
        return found, "mean"
    groups = [[each for each in found if each.configuration == name] for name in wanted]
    if any(not group for group in groups):
        raise _unclear(f"there is no configuration {wanted[groups.index([])]!r}", named, where)
    if len(groups) == 1 and len(groups[0]) > 1:
        return groups[0], "parts"
    if any(len(group) > 1 for group in groups):
        raise _unclear("several data sets have these configurations", named, where)
    chosen = [group[0] for group in groups]
    if wanted == ["3d_cascade_fullres"]:
        lower = [each for each in found if each.configuration == "3d_lowres"]
        if len(lower) != 1:
            raise _unclear("3d_cascade_fullres needs the folder of 3d_lowres beside its own", named, where)
        return [*lower, *chosen], "cascade"
    return chosen, "mean"


def _unclear(problem: str, named: Iterable[str], where: Path) -> UsageError:
    known = ", ".join(sorted(set(filter(None, named)))) or "none with a name"
    return UsageError(
        problem,
        where=where,
        remedy=f"choose with --configuration (there are {known}), or give one training folder",
        reason="import-configuration",
    )


def _provenance(recipe: Recipe, facts: dict[str, Any]) -> dict[str, Any]:
    digests = [sha for part in facts["parts"] for sha in part["sha256"]]
    return {
        "medseg": own_version(),
        "torch": torch.__version__,
        "recipe_digest": recipe.digest,
        # The file itself if there is one, otherwise of the digests of all of them.
        IMPORTED: digests[0]
        if len(digests) == 1
        else hashlib.sha256(json.dumps(digests).encode()).hexdigest(),
        "imported_from": facts,
        "research_use_only": True,
    }
