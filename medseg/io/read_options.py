"""What the user decides where a file leaves it open. Nothing of it is ever guessed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Trust: TypeAlias = Literal["sform", "qform", "pixdim"]


@dataclass(frozen=True)
class ReadOptions:
    """The answers to questions that only the user can answer; None where none was given.

    Attributes:
        series: DICOM: the SeriesInstanceUID to read, or an ending of it that only one has.
        volume: Which of several volumes (phases, echoes, time points, 4th dimension) to
            read, counted from 1 in the order in which the refusal lists them.
        trust: NIfTI: the form to believe where sform and qform disagree; ``pixdim`` takes
            the voxel sizes along R, A and S where neither is set.
        nonfinite: What NaN and infinite voxels become, in the scan's unit.
    """

    series: str | None = None
    volume: int | None = None
    trust: Trust | None = None
    nonfinite: float | None = None


DEFAULT_OPTIONS = ReadOptions()
