"""The recipe's section ``augment`` and its presets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from medseg.images.label import Label
from medseg.recipe.preprocessing import Intensity, Window, is_standardised
from medseg.recipe.section import Fraction, NotNegative, Section

Preset = Literal["none", "light", "full"]
PRESETS: tuple[Preset, ...] = get_args(Preset)
NNUNET = "nnunet"
"""Name of the preset with nnU-Net's own list of changes, :class:`NnunetAugment`."""

# A cubic B-spline whose control points move by less than this fraction of their spacing cannot fold:
# Choi and Lee 2000, doi:10.1006/gmod.2000.0531 (0.4033 in 3D, 0.4886 in 2D).
_MOST_BEND = 0.4
# Standard deviation of an MR scan whose 0.5 and 99.5 percentiles are 0 and 1: 0.19 (brain, T2) to
# 0.26 (hippocampus, T1) in eleven public scans.
_SD_OF_PERCENTILES = 0.2


class Augment(Section):
    """Random changes of training patches; 0 switches each of them off.

    Lengths and angles are measured in the patient, also if voxels are anisotropic. Spatial changes
    apply to image and label alike; intensity changes are drawn independently for each channel. See
    :mod:`medseg.preprocessing.augmentation` for the formulas and :func:`preset` for values with their
    sources.

    Attributes:
        kind: ``medseg``; the other kind is :class:`NnunetAugment`.
        flip_axes: Axes of the prepared scan (0 R-L, 1 A-P, 2 S-I) along which half of the patches
            are flipped. A flip along axis 0 swaps the labels of the two sides.
        rotate_degrees: Largest rotation in the axial plane (2D) or about each axis (3D).
        scale: Largest relative change of size, independently for each axis.
        shear: Largest tangent of the shear angle.
        translate_mm: Largest shift along each axis.
        elastic_mm: Largest displacement along each axis by a random smooth deformation.
        elastic_grid_mm: Spacing of the control points of that deformation; displacements vary
            over about this length. ``elastic_mm`` is at most 0.4 times this, so that nothing folds.
        noise_sd: Largest standard deviation of Gaussian noise, in normalised intensity.
        blur_voxels: Largest standard deviation of a Gaussian blur.
        gamma: Largest relative change of the exponent applied to intensities in 0..1.
        brightness: Largest shift of normalised intensity.
        contrast: Largest relative change of contrast.
        low_resolution: Largest fraction of the resolution lost along each axis; 0.5 keeps
            every second voxel.
        bias_field: MR: largest relative change of intensity by a smooth field, as of a receive coil.
        ghosting: MR: largest fraction by which periodic lines of k-space are attenuated, as by breathing.
        motion_mm: MR: largest shift of the patient between the acquisition of the centre and of
            the outer lines of k-space.
        cutout: Largest fraction of each edge of the patch that is hidden by a box. The label is kept.
        clip: Clip intensities to 0..1 at the end. Only for intensities that are prepared
            to 0..1 (window or percentile), where the network never sees other values.
        probability: Probability of each change (flips: always 0.5; clip: always applied).
        larger_cut: Cut patches so much larger before they are rotated, scaled, sheared, shifted or deformed
            that all their voxels come from the scan. Otherwise the outermost voxels are repeated.
    """

    kind: Literal["medseg"] = "medseg"
    flip_axes: tuple[Literal[0, 1, 2], ...] = ()
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 15.0
    scale: Annotated[float, Field(ge=0, lt=0.9)] = 0.1
    shear: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    translate_mm: NotNegative = 0.0
    elastic_mm: NotNegative = 0.0
    elastic_grid_mm: Annotated[float, Field(ge=1, le=1000)] = 40.0
    noise_sd: NotNegative = 0.05
    blur_voxels: Annotated[float, Field(ge=0, le=10)] = 0.0
    gamma: Annotated[float, Field(ge=0, lt=1)] = 0.2
    brightness: NotNegative = 0.05
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.1
    low_resolution: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    bias_field: Annotated[float, Field(ge=0, le=10)] = 0.0
    ghosting: Fraction = 0.0
    motion_mm: NotNegative = 0.0
    cutout: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    clip: bool = False
    probability: Fraction = 0.5
    larger_cut: bool = False

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Recipes written before these fields existed keep their YAML and their digest.
        data: dict[str, Any] = handler(self)
        data.pop("kind", None)
        if not self.larger_cut:
            data.pop("larger_cut", None)
        return data

    @model_validator(mode="after")
    def _unfolded(self) -> Augment:
        most = _MOST_BEND * self.elastic_grid_mm
        if self.elastic_mm > most:
            raise ValueError(
                f"elastic_mm {self.elastic_mm:g} would fold the patch: at most {most:g} with "
                f"elastic_grid_mm {self.elastic_grid_mm:g}"
            )
        return self


class NnunetAugment(Section):
    """nnU-Net's default augmentation (version 2.8), with its probabilities and ranges.

    These are, with probabilities and ranges: rotation (0.2), scaling (0.2; 1 / 1.4 to 1 / 0.7), noise (0.1;
    standard deviation up to 0.1), blur (0.2, half of the channels; 0.5 to 1 voxel), brightness (0.15; times
    0.75 to 1.25), contrast (0.15; 0.75 to 1.25 about the mean, within the range of the patch), resolution
    (0.25, half of the channels; 0.5 to 1), gamma of the inverted image (0.1) and of the image (0.3; 0.7 to
    1.5, with mean and standard deviation restored), flips (0.5). Angles are those of the voxel grid, and
    patches are cut so much larger that no edge is smeared.
    See :mod:`medseg.preprocessing.augmentation.nnunet` for the formulas.

    Attributes:
        kind: ``nnunet``.
        flip_axes: Axes of the prepared scan along which half of the patches are flipped.
        rotate_degrees: Largest rotation in the plane (2D, or with ``flat_axis``) or about each axis (3D).
        flat_axis: Axis of thick slices: patches are rotated and scaled in the plane of the two others only,
            and keep their resolution along this one. None: all three axes are alike.
    """

    kind: Literal["nnunet"]
    flip_axes: tuple[Literal[0, 1, 2], ...] = (0, 1, 2)
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 30.0
    flat_axis: Literal[0, 1, 2] | None = None

    @property
    def larger_cut(self) -> bool:
        """True: patches are always cut larger before they are moved."""
        return True


def _medseg_by_default(data: Any) -> Any:
    return {"kind": "medseg", **data} if isinstance(data, dict) else data


AnyAugment: TypeAlias = Annotated[
    Annotated[Augment | NnunetAugment, Field(discriminator="kind")], BeforeValidator(_medseg_by_default)
]
"""Either kind of section; one without ``kind`` is :class:`Augment`."""

_FLAT = 3  # nnU-Net's threshold for the anisotropy of patches


def nnunet_preset(
    *, size: Sequence[int], spacing_mm: Sequence[float], labels: Sequence[Label]
) -> NnunetAugment:
    """The section that ``augment: nnunet`` stands for.

    Patches more than 3 times as long as along the axis of the largest voxels are turned in the plane only,
    by any angle, as are 2D patches unless they are longer than 1.5 : 1 (then up to 15 degrees); others by up
    to 30 degrees about each axis. If a label has a side, flips along R-L and rotations above 90 degrees are
    left out, unlike in nnU-Net, which then exchanges right and left.

    Args:
        size: Size of the patch.
        spacing_mm: Voxel size of the prepared scan.
        labels: The recipe's labels.
    """
    flat, degrees = None, 30.0
    if len(size) == 2:
        degrees = 15.0 if max(size) / min(size) > 1.5 else 180.0
    else:
        # Of equal voxel sizes the last axis: nnU-Net's first, as its axes are in the opposite order.
        thick = max(range(3), key=lambda axis: (spacing_mm[axis], axis))
        if max(size) / size[thick] > _FLAT:
            flat, degrees = thick, 180.0
    sided = any(label.side for label in labels)
    return NnunetAugment.model_validate(
        {
            "kind": "nnunet",
            "flip_axes": tuple(axis for axis in range(len(size)) if axis or not sided),
            "rotate_degrees": min(degrees, 90.0) if sided else degrees,
            "flat_axis": flat,
        }
    )


def preset(
    name: Preset, *, modality: Literal["CT", "MR", "picture"], intensity: Intensity, labels: Sequence[Label]
) -> Augment:
    """The section ``augment`` that a preset stands for.

    ``none`` changes nothing. ``full`` follows nnU-Net (Isensee et al. 2021,
    doi:10.1038/s41592-020-01008-z, its supplement on augmentation and its code of version 2) in rotation
    (30 degrees), size (0.7 to 1.4, ours 0.7 to 1.3), blur (1 voxel), gamma (0.7 to 1.5, ours 0.7
    to 1.3), contrast of MR (0.75 to 1.25), resolution (one half), noise of MR (variance 0.1 of a
    z-score) and in probability (0.1 to 0.4 there; 0.3 here, for rotation and size together). Elastic
    deformation and MR artefacts, which nnU-Net lacks, follow TorchIO (Pérez-García et
    al. 2021, doi:10.1016/j.cmpb.2021.106236): 7.5 mm; a bias of 0.5 (coefficients 0.5); ghosts
    of up to 0.3 (0.5 to 1 there) and 5 mm of motion (10 there), less because the mask must still fit.
    ``light`` is half of that, without deformation, blur, low resolution, ghosts and motion.

    CT has an absolute unit: whatever the width of the window, noise is up to 50 HU and brightness up
    to 20 HU (half in ``light``), contrast changes by less than in MR, and there are no MR
    artefacts. The values for CT and those of ``light`` are our choice, not yet measured on a task.

    Flips are along R-L only (nnU-Net: all axes), because prepared scans are never upside down, and
    there are none if a label has a side: the heart and the liver distinguish the sides. Pictures are flipped
    along both axes, and have no MR artefacts either; lengths in mm are pixels unless pixels have a size. No
    preset has shear or shifts (patches are cut anywhere) or cutout (it rewards segmenting hidden tissue).

    Args:
        name: ``none``, ``light`` or ``full``.
        modality: The recipe's modality.
        intensity: The recipe's normalisation, which decides the unit of the values.
        labels: The recipe's labels.
    """
    if name == "none":
        fields = ("rotate_degrees", "scale", "noise_sd", "gamma", "brightness", "contrast", "probability")
        return Augment.model_validate(dict.fromkeys(fields, 0))
    share = 0.5 if name == "light" else 1.0
    numbers: dict[str, object] = {
        "flip_axes": () if any(label.side for label in labels) else (0, 1) if modality == "picture" else (0,),
        "rotate_degrees": 30 * share,
        "scale": 0.3 * share,
        "gamma": 0.3 * share,
        "clip": not is_standardised(intensity),
        "probability": 0.3,
    }
    if isinstance(intensity, Window):
        unit_hu = intensity.sd_hu or intensity.high_hu - intensity.low_hu
        noise, brightness = 50 / unit_hu, 20 / unit_hu
    else:
        sd = 1.0 if intensity.kind == "zscore" else _SD_OF_PERCENTILES
        noise, brightness = 0.3 * sd, 0.2 * sd
    numbers |= {"noise_sd": round(noise * share, 5), "brightness": round(brightness * share, 5)}
    if modality == "CT":
        numbers |= {"contrast": 0.1 * share}
    elif modality == "MR":
        numbers |= {"contrast": 0.25 * share, "bias_field": 0.5 * share}
    else:
        numbers |= {"contrast": 0.25 * share}
    if name == "full":
        numbers |= {"elastic_mm": 7.5, "elastic_grid_mm": 40, "blur_voxels": 1, "low_resolution": 0.5}
        if modality == "MR":
            numbers |= {"ghosting": 0.3, "motion_mm": 5}
    return Augment.model_validate(numbers)


def misfit(
    rules: Augment | NnunetAugment, *, labels: Sequence[Label], intensity: Intensity, spatial_dims: int
) -> str | None:
    """Why the section does not fit the rest of its recipe; None if it does.

    Rotation is limited to 90 degrees if labels have sides: up to there, right lies at larger x in every
    patch, in 2D (rotated about S-I) and in 3D (about every axis); beyond, it lies on the left.
    Shear, scaling and deformation never exchange the sides.
    """
    sided = [label.name for label in labels if label.side]
    alone = [label.name for label, at in zip(labels, mirrored(labels), strict=True) if at is None]
    if spatial_dims == 2 and 2 in rules.flip_axes:
        return "augment.flip_axes contains 2 (S-I), an axis that 2D slices do not have: use 0 or 1"
    if alone and 0 in rules.flip_axes:
        return (
            f"augment.flip_axes contains 0 (R-L), which would exchange the sides of {alone}: each needs one "
            f"partner with the other side and the same name, such as right_lung and left_lung"
        )
    if sided and rules.rotate_degrees > 90:
        return (
            f"augment.rotate_degrees {rules.rotate_degrees:g} would exchange right and left, but {sided} "
            f"have sides: use at most 90"
        )
    if isinstance(rules, NnunetAugment):
        if spatial_dims == 2 and rules.flat_axis is not None:
            return "augment.flat_axis is for 3D patches: remove it"
        return None
    if rules.clip and is_standardised(intensity):
        return "augment.clip limits intensities to 0..1, but z-scores exceed that range: remove it"
    return None


def mirrored(labels: Sequence[Label]) -> tuple[int | None, ...]:
    """For each label the index of its mirror image; None if it has a side but no partner.

    A label without a side is its own mirror image. The partner of ``right_lung`` has the other side
    and the same name apart from words for the side (``left_lung``, ``lung_l``, ``Left Lung``); if
    several labels qualify, there is no partner.

    >>> mirrored([Label(name="right_lung", values=(1,), side="right"), Label(name="heart", values=(3,)),
    ...           Label(name="left_lung", values=(2,), side="left")])
    (2, 1, 0)
    """
    found: list[int | None] = []
    for place, label in enumerate(labels):
        if label.side is None:
            found.append(place)
            continue
        same = [
            (other, each)
            for other, each in enumerate(labels)
            if each.side is not None and _without_side(each.name) == _without_side(label.name)
        ]
        across = [other for other, each in same if each.side != label.side]
        found.append(across[0] if len(same) == 2 and len(across) == 1 else None)
    return tuple(found)


def _without_side(name: str) -> tuple[str, ...]:
    """The words of a name in lower case, without words for the side."""
    words = re.findall(r"[^\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))
    return tuple(w.lower() for w in words if w.lower() not in {"right", "left", "r", "l", "rt", "lt"})
