"""What the sections of a recipe are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]

# Bounds no sensible recipe meets: a recipe in a model file or from elsewhere must not be able to
# ask for more memory than any machine has before anything else can refuse it.
Size = Annotated[int, Field(ge=1, le=4096)]
SpacingMm = Annotated[float, Field(ge=0.01, le=100)]  # the finest micro-CT; a scan in a few voxels


class Section(BaseModel):
    """A section of the recipe: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
