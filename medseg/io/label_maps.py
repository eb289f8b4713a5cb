"""Whether an image is a label map, by the values of its voxels."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from medseg.errors import MedsegError
from medseg.images.volume import PICTURE, Volume, Voxels
from medseg.io.scans_and_masks import read
from medseg.system.notices import notify

# A label map of a whole body has about 120 structures; a scan of 8 bits usually has more values.
_MOST_VALUES = 150


def has_label_values(array: Voxels) -> bool:
    """Whether an array has few values, all whole numbers from 0 on: 0 and at least one other."""
    # Scans are told by a few planes, without sorting all voxels.
    some = array.ravel(order="K")[:: max(1, array.size >> 16)]
    if len(np.unique(some)) > _MOST_VALUES:
        return False
    values = np.unique(array)
    whole = np.array_equal(values, np.round(values))
    return bool(whole and values[0] == 0 and 1 < len(values) <= _MOST_VALUES)


def notify_of_labels(scan: Volume) -> None:
    """Sends the notice ``scan-labels`` if a scan that was read from a file has the values of a label map."""
    if scan.source.path is None or scan.source.format == PICTURE or not has_label_values(scan.array):
        return
    notify(
        "scan-labels",
        f"the scan has only whole values from 0 to {int(scan.array.max())}, as a mask has",
        path=scan.source.path,
        remedy="if it is a mask, give its scan first and the mask after it",
    )


def is_label_map(path: Path) -> bool:
    """Whether the image at ``path`` can be read and has the values of a label map."""
    try:
        status = path.stat()
    except OSError:
        return False
    return _is_label_map(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=256)
def _is_label_map(path: Path, changed: int, size: int) -> bool:
    try:
        return has_label_values(read(path).array)
    except MedsegError:
        return False
