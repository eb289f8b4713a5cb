"""The user's choices for ambiguous files; medseg never guesses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Trust: TypeAlias = Literal["sform", "qform", "pixdim"]


@dataclass(frozen=True)
class ReadOptions:
    """How to read a file that leaves a question open. Each choice is None unless the user makes it.

    Attributes:
        series: DICOM: the SeriesInstanceUID to read, a unique ending of it, or its number in
            :func:`medseg.list_series`.
        volume: Which of several volumes (phases, echoes, time points, 4th dimension) to
            read, counted from 1 in the order in which the refusal lists them.
        trust: NIfTI: the form to use if sform and qform disagree; ``pixdim`` takes the voxel
            sizes along R, A and S if neither is set.
        nonfinite: The replacement for NaN and infinite voxels, in the scan's unit.
        pixel_mm: Pictures: the size of a pixel in mm, or ``file`` for that in the resolution tags of a TIFF;
            None: 1, which stands for one pixel.

    Example:
        >>> options = medseg.ReadOptions(trust="sform")
        >>> medseg.convert("chest.nii.gz", "trusted.nii.gz", options=options).grid.axcodes
        'LPS'
    """

    series: str | int | None = None
    volume: int | None = None
    trust: Trust | None = None
    nonfinite: float | None = None
    pixel_mm: float | Literal["file"] | None = None


DEFAULT_OPTIONS = ReadOptions()
