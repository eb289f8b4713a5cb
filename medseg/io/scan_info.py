"""Main properties of a scan on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg.images.intensity_stats import describe
from medseg.io import read_channels
from medseg.io.itk import slicer_segments
from medseg.io.path_checks import existing
from medseg.io.read_options import DEFAULT_OPTIONS, ReadOptions
from medseg.io.scans_and_masks import names_segments


def info(scan: str | Path, *, options: ReadOptions = DEFAULT_OPTIONS) -> dict[str, Any]:
    """Format, grid and intensity range of a scan on disk; never patient data.

    For a segmentation of 3D Slicer (.seg.nrrd) there are also its numbers of ``layers`` and ``segments``.

    Args:
        scan: An image file, a DICOM folder, or a file of a DICOM series.
        options: Choices for ambiguous files.

    Raises:
        InputRefused: as :func:`medseg.read`.

    Example:
        >>> medseg.info("chest.nii.gz")["orientation"]
        'LPS'
    """
    path = existing(scan)
    if options.volume is None and names_segments(path):
        return slicer_segments.describe(path)
    return describe(*read_channels([scan], choices=options))
