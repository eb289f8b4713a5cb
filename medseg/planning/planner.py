"""The plan of a data set: its cases, its fingerprint and a recipe, written side by side."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.datasets.manifest import Case, Manifest
from medseg.datasets.manifest_builder import make_manifest
from medseg.datasets.splits import with_splits
from medseg.errors import UsageError
from medseg.planning.case_measurement import make_fingerprint
from medseg.planning.dataset_description import describe_dataset
from medseg.planning.default_plan import budget, default_recipe
from medseg.planning.fingerprint import Fingerprint, Modality
from medseg.planning.nnunet_planner import PLANNERS
from medseg.planning.nnunet_recipe import nnunet_recipe, plan_like_nnunet
from medseg.planning.recipe_draft import RecipeDraft
from medseg.planning.structures import channel_names, is_of_pictures, named_modality, structures
from medseg.recipe import Recipe
from medseg.system import memory_budget
from medseg.system.atomic_write import replacing
from medseg.system.devices import resolved
from medseg.system.own_version import own_version
from medseg.system.progress import Shown

if TYPE_CHECKING:
    from medseg.planning.step_timing import StepTiming

_VAL = 0.2
_GIB = 1 << 30
_UNKNOWN_MEMORY = 8 * _GIB


@dataclass(frozen=True)
class PlanOptions:
    """What the user decides about a plan.

    Attributes:
        like: A planner of nnU-Net: ``nnunet``, ``nnunet-resenc-m``, ``-l`` or ``-xl``; None: medseg's own.
        configuration: With ``like``: ``2d``, ``3d_fullres`` or ``3d_lowres``; None: the full resolution.
        memory_gb: Memory in GiB that a training step may use; None: half of the free memory (on a GPU four
            fifths), or with ``like`` what nnU-Net's planner assumes.
        modality: ``CT``, ``MR`` or ``picture``; None: told from channel names, file types or intensities.
        device: Device of the training.
        measure: Whether to time three training steps, which forecasts the duration of the training.

    Example:
        >>> medseg.PlanOptions(like="nnunet", memory_gb=4).like
        'nnunet'
    """

    like: str | None = None
    configuration: str | None = None
    memory_gb: float | None = None
    modality: Modality | None = None
    device: str = "auto"
    measure: bool = True

    def __post_init__(self) -> None:
        if self.like is not None and self.like not in PLANNERS:
            raise UsageError(
                f"unknown planner {self.like!r}",
                where="--like",
                remedy=f"choose one of: {', '.join(PLANNERS)}",
                reason="usage",
            )
        if self.configuration is not None and self.like is None:
            raise UsageError("--configuration is for --like", where="--configuration", reason="usage")


@dataclass(frozen=True)
class Plan:
    """A planned recipe and everything that it is based on.

    Attributes:
        recipe: The recipe.
        fingerprint: The fingerprint of the data set.
        manifest: The cases with their splits, if the source has no training split itself; else None.
        timing: Times of three training steps; None if they were not measured.
        text: The recipe as YAML, with the reasons as comments.

    Example:
        >>> made = medseg.plan("dataset", medseg.PlanOptions(measure=False))
        >>> made.recipe.modality, len(made.fingerprint.cases)
        ('CT', 4)
    """

    recipe: Recipe
    fingerprint: Fingerprint
    manifest: Manifest | None
    timing: StepTiming | None
    text: str

    def write(self, output: str | Path) -> tuple[Path, ...]:
        """The files written: the recipe, its fingerprint, and the cases if the source has no splits.

        Raises:
            UsageError: one of them exists (``plan-exists``).
        """
        paths = check_plan_outputs(output)
        with replacing(paths[0]) as fresh:
            fresh.write_text(self.text, encoding="utf-8", newline="\n")
        with replacing(paths[1]) as fresh:
            fresh.write_text(
                self.fingerprint.model_dump_json(indent=1) + "\n", encoding="utf-8", newline="\n"
            )
        if self.manifest is None:
            return paths[:2]
        self.manifest.write(paths[2], replace=False)
        return paths


def check_plan_outputs(output: str | Path) -> tuple[Path, Path, Path]:
    """The paths of recipe, fingerprint and cases, none of which exists yet.

    Raises:
        UsageError: the suffix is not YAML's (``plan-suffix``), the folder is missing (``output-folder``), or
            one of the files exists (``plan-exists``).
    """
    output = Path(output)
    if output.suffix not in (".yaml", ".yml"):
        raise UsageError(
            f"a recipe is YAML, not {output.suffix or 'a file without suffix'}",
            where=output,
            remedy="give -o NAME.yaml",
            reason="plan-suffix",
        )
    paths = (output, output.with_suffix(".fingerprint.json"), output.with_suffix(".cases.csv"))
    for path in paths:
        if path.exists():
            raise UsageError(
                "this file exists, and a plan replaces nothing",
                where=path,
                remedy="choose another name with -o, or move the file away",
                reason="plan-exists",
            )
    return paths


def plan(
    source: str | Path | Manifest,
    options: PlanOptions | None = None,
    *,
    name: str | None = None,
    root: str | Path | None = None,
    made: str | Path | None = None,
    progress: Shown = None,
) -> Plan:
    """A recipe for a data set, with a reason for each number; every scan and label is read once.

    Args:
        source: A manifest, its file, or a folder of scans and labels in any layout of ``medseg manifest``.
        options: What the user decides.
        name: Name of the recipe; by default that of the data set.
        root: Folder of the files of a manifest, instead of its own.
        made: Folder for label maps that have to be created, for layouts that have none.
        progress: Whether to show a progress bar; None shows it on a terminal or in a notebook only.

    Raises:
        UsageError: the folder has no known layout, no case has a label, or a dataset.json is incomplete.
        InputRefused: a scan or a label cannot be read, or they lie on different grids.

    Example:
        >>> made = medseg.plan("cases.csv", medseg.PlanOptions(measure=False))
        >>> made.recipe.spatial_dims
        3
    """
    options = options or PlanOptions()
    manifest = _manifest_of(source, root, made)
    described = (
        describe_dataset(Path(source))
        if not isinstance(source, Manifest)
        else describe_dataset(manifest.root)
    )
    cases = [case for case in manifest.cases if case.label is not None and case.split != "test"]
    modality = options.modality or ("picture" if is_of_pictures(cases) else named_modality(described))
    channels = channel_names(cases, described, modality)
    found = make_fingerprint(
        cases,
        name=manifest.name,
        channels=channels,
        modality=modality,
        coding=described.coding,
        names=dict(described.names),
        progress=progress,
    )
    if channels[0].startswith("image"):
        channels = tuple(each.replace("image", found.modality) for each in channels)
    known = structures(found, cases, described)
    start: dict[str, Any] = {
        "name": _name(name or manifest.name),
        "description": f"{', '.join(label.name for label in known.labels)[:120]} on {found.modality}, "
        f"planned from {len(found.cases)} cases of {manifest.name}.",
        "modality": found.modality,
        "channels": list(channels),
        "labels": [label.model_dump(mode="json", exclude_none=True) for label in known.labels],
        **({"ignore_value": described.ignore_value} if described.ignore_value else {}),
        **({"colours": dict(described.colours)} if described.colours else {}),
    }
    device = resolved(options.device)
    if options.like:
        theirs = plan_like_nnunet(
            found,
            known,
            like=options.like,
            memory_gb=options.memory_gb,
            ignored=described.ignore_value is not None,
        )
        draft = nnunet_recipe(
            found, known, theirs, like=options.like, configuration=options.configuration, start=start
        )
    else:
        draft = default_recipe(found, known, budget(_kind(device), _memory(options, device)), start)
    divided = _divided(manifest)
    return _finished(draft, found, divided, options, device, (divided or manifest).cases)


def _finished(
    draft: RecipeDraft,
    found: Fingerprint,
    divided: Manifest | None,
    options: PlanOptions,
    device: str,
    cases: Sequence[Case],
) -> Plan:
    recipe = draft.recipe
    training = [case for case in cases if case.split == "train" and case.label is not None]
    timing = None
    if options.measure:
        from medseg.planning.step_timing import time_steps

        timing = time_steps(recipe, training, device)
    opening = [
        f"Planned by medseg {own_version()} from {len(found.cases)} cases; the fingerprint lies beside. "
        "Every number may be edited. A field that is not here has its default: medseg recipe --schema."
    ]
    if timing is not None:
        opening.append(describe_timing(timing, recipe, len(training)))
    return Plan(recipe, found, divided, timing, draft.yaml(*opening))


def describe_timing(timing: StepTiming, recipe: Recipe, cases: int) -> str:
    """Weights, time of an epoch and forecast, as sentences.

    Args:
        timing: Three measured steps.
        recipe: The recipe.
        cases: Number of training cases.
    """
    epoch, epochs = timing.epoch_s(recipe), recipe.train.epochs
    return (
        f"{timing.parameters / 1e6:.2f} million weights. Three steps on {timing.device} with "
        f"{timing.threads} thread(s): {timing.step_s:.2f} s a step, so {_duration(epoch)} an epoch of "
        f"{recipe.train.steps_per_epoch} steps and {_duration(epoch * epochs)} for all {epochs}, without "
        f"validation; preparing {cases} cases once takes about {_duration(timing.prepare_s * cases)}."
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _manifest_of(source: str | Path | Manifest, root: str | Path | None, made: str | Path | None) -> Manifest:
    if isinstance(source, Manifest):
        return source
    path = Path(source)
    if path.is_dir():
        return make_manifest(path, made=made)
    return Manifest.read(path, root=root)


def _divided(manifest: Manifest) -> Manifest | None:
    """The manifest with a fifth of the patients for validation; None if it has both splits."""
    splits = {case.split for case in manifest.cases if case.label is not None}
    if {"train", "val"} <= splits:
        return None
    patients = {case.patient for case in manifest.cases if case.label is not None and case.split != "test"}
    if len(patients) < 2:
        cases = tuple(
            case if case.label is None or case.split == "test" else case.model_copy(update={"split": "train"})
            for case in manifest.cases
        )
        return replace(manifest, cases=cases)
    return with_splits(manifest, val=_VAL, test=0, seed=0)


def _name(text: str) -> str:
    return re.sub(r"[^a-z0-9_-]+", "_", text.casefold()).strip("_-")[:64] or "planned"


def _kind(device: str) -> str:
    return "cpu" if device == "cpu" else "gpu"


def _memory(options: PlanOptions, device: str) -> int:
    if options.memory_gb is not None:
        return int(options.memory_gb * _GIB)
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0] * 0.8)
    free = memory_budget.available_bytes()
    return _UNKNOWN_MEMORY if free is None else free // 2
