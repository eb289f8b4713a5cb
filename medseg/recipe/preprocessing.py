"""The recipe's sections ``prepare`` and ``patch``: from the scan to what the network sees."""

from __future__ import annotations

from math import prod
from typing import Annotated, Literal

from pydantic import Field, model_validator

from medseg.recipe.section import Finite, NotNegative, Section, Size, SpacingMm


class Window(Section):
    """CT: ``low..high`` HU becomes 0..1, values outside are clipped."""

    kind: Literal["window"] = "window"
    low_hu: Finite
    high_hu: Finite

    @model_validator(mode="after")
    def _ordered(self) -> Window:
        if self.low_hu >= self.high_hu:
            raise ValueError(f"low_hu {self.low_hu:g} must lie below high_hu {self.high_hu:g}")
        return self


class Percentile(Section):
    """MR: the ``low`` and ``high`` percentiles of the cropped scan become 0 and 1, clipped."""

    kind: Literal["percentile"] = "percentile"
    low: Annotated[float, Field(ge=0, lt=100)] = 0.5
    high: Annotated[float, Field(gt=0, le=100)] = 99.5

    @model_validator(mode="after")
    def _ordered(self) -> Percentile:
        if self.low >= self.high:
            raise ValueError(f"percentile low {self.low:g} must lie below high {self.high:g}")
        return self


class ZScore(Section):
    """MR: mean 0 and standard deviation 1 over the cropped scan (over its non-zero voxels)."""

    kind: Literal["zscore"] = "zscore"
    nonzero: bool = True


Intensity = Annotated[Window | Percentile | ZScore, Field(discriminator="kind")]


class Crop(Section):
    """Foreground crop: the box of voxels above ``above`` (in source units, HU for CT), widened."""

    above: Finite
    margin_mm: NotNegative = 10.0


class Prepare(Section):
    """From the scan to the network's input: orient, resample, crop, normalise; in this order.

    Attributes:
        orientation: Axis codes the arrays are brought to.
        spacing_mm: Voxel size of the prepared grid along its three axes.
        crop: Foreground crop, or None to keep the whole scan.
        intensity: How intensities are normalised.
    """

    orientation: Literal["RAS"] = "RAS"
    spacing_mm: tuple[SpacingMm, SpacingMm, SpacingMm]
    crop: Crop | None = None
    intensity: Intensity


_PATCH_VOXELS = 512**3


class Patch(Section):
    """What the network sees at once.

    Attributes:
        size: Two numbers for 2D slices (X, Y) across the third axis, three for 3D patches.
        neighbours: 2D only: slices on *each* side given as further input channels.
    """

    size: tuple[Size, Size] | tuple[Size, Size, Size]
    neighbours: Annotated[int, Field(ge=0, le=8)] = 0

    @model_validator(mode="after")
    def _neighbours_are_2d(self) -> Patch:
        if self.neighbours and len(self.size) == 3:
            raise ValueError("neighbours are for 2D slices; a 3D patch already holds them")
        if prod(self.size) > _PATCH_VOXELS:
            raise ValueError(f"a patch of {prod(self.size)} voxels; at most {_PATCH_VOXELS} are possible")
        return self
