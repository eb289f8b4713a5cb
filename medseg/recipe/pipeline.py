"""The recipe's section ``pipeline``: models of other tools, applied exactly as they do it, and ensembles.

A recipe without this section is medseg's own. With it, the section ``prepare`` only describes the scans (for
``medseg check`` and for viewing), and ``predict`` and ``postprocess`` (but for its steps) must keep their
defaults.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from medseg.recipe.bundle_pipeline import BundlePipeline
from medseg.recipe.network import Network
from medseg.recipe.prediction import Predict
from medseg.recipe.preprocessing import Patch, Prepare
from medseg.recipe.section import Finite, NotNegative, Section, Size, SpacingMm

Axis = Annotated[int, Field(ge=0, le=2)]
_Sides: TypeAlias = tuple[Size, Size] | tuple[Size, Size, Size]
_Spacings: TypeAlias = tuple[SpacingMm, SpacingMm] | tuple[SpacingMm, SpacingMm, SpacingMm]


class ChannelCT(Section):
    """``CTNormalization``: clipped to ``low_hu..high_hu``, minus ``mean_hu``, divided by ``sd_hu``.

    Attributes:
        kind: Name of this kind.
        low_hu: ``percentile_00_5`` of ``foreground_intensity_properties_per_channel`` in ``plans.json``.
        high_hu: ``percentile_99_5`` of the same.
        mean_hu: ``mean`` of the same.
        sd_hu: ``std`` of the same; at least 1e-8 is used.
    """

    kind: Literal["ct"] = "ct"
    low_hu: Finite
    high_hu: Finite
    mean_hu: Finite
    sd_hu: NotNegative


class ChannelZScore(Section):
    """``ZScoreNormalization``: mean 0 and standard deviation 1 over the cropped scan.

    Attributes:
        kind: Name of this kind.
        inside: Only over the voxels inside the non-zero mask, leaving the others unchanged:
            ``use_mask_for_norm`` in ``plans.json``.
    """

    kind: Literal["zscore"]
    inside: bool = False


class ChannelUnchanged(Section):
    """``NoNormalization``: intensities as they are."""

    kind: Literal["none"]


class ChannelRescaled(Section):
    """``RescaleTo01Normalization``: the smallest value of the cropped scan becomes 0, the largest 1."""

    kind: Literal["rescale_0_1"]


class ChannelRGB(Section):
    """``RGBTo01Normalization``: values in 0..255 are divided by 255."""

    kind: Literal["rgb_0_1"]


ChannelIntensity = Annotated[
    ChannelCT | ChannelZScore | ChannelUnchanged | ChannelRescaled | ChannelRGB, Field(discriminator="kind")
]


class Configuration(Section):
    """One configuration of nnU-Net v2, such as ``3d_fullres``: how a scan is prepared, and its network.

    Axes are nnU-Net's: those of the stored array from the slowest to the fastest (slices, rows, columns),
    then permuted by ``transpose``. Field names of ``plans.json`` are in brackets.

    Attributes:
        name: Name of the configuration.
        transpose: The stored axis that becomes each axis of the network (``transpose_forward``).
        spacing_mm: Voxel size of the network's input (``spacing``); two numbers for a 2D network, whose
            slices keep their distance.
        intensity: Normalisation of each channel (``normalization_schemes``, ``use_mask_for_norm``).
        order: Order of the splines by which scans are resampled (``resampling_fn_data_kwargs.order``).
        order_z: The same along the axis that is resampled separately (``order_z``).
        logits_order: The same for the network's output (``resampling_fn_probabilities_kwargs.order``).
        logits_order_z: The same along the axis that is resampled separately.
        mirror_axes: Axes of the network along which windows may be mirrored
            (``inference_allowed_mirroring_axes`` of the checkpoint).
        labels: Names of the labels that the network knows, in the order of its output channels and without
            the background; None: all labels of the recipe.
        patch_size: Size of a window (``patch_size``); None: the recipe's ``patch.size``.
        network: The network; None: the recipe's.
    """

    name: Annotated[str, Field(min_length=1, max_length=64)] = "3d_fullres"
    transpose: tuple[Axis, Axis, Axis] = (0, 1, 2)
    spacing_mm: _Spacings
    intensity: Annotated[tuple[ChannelIntensity, ...], Field(min_length=1, max_length=64)]
    order: Literal[0, 1, 3] = 3
    order_z: Literal[0, 1, 3] = 0
    logits_order: Literal[0, 1] = 1
    logits_order_z: Literal[0, 1] = 0
    mirror_axes: Annotated[tuple[Axis, ...], Field(max_length=3)] = ()
    labels: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    patch_size: _Sides | None = None
    network: Network | None = None

    @model_validator(mode="after")
    def _axes(self) -> Configuration:
        dims = len(self.spacing_mm)
        if sorted(self.transpose) != [0, 1, 2]:
            raise ValueError(f"transpose {list(self.transpose)} must contain 0, 1 and 2")
        if self.patch_size is not None and len(self.patch_size) != dims:
            raise ValueError(f"patch_size {list(self.patch_size)}: give {dims} numbers, as in spacing_mm")
        if len(set(self.mirror_axes)) < len(self.mirror_axes) or max(self.mirror_axes, default=0) >= dims:
            raise ValueError(f"mirror_axes {list(self.mirror_axes)}: give different axes below {dims}")
        return self


class NnunetPipeline(Section):
    """Preparation, sliding window and restoring of nnU-Net v2 (Isensee et al. 2021, as of version 2.8).

    The scan is not reoriented. It is cropped to the box of its non-zero voxels, normalised, and then
    resampled with cubic splines; windows advance by ``step``, weighted with a Gaussian of 1/8 of the window;
    sums are kept in half precision, as nnU-Net keeps them; logits are resampled to the cropped scan, and the
    background is a class of its own.

    Attributes:
        kind: Name of this kind.
        configurations: The configurations. One model file holds the networks of all of them, for each fold.
        combine: What several configurations are for: ``mean`` averages their probabilities; ``cascade``
            gives the mask of each one to the next as further channels, and the last decides; ``parts`` puts
            the labels of all together, where a later one covers an earlier one.
        orientation: ``stored``: the array as it is stored (``SimpleITKIO``, ``NibabelIO``); ``RAS``: turned
            to the closest canonical axes first (``NibabelIOWithReorient``).
        step: Distance of neighbouring windows as a fraction of a window (``tile_step_size``).
        tta: ``mirror`` averages the logits of windows mirrored along all combinations of ``mirror_axes``;
            ``none`` is up to eight times faster.
    """

    kind: Literal["nnunet"] = "nnunet"
    configurations: Annotated[tuple[Configuration, ...], Field(min_length=1, max_length=32)]
    combine: Literal["mean", "cascade", "parts"] = "mean"
    orientation: Literal["stored", "RAS"] = "stored"
    step: Annotated[float, Field(gt=0, le=1)] = 0.5
    tta: Literal["none", "mirror"] = "mirror"

    @model_validator(mode="after")
    def _complete(self) -> NnunetPipeline:
        for number, each in enumerate(self.configurations):
            if number and (each.network is None or each.patch_size is None):
                raise ValueError(
                    f"configuration {each.name!r}: all but the first need network and patch_size"
                )
            if each.labels is not None and self.combine != "parts":
                raise ValueError(f"configuration {each.name!r}: labels are for combine 'parts'")
            if self.combine == "mean" and each.transpose != self.configurations[0].transpose:
                raise ValueError(
                    f"configuration {each.name!r} has transpose {list(each.transpose)}, but the first one "
                    f"{list(self.configurations[0].transpose)}: combine 'mean' needs the same"
                )
        return self


class LungmaskPipeline(Section):
    """Preparation and cleaning of lungmask (Hofmanninger et al. 2020, doi:10.1186/s41747-020-00173-2).

    Axial slices are cropped to the body, resized to 256 x 256, and segmented one by one; in the volume, small
    components join the neighbour that they touch most, and each label keeps its largest component, with
    holes filled.

    Attributes:
        kind: Name of this kind.
        clean: Whether the volume is cleaned (``volume_postprocessing``).
        fill_labels: Number of labels of a second network of the same kind, the ``fillmodel`` of lungmask's
            fused mode: where it finds lung and the first one none, voxels join the neighbouring label; where
            it finds none, labels are removed. None: there is only one network.
    """

    kind: Literal["lungmask"]
    clean: bool = True
    fill_labels: Annotated[int, Field(ge=1, le=32)] | None = None


class EnsembleMember(Section):
    """What one model of an ensemble does in its own way.

    Attributes:
        name: Name of its recipe.
        folds: Number of its networks, whose logits are averaged.
        labels: Names of the labels in the order of its networks' outputs.
        prepare: Its preprocessing.
        patch: Size of its networks' input.
        network: Its network.
        predict: Its sliding window; the threshold has no effect.
    """

    name: Annotated[str, Field(min_length=1, max_length=64)]
    folds: Annotated[int, Field(ge=1, le=100)] = 1
    labels: Annotated[tuple[str, ...], Field(min_length=1, max_length=1024)]
    prepare: Prepare
    patch: Patch
    network: Network
    predict: Predict = Predict()


class EnsemblePipeline(Section):
    """Models of different recipes for the same labels: the mean of their probabilities on the scan's grid.

    Labels, the rule that decides between them and postprocessing are those of the recipe.

    Attributes:
        kind: Name of this kind.
        members: The models. One model file holds the networks of all of them.
    """

    kind: Literal["ensemble"]
    members: Annotated[tuple[EnsembleMember, ...], Field(min_length=2, max_length=32)]


Pipeline = Annotated[
    NnunetPipeline | LungmaskPipeline | BundlePipeline | EnsemblePipeline, Field(discriminator="kind")
]
