"""The recipe's sections ``prepare`` and ``patch``: from the scan to the network's input."""

from __future__ import annotations

from math import prod
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from medseg.recipe.section import Finite, NotNegative, Positive, Section, Size, SpacingMm


class Window(Section):
    """CT window: values outside of ``low_hu..high_hu`` are clipped, and the window is mapped to 0..1.

    With ``mean_hu`` and ``sd_hu`` the clipped values become z-scores, (v - mean_hu) / sd_hu, as nnU-Net
    normalises CT: with percentiles 0.5 and 99.5, mean and standard deviation of the foreground of all cases.
    """

    kind: Literal["window"] = "window"
    low_hu: Finite
    high_hu: Finite
    mean_hu: Finite | None = None
    sd_hu: Positive | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Window:
        if self.low_hu >= self.high_hu:
            raise ValueError(f"low_hu {self.low_hu:g} must be below high_hu {self.high_hu:g}")
        if (self.mean_hu is None) != (self.sd_hu is None):
            raise ValueError("give both mean_hu and sd_hu, or neither")
        return self

    @model_serializer(mode="wrap")
    def _without_absent_mean(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Recipes written before these fields existed keep their YAML and their digest.
        data: dict[str, Any] = handler(self)
        if self.mean_hu is None:
            data.pop("mean_hu", None)
            data.pop("sd_hu", None)
        return data


class ValueRange(Section):
    """Pictures: the values ``low..high`` are mapped to 0..1 and values outside are clipped.

    The default is that of 8 bits.
    """

    kind: Literal["range"] = "range"
    low: Finite = 0.0
    high: Finite = 255.0

    @model_validator(mode="after")
    def _ordered(self) -> ValueRange:
        if self.low >= self.high:
            raise ValueError(f"range low {self.low:g} must be below high {self.high:g}")
        return self


class Percentile(Section):
    """MR: the ``low`` and ``high`` percentiles of the cropped scan are mapped to 0 and 1, with clipping."""

    kind: Literal["percentile"] = "percentile"
    low: Annotated[float, Field(ge=0, lt=100)] = 0.5
    high: Annotated[float, Field(gt=0, le=100)] = 99.5

    @model_validator(mode="after")
    def _ordered(self) -> Percentile:
        if self.low >= self.high:
            raise ValueError(f"percentile low {self.low:g} must be below high {self.high:g}")
        return self


class ZScore(Section):
    """MR: mean 0 and standard deviation 1 over the cropped scan (by default over its non-zero voxels)."""

    kind: Literal["zscore"] = "zscore"
    nonzero: bool = True


Intensity = Annotated[Window | ValueRange | Percentile | ZScore, Field(discriminator="kind")]


class Crop(Section):
    """Foreground crop: the box around voxels above ``above`` (HU for CT), widened by ``margin_mm``."""

    above: Finite
    margin_mm: NotNegative = 10.0


class Prepare(Section):
    """Preprocessing of a scan: orient, resample, crop and normalise, in this order.

    Attributes:
        orientation: Axis codes of the prepared arrays.
        spacing_mm: Voxel size of the prepared grid along its three axes.
        crop: Foreground crop; None keeps the whole scan.
        intensity: Normalisation of intensities.
    """

    orientation: Literal["RAS"] = "RAS"
    spacing_mm: tuple[SpacingMm, SpacingMm, SpacingMm]
    crop: Crop | None = None
    intensity: Intensity


def is_standardised(intensity: Intensity) -> bool:
    """Whether intensities are z-scores rather than within 0..1."""
    return isinstance(intensity, ZScore) or (isinstance(intensity, Window) and intensity.sd_hu is not None)


_PATCH_VOXELS = 512**3


class Patch(Section):
    """Size of the network's input.

    Attributes:
        size: Two numbers for axial 2D slices (X, Y), three for 3D patches.
        neighbours: 2D only: number of neighbouring slices on *each* side, given as further input channels.
    """

    size: tuple[Size, Size] | tuple[Size, Size, Size]
    neighbours: Annotated[int, Field(ge=0, le=8)] = 0

    @model_validator(mode="after")
    def _neighbours_are_2d(self) -> Patch:
        if self.neighbours and len(self.size) == 3:
            raise ValueError("neighbours are for 2D slices; a 3D patch already contains its neighbours")
        if prod(self.size) > _PATCH_VOXELS:
            raise ValueError(f"patch.size has {prod(self.size)} voxels: use at most {_PATCH_VOXELS}")
        return self
