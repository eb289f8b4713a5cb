"""Weights of the voxels in narrow gaps between structures, for the loss ``border_bce``."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

# Number of components per label; each costs a distance transform of its surroundings.
_MAX_CELLS = 32
# Distance in sigmas beyond which a cell is ignored: exp(-5^2 / 2) is 4e-6.
_REACH = 5


def border_weights(
    truth: npt.NDArray[np.float32], *, border_weight: float, sigma_voxels: float
) -> npt.NDArray[np.float32]:
    """The weight w0 exp(-(d1 + d2)^2 / (2 sigma^2)) of each voxel (Ronneberger et al. 2015, equation 2).

    d1 and d2 are the distances to the nearest and second nearest cell, in voxels of the patch. Cells are
    the face-connected components of the label map in which later labels cover earlier ones, limited to
    the 32 largest of each label; a cell more than 5 sigma away is ignored. With fewer than two cells in
    the patch the weight is 0 everywhere. The article's other term, w_c, is the recipe's ``class_weights``.

    Args:
        truth: float32 (L, *patch) of 1, 0 and -1 (unknown: no cell).
        border_weight: Factor w0.
        sigma_voxels: Width sigma, in voxels.

    Returns:
        float32 (*patch).
    """
    painted = np.zeros(truth.shape[1:], np.int32)
    for number, channel in enumerate(truth, start=1):
        painted[channel == 1] = number
    first, second = (np.full(painted.shape, np.inf, np.float32) for _ in range(2))
    reach = math.ceil(_REACH * sigma_voxels)
    for number in range(1, len(truth) + 1):
        cells, count = ndimage.label(painted == number)
        boxes = ndimage.find_objects(cells)
        sizes = np.bincount(cells.ravel(), minlength=count + 1)[1:]
        for cell in np.argsort(-sizes, kind="stable")[:_MAX_CELLS]:
            around = tuple(slice(max(0, side.start - reach), side.stop + reach) for side in boxes[cell])
            distance = ndimage.distance_transform_edt(cells[around] != cell + 1).astype(np.float32)
            second[around] = np.minimum(second[around], np.maximum(first[around], distance))
            first[around] = np.minimum(first[around], distance)
    border: npt.NDArray[np.float32] = border_weight * np.exp(-((first + second) ** 2) / (2 * sigma_voxels**2))
    return border.astype(np.float32)
