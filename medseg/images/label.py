"""A label: the name of a structure and the integers that stand for it in a label map."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

LabelValue = Annotated[int, Field(ge=1, le=65535)]

TIE = 1e-5
"""Shares of a voxel that differ by less are equal: interpolation in float32 rounds them."""

HALF = 0.5 - TIE
"""The least share of a voxel that makes it a label's: one half, whatever the rounding of float32 sums.

Labels cut at the middle of voxels have shares of exactly one half, which sums in another order round to
either side.
"""


class Label(BaseModel):
    """One structure to segment.

    A label map holds one integer per voxel, yet structures may lie inside one another (a
    lesion inside a lung). So a label names *every* integer that belongs to it; the first one
    is written to voxels where this label is the topmost:

    >>> lung = Label(name="lung", values=(1, 2))
    >>> lesion = Label(name="lesion", values=(2,))

    Here voxels with 1 are healthy lung, voxels with 2 are lesion *and* lung. Labels are
    painted in their order, so a label comes after the ones it lies inside. This is the
    region scheme of nnU-Net (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z).

    Attributes:
        name: Name of the structure in tables and statistics.
        values: The integers (1..65535) that belong to it in a label map. 0 is background.
        side: ``left`` or ``right`` (of the patient) if the label has a side. A flip across the
            midline in training swaps it with its partner, and is refused if it has none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1)]
    values: Annotated[tuple[LabelValue, ...], Field(min_length=1)]
    side: Literal["left", "right"] | None = None

    @property
    def value(self) -> int:
        """The integer written to a mask for this label."""
        return self.values[0]
