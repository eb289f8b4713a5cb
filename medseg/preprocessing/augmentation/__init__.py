"""Random changes of training patches, through MONAI. One table; to add a row: a `Step` and a line here.

The result is decided by the patch, the seed given to ``set_random_state`` and the kind of device;
not by the worker, the number of threads or any global state. Every row works on the device of its
tensors: only drawn numbers, never voxels, pass between CPU and GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from monai.transforms.compose import Compose

from medseg.preprocessing.augmentation.intensity import Brightness, Clip, Contrast, Cutout, Gamma, Noise
from medseg.preprocessing.augmentation.mr_artefacts import BiasField, Ghosting, Motion
from medseg.preprocessing.augmentation.resolution import Blur, LowResolution
from medseg.preprocessing.augmentation.spatial import Deform, Flip
from medseg.preprocessing.augmentation.transform import Patch, RandomTransform
from medseg.recipe import Recipe
from medseg.recipe.augmentation import mirrored

__all__ = ["KINDS", "Kind", "Patch", "Step", "augment"]


@dataclass(frozen=True)
class Kind:
    """A row of the table.

    Attributes:
        fields: Of the recipe's section ``augment``; the row is left out when all of them are off.
        build: Makes the transform of a recipe.
    """

    fields: tuple[str, ...]
    build: Callable[[Recipe], RandomTransform]


def _flip(recipe: Recipe) -> RandomTransform:
    # A label without a partner has None; the recipe then has no flip of axis 0.
    places = [at if at is not None else n for n, at in enumerate(mirrored(recipe.labels))]
    return Flip(recipe.augment.flip_axes, places)


def _deform(recipe: Recipe) -> RandomTransform:
    return Deform(recipe.augment, recipe.prepare.spacing_mm[: recipe.spatial_dims])


def _motion(recipe: Recipe) -> RandomTransform:
    rules, spacing_mm = recipe.augment, recipe.prepare.spacing_mm[: recipe.spatial_dims]
    return Motion(rules.motion_mm, rules.probability, spacing_mm, channels=len(recipe.channels))


def _simple(step: Callable[..., RandomTransform], field: str) -> Kind:
    """The row of a step with one amount and one field."""

    def build(recipe: Recipe) -> RandomTransform:
        rules = recipe.augment
        return step(getattr(rules, field), rules.probability, channels=len(recipe.channels))

    return Kind((field,), build)


# In the order in which they come about: the patient, the scanner, the picture, the noise.
REGISTRY: dict[str, Kind] = {
    "flip": Kind(("flip_axes",), _flip),
    "deform": Kind(("rotate_degrees", "scale", "shear", "translate_mm", "elastic_mm"), _deform),
    "bias_field": _simple(BiasField, "bias_field"),
    "ghosting": _simple(Ghosting, "ghosting"),
    "motion": Kind(("motion_mm",), _motion),
    "blur": _simple(Blur, "blur_voxels"),
    "low_resolution": _simple(LowResolution, "low_resolution"),
    "gamma": _simple(Gamma, "gamma"),
    "contrast": _simple(Contrast, "contrast"),
    "brightness": _simple(Brightness, "brightness"),
    "noise": _simple(Noise, "noise_sd"),
    "cutout": _simple(Cutout, "cutout"),
    "clip": Kind(("clip",), lambda recipe: Clip()),
}


def augment(recipe: Recipe) -> Compose:
    """The random MONAI transform of a patch ``{"image": ..., "label": ...}``.

    Args:
        recipe: Its section ``augment`` says what changes and how much; channels, labels and voxel
            size say what that means.

    Returns:
        A `Compose` that maps float32 ``image`` (in_channels, *patch) and ``label`` (L, *patch) of
        1, 0 and -1 to the same, on their own device, without changing its input. Its randomness
        is decided by ``set_random_state`` alone.
    """
    rules = recipe.augment
    return Compose(
        [kind.build(recipe) for kind in REGISTRY.values() if any(getattr(rules, f) for f in kind.fields)]
    )
