"""Checks of a scan before it is segmented."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medseg.errors import InputRefused
from medseg.images.volume import Volume


def check_finite(volumes: Sequence[Volume]) -> None:
    """Refuses scans with NaN or infinite voxels.

    Files are checked when they are read; a volume made in memory is not. One such voxel would change the
    padding, and with it the mask of the whole scan.

    Raises:
        InputRefused: some voxels are not finite (``not-finite``).
    """
    for volume in volumes:
        if not np.issubdtype(volume.array.dtype, np.floating):
            continue
        count = sum(int(np.count_nonzero(~np.isfinite(plane))) for plane in volume.array)
        if count:
            raise InputRefused(
                f"{count} of {volume.array.size} voxels are NaN or infinite",
                where=volume.source.path,
                remedy="replace them before segmenting, for example by numpy.nan_to_num(array, nan=-1000)",
                reason="not-finite",
            )
