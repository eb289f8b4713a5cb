"""Main properties of a scan on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg.images.intensity_stats import describe
from medseg.io import read_channels
from medseg.io.read_options import DEFAULT_OPTIONS, ReadOptions


def info(scan: str | Path, *, options: ReadOptions = DEFAULT_OPTIONS) -> dict[str, Any]:
    """Format, grid and intensity range of a scan on disk; never patient data.

    Args:
        scan: An image file, a DICOM folder, or a file of a DICOM series.
        options: Choices for ambiguous files.

    Raises:
        InputRefused: as :func:`medseg.read`.

    Example:
        >>> medseg.info("chest.nii.gz")["orientation"]
        'LPS'
    """
    return describe(*read_channels([scan], choices=options))
