"""Checks that the fields of a recipe fit each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medseg.errors import UsageError
from medseg.images.label import Label
from medseg.images.volume import check_labels
from medseg.io.picture.colours import colour_table
from medseg.recipe.augmentation import misfit
from medseg.recipe.bundle_pipeline import BundlePipeline
from medseg.recipe.context import Context
from medseg.recipe.pipeline import EnsemblePipeline, LungmaskPipeline, NnunetPipeline
from medseg.recipe.prediction import CleaningStep, Postprocess, Predict
from medseg.recipe.preprocessing import Window

if TYPE_CHECKING:
    from medseg.recipe import Recipe


def check_consistency(recipe: Recipe) -> None:
    """Raise ValueError, naming field and remedy, if the fields of a recipe contradict each other."""
    try:
        check_labels(recipe.labels)
    except UsageError as error:
        raise ValueError(error.problem) from None
    if any(recipe.ignore_value in label.values for label in recipe.labels):
        raise ValueError(f"ignore_value {recipe.ignore_value} is also a value of a label")
    if recipe.colours:
        try:
            colour_table(recipe.colours, recipe.labels, recipe.ignore_value)
        except UsageError as error:
            raise ValueError(error.problem) from None
    problem = misfit(
        recipe.augment,
        labels=recipe.labels,
        intensity=recipe.prepare.intensity,
        spatial_dims=recipe.spatial_dims,
    )
    if problem:
        raise ValueError(problem)
    if recipe.modality == "CT" and not isinstance(recipe.prepare.intensity, Window):
        raise ValueError("CT intensities have an absolute unit (HU): use intensity kind 'window'")
    unknown = sorted(set(recipe.loss.class_weights) - {label.name for label in recipe.labels})
    if unknown:
        raise ValueError(f"loss.class_weights names {unknown[0]!r}, which is not a label of the recipe")
    if not any(recipe.loss.class_weights.get(label.name, 1.0) for label in recipe.labels):
        raise ValueError("loss.class_weights are 0 for every label: nothing would be learned")
    if recipe.exclusive and recipe.predict.threshold != Predict().threshold:
        raise ValueError(
            f"predict.threshold {recipe.predict.threshold} has no effect with loss dice_ce, which picks "
            "the most probable label: remove it"
        )
    values = [value for label in recipe.labels for value in label.values]
    if recipe.exclusive and len(set(values)) < len(values):
        raise ValueError("loss dice_ce needs mutually exclusive labels, but these labels share values")
    if recipe.predict.whole_planes:
        _check_whole_planes(recipe)
    if recipe.context:
        _check_context(recipe, recipe.context)
    if isinstance(recipe.pipeline, EnsemblePipeline):
        _check_ensemble(recipe, recipe.pipeline)
    elif recipe.pipeline:
        _check_pipeline(recipe, recipe.pipeline)
    if recipe.postprocess.divide:
        _check_divided(recipe, recipe.postprocess.divide)
    _check_steps(recipe, recipe.postprocess.steps)
    problem = recipe.network.misfit(recipe.spatial_dims)
    if problem:
        raise ValueError(problem)
    _check_patch(recipe)


def _check_patch(recipe: Recipe) -> None:
    size, factors = recipe.patch.size, recipe.network.divisors(recipe.spatial_dims)
    if any(n % factor for n, factor in zip(size, factors, strict=True)):
        lower = [max(n // factor, 1) * factor for n, factor in zip(size, factors, strict=True)]
        upper = [-(-n // factor) * factor for n, factor in zip(size, factors, strict=True)]
        multiple = factors[0] if len(set(factors)) == 1 else list(factors)
        raise ValueError(
            f"patch.size {list(size)} does not fit network {recipe.network.kind}: each "
            f"number must be a multiple of {multiple}, such as {lower} or {upper}"
        )
    if recipe.network.normalised and size == factors:
        raise ValueError(
            f"patch.size {list(size)} shrinks to one voxel, which the normalisation of network "
            f"{recipe.network.kind} cannot handle: make at least one number {2 * min(factors)} or more"
        )


def _check_whole_planes(recipe: Recipe) -> None:
    if recipe.spatial_dims != 2:
        raise ValueError("predict.whole_planes needs a 2D patch (patch.size with two numbers)")
    norm = getattr(recipe.network, "norm", "instance")
    if norm not in ("batch", "none"):
        raise ValueError(
            f"predict.whole_planes needs network.norm batch or none: with norm {norm} the output depends "
            "on the size of the plane"
        )


def _check_context(recipe: Recipe, context: Context) -> None:
    if recipe.modality != "CT" or [label.side for label in recipe.labels] != ["right", "left"]:
        raise ValueError(
            "context is only for lungs on CT: it needs labels with side right and left, in this order"
        )
    if recipe.spatial_dims != 3 or not recipe.exclusive or len(recipe.channels) != 1:
        raise ValueError("context needs one channel, a 3D patch, and loss dice_ce")
    if isinstance(recipe.prepare.intensity, Window) and recipe.prepare.intensity.sd_hu is not None:
        raise ValueError("context needs a window that is mapped to 0..1: remove mean_hu and sd_hu")
    factor = context.network.divisor
    if any(n % factor for n in context.size):
        raise ValueError(f"context.size {list(context.size)}: each must be a multiple of {factor}")


def _check_pipeline(recipe: Recipe, pipeline: NnunetPipeline | LungmaskPipeline | BundlePipeline) -> None:
    if (
        recipe.predict != Predict()
        or recipe.postprocess.rules != Postprocess()
        or recipe.context
        or recipe.prepare.crop
    ):
        raise ValueError(
            "with a pipeline, predict and postprocess (but for its steps) keep their defaults, and there "
            "is neither context nor prepare.crop: the pipeline decides everything"
        )
    if recipe.patch.neighbours:
        raise ValueError("with a pipeline, patch.neighbours must be 0")
    if isinstance(pipeline, BundlePipeline):
        if recipe.spatial_dims != 3:
            raise ValueError("pipeline bundle needs a patch.size of three numbers")
        if recipe.exclusive != (pipeline.threshold is None) or (
            not recipe.exclusive and len(recipe.labels) > 1
        ):
            raise ValueError("pipeline bundle needs loss dice_ce, or another one, a threshold and one label")
        return
    if isinstance(pipeline, LungmaskPipeline):
        if recipe.modality != "CT" or len(recipe.channels) != 1 or not recipe.exclusive:
            raise ValueError("pipeline lungmask needs modality CT, one channel, and loss dice_ce")
        if recipe.patch.size != (256, 256):
            raise ValueError(f"pipeline lungmask needs patch.size [256, 256], not {list(recipe.patch.size)}")
        return
    names = {label.name for label in recipe.labels}
    for each in pipeline.configurations:
        size = each.patch_size or recipe.patch.size
        if len(size) != len(each.spacing_mm):
            raise ValueError(
                f"configuration {each.name!r}: spacing_mm has {len(each.spacing_mm)} numbers, but the "
                f"patch has {len(size)}"
            )
        if len(each.intensity) != len(recipe.channels):
            raise ValueError(
                f"configuration {each.name!r} has {len(each.intensity)} intensities, but there are "
                f"{len(recipe.channels)} channels"
            )
        unknown = sorted(set(each.labels or ()) - names)
        if unknown:
            raise ValueError(f"configuration {each.name!r} names {unknown[0]!r}, which is not a label")
    if (pipeline.combine != "mean" or len(pipeline.configurations) > 1) and not recipe.exclusive:
        raise ValueError(
            f"pipeline.combine {pipeline.combine} of several configurations needs exclusive labels: loss "
            "dice_ce, not regions"
        )


def _check_ensemble(recipe: Recipe, pipeline: EnsemblePipeline) -> None:
    if recipe.context:
        raise ValueError("pipeline ensemble cannot be used with context")
    names = sorted(label.name for label in recipe.labels)
    for number, each in enumerate(pipeline.members):
        if sorted(each.labels) != names:
            raise ValueError(f"pipeline.members[{number}].labels {list(each.labels)} must be {names}")
    for member in recipe.member_recipes():
        type(recipe).model_validate(member.model_dump())


def _check_divided(recipe: Recipe, parts: tuple[Label, Label]) -> None:
    if len(recipe.labels) > 1:
        raise ValueError(f"postprocess.divide needs exactly one label, but there are {len(recipe.labels)}")
    if [part.side for part in parts] != ["right", "left"]:
        raise ValueError("postprocess.divide needs two labels, with side right and left, in this order")
    values = sorted(value for part in parts for value in part.values)
    if values != sorted(recipe.labels[0].values):
        raise ValueError(
            f"postprocess.divide has the values {values}, but label {recipe.labels[0].name} has "
            f"{sorted(recipe.labels[0].values)}: they must be the same"
        )


def _check_steps(recipe: Recipe, steps: tuple[CleaningStep, ...]) -> None:
    if steps and recipe.context:
        raise ValueError("postprocess.steps cannot be used with context: lung_ct decides its masks")
    names = {label.name for label in recipe.painted}
    for number, step in enumerate(steps):
        unknown = sorted(set(step.labels) - names)
        if unknown:
            raise ValueError(f"postprocess.steps[{number}] names {unknown[0]!r}, which is not a label")
