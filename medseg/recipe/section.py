"""The base class of the sections of a recipe, and the types of their fields."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]

# Bounds that no sensible recipe reaches: an untrusted recipe must not be able to request more
# memory than any machine has.
Size = Annotated[int, Field(ge=1, le=4096)]
SpacingMm = Annotated[float, Field(ge=0.01, le=100)]  # from the finest micro-CT to a scan of a few voxels


class Section(BaseModel):
    """A section of a recipe: immutable; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")
