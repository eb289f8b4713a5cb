"""The fingerprint of a data set: the few numbers that a plan follows from."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from medseg.recipe.section import Finite, NotNegative, Positive

Counts = Annotated[int, Field(ge=0)]
Side = Annotated[int, Field(ge=1)]


Modality = Literal["CT", "MR", "picture"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Intensities(_Value):
    """Intensities of one channel over the foreground voxels of all cases.

    Attributes:
        name: Name of the channel, such as ``CT`` or ``T1``.
        mean: Mean.
        sd: Standard deviation.
        median: Median.
        minimum: Smallest value.
        maximum: Largest value.
        low: Percentile 0.5.
        high: Percentile 99.5.
    """

    name: str
    mean: Finite
    sd: NotNegative
    median: Finite
    minimum: Finite
    maximum: Finite
    low: Finite
    high: Finite


class LabelSize(_Value):
    """What one integer of the label maps covers.

    Attributes:
        value: The integer, from 1.
        name: Name of the structure; empty if unknown.
        cases: Number of cases that have it.
        median_ml: Median of its volume over these cases.
        smallest_ml: Volume of the smallest of its connected parts of two voxels or more; 0 if it has none.
        parts: Number of such parts in all cases.
        thin_mm: Sides of the boxes around these parts along R-L, A-P and S-I: for each axis the 10th
            percentile over the parts; 0 if there is none.
    """

    value: Annotated[int, Field(ge=1, le=65535)]
    name: str = ""
    cases: Counts
    median_ml: NotNegative
    smallest_ml: NotNegative
    parts: Counts
    thin_mm: tuple[NotNegative, NotNegative, NotNegative]


class CaseSize(_Value):
    """The grid of one case.

    Attributes:
        spacing_mm: Voxel size along R-L, A-P and S-I.
        stored: Number of voxels along the same axes.
        shape: The same after cropping to the box of voxels that are not zero.
    """

    spacing_mm: tuple[Positive, Positive, Positive]
    stored: tuple[Side, Side, Side]
    shape: tuple[Side, Side, Side]


class Fingerprint(_Value):
    """The few numbers about a data set that a plan is based on.

    Axes are R-L, A-P and S-I throughout, whatever the order in the files. ``model_dump_json`` and
    ``model_validate_json`` write and read it.

    Attributes:
        name: Name of the data set.
        modality: ``CT``, ``MR`` or ``picture``.
        cases: Grid of each case with a label.
        channels: Foreground intensities of each channel.
        labels: Integers of the label maps, ascending.

    Raises:
        ValueError: a number is out of its range, or a cropped case is larger than the stored one.

    Example:
        >>> found = medseg.plan("cases.csv", medseg.PlanOptions(measure=False)).fingerprint
        >>> medseg.Fingerprint.model_validate_json(found.model_dump_json()) == found
        True
    """

    name: str
    modality: Modality
    cases: Annotated[tuple[CaseSize, ...], Field(min_length=1)]
    channels: Annotated[tuple[Intensities, ...], Field(min_length=1)]
    labels: tuple[LabelSize, ...] = ()

    @model_validator(mode="after")
    def _cropped(self) -> Fingerprint:
        for case in self.cases:
            if any(n > stored for n, stored in zip(case.shape, case.stored, strict=True)):
                raise ValueError(
                    f"a cropped case of {list(case.shape)} voxels has {list(case.stored)} voxels"
                )
        return self

    @property
    def kept_by_crop(self) -> float:
        """Median over cases of the share of voxels that cropping keeps."""
        shares = [np.prod(case.shape) / np.prod(case.stored) for case in self.cases]
        return float(np.median(shares))

    @property
    def median_spacing_mm(self) -> tuple[float, float, float]:
        """Median voxel size along each axis."""
        x, y, z = np.median([case.spacing_mm for case in self.cases], axis=0).tolist()
        return x, y, z

    @property
    def median_shape(self) -> tuple[float, float, float]:
        """Median number of voxels along each axis, after cropping."""
        x, y, z = np.median([case.shape for case in self.cases], axis=0).tolist()
        return x, y, z
