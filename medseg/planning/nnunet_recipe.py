"""A configuration of nnU-Net's plan as a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from medseg.errors import UsageError
from medseg.planning.fingerprint import Fingerprint
from medseg.planning.nnunet_planner import PLANNERS, Configuration, NnunetPlan, make_nnunet_plan
from medseg.planning.recipe_draft import RecipeDraft
from medseg.planning.structures import Structures

T = TypeVar("T")
_MASKED_BELOW = 0.75
_CROPPED_BELOW = 0.99


def plan_like_nnunet(
    found: Fingerprint, known: Structures, *, like: str, memory_gb: float | None, ignored: bool
) -> NnunetPlan:
    """The plan that nnU-Net makes for a fingerprint.

    Args:
        found: The fingerprint; its axes R-L, A-P, S-I are nnU-Net's in reverse for scans stored axially.
        known: The labels.
        like: A key of :data:`medseg.planning.nnunet_planner.PLANNERS`.
        memory_gb: Memory of the GPU; None: the planner's.
        ignored: Whether label maps have a value to ignore, which nnU-Net counts as a label.
    """
    return make_nnunet_plan(
        PLANNERS[like],
        [case.spacing_mm[::-1] for case in found.cases],
        [case.shape[::-1] for case in found.cases],
        outputs=len(known.labels) + 1 + ignored,
        memory_gb=memory_gb,
    )


def nnunet_recipe(
    found: Fingerprint,
    known: Structures,
    plan: NnunetPlan,
    *,
    like: str,
    configuration: str | None,
    start: dict[str, Any],
) -> RecipeDraft:
    """The recipe of a configuration, which medseg prepares and trains.

    Args:
        found: The fingerprint.
        known: The labels.
        plan: From :func:`plan_like_nnunet`.
        like: Name of the planner.
        configuration: ``2d``, ``3d_fullres`` or ``3d_lowres``; None: ``3d_fullres``, or ``2d`` for flat data.
        start: Fields name, description, modality, channels, labels and ignore_value.

    Raises:
        UsageError: the plan has no such configuration, or it cannot be expressed (``plan-configuration``).
    """
    name = configuration or ("3d_fullres" if "3d_fullres" in plan.configurations else "2d")
    if name not in plan.configurations:
        raise _impossible(
            f"nnU-Net plans no configuration {name!r} for these data", f"use {', '.join(plan.configurations)}"
        )
    chosen = plan.configurations[name]
    flat = name == "2d"
    if flat and plan.transpose[0] != 0:
        raise _impossible("nnU-Net's 2D slices would not be axial here, and medseg's are", "use 3d_fullres")
    stages = len(chosen.network.strides)
    if stages < 2:
        raise _impossible(
            f"patches of {list(chosen.network.patch_size)} voxels are too small for two resolutions",
            "plan without --like",
        )
    # Plan axis n is axis `transpose[n]` of (S-I, A-P, R-L); the recipe's axes are R-L, A-P, S-I.
    order = (1, 0) if flat else tuple(2 - axis for axis in plan.transpose)
    spacing = dict(zip((2 - axis for axis in plan.transpose[-len(order) :]), chosen.spacing_mm, strict=True))
    through = {2: found.median_spacing_mm[2]} if flat else {}
    along = spacing | through
    median = " x ".join(f"{n:g}" for n in _turned(chosen.median_shape, order))
    data = start | {
        "prepare": {
            "spacing_mm": [round(along[axis], 6) for axis in range(3)],
            **({"crop": {"above": 0, "margin_mm": 0}} if _is_cropped(found) else {}),
            "intensity": _ct_z_score(found) or intensity(found),
        },
        "patch": {"size": _turned(chosen.network.patch_size, order)},
        "network": {
            "kind": plan.kind,
            "widths": list(chosen.network.widths),
            "kernels": [_turned(each, order) for each in chosen.network.kernels],
            "strides": [_turned(each, order) for each in chosen.network.strides],
            "deep_supervision": [0.5**level for level in range(max(stages - 2, 1))],
        },
        "loss": {
            "kind": "dice_ce" if known.exclusive else "dice_bce",
            **({} if chosen.batch_dice else {"batch_dice": False}),
        },
        "augment": "nnunet",
        "train": {
            "preset": "nnunet",
            "batch_size": chosen.batch_size,
        },
    }
    cautions = (
        *known.cautions,
        f"nnU-Net 2.8 plans this as its configuration {name} (--like {like}); there are "
        f"{' and '.join(plan.configurations)}.",
        "medseg prepares the data: RAS orientation and its own resampling.",
    )
    return RecipeDraft(data, _reasons(found, known, name, chosen, median), cautions)


def _reasons(
    found: Fingerprint, known: Structures, name: str, chosen: Configuration, median: str
) -> dict[str, str]:
    return {
        "labels": known.reason,
        "prepare.spacing_mm": f"nnU-Net's target spacing: cases have a median of {median} voxels then.",
        "prepare.intensity": "CT: percentiles 0.5 and 99.5, mean and standard deviation of the foreground "
        "of all cases, in HU, as nnU-Net normalises CT."
        if _ct_z_score(found)
        else intensity_reason(found),
        "patch": f"nnU-Net's patch for {name}, with {chosen.elements / 1e6:.0f} million feature-map values: "
        "as large as its GPU and a median case allow.",
        "network": "An axis is halved while it is long enough and its voxels are not the longest; no loss at "
        "the coarsest output.",
        "loss": "Dice and cross-entropy of exclusive labels."
        if known.exclusive
        else "One sigmoid per label, because there is one label, or labels overlap or are partly annotated.",
        "augment": "nnU-Net's own changes with its probabilities; `full` is medseg's preset.",
        "train": "nnU-Net's 1000 epochs of 250 steps, polynomial decay, the last third of each batch on "
        "foreground, SGD with Nesterov momentum. "
        "Users report convergence after 400 to 500.",
    }


def intensity(found: Fingerprint) -> dict[str, Any]:
    """The normalisation: the foreground's percentiles 0.5 and 99.5 as a window for CT, else a z-score."""
    if found.modality == "CT":
        low, high = (min(each.low for each in found.channels), max(each.high for each in found.channels))
        middle, half = (low + high) / 2, max((high - low) / 2, 50)  # at least 100 HU, fat to muscle
        return {
            "kind": "window",
            "low_hu": float(round(middle - half)),
            "high_hu": float(round(middle + half)),
        }
    if found.modality == "picture":
        return {"kind": "zscore", "nonzero": False}
    return {"kind": "zscore", "nonzero": found.kept_by_crop < _MASKED_BELOW}


def _ct_z_score(found: Fingerprint) -> dict[str, Any] | None:
    """nnU-Net's normalisation of CT; None for other data, several channels, or a constant foreground."""
    channel = found.channels[0]
    if found.modality != "CT" or len(found.channels) > 1 or channel.low >= channel.high or channel.sd <= 0:
        return None
    numbers = {"low_hu": channel.low, "high_hu": channel.high, "mean_hu": channel.mean, "sd_hu": channel.sd}
    return {"kind": "window", **{name: round(value, 4) for name, value in numbers.items()}}


def intensity_reason(found: Fingerprint) -> str:
    """Why, as a sentence."""
    if found.modality == "CT":
        return "CT: percentiles 0.5 and 99.5 of the foreground of all cases, in HU."
    if found.modality == "picture":
        return "Pictures differ in exposure: a z-score of each, which also fits any number of bits."
    share = f"the box of non-zero voxels is {100 * found.kept_by_crop:.0f} % of a scan"
    return f"MR has no absolute unit: a z-score per scan; {share} (nnU-Net: of these voxels only below 75 %)."


def _is_cropped(found: Fingerprint) -> bool:
    return found.modality != "CT" and found.kept_by_crop < _CROPPED_BELOW


def _turned(values: Sequence[T], order: Sequence[int]) -> list[T]:
    """Values by plan axis in the order of the recipe's axes; ``order`` names the recipe's axis of each."""
    return [value for _, value in sorted(zip(order, values, strict=True), key=lambda pair: pair[0])]


def _impossible(problem: str, remedy: str) -> UsageError:
    return UsageError(problem, where="--like", remedy=remedy, reason="plan-configuration")
