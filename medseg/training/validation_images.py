"""A small picture of a prepared scan with its truth and what was found, for following a training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medseg.images.palette import GREEN, VERMILLION, rgb
from medseg.images.volume import Voxels
from medseg.visualization.planes import (
    Binary,
    coloured,
    fullest,
    grey_levels,
    inner_border,
    square_pixels,
    upright,
)

# The truth, what was found, and where both run.
TRUTH, FOUND, BOTH = rgb(GREEN), rgb(VERMILLION), (255, 255, 255)
_LEAST_PIXELS = 256


def snapshot(
    image: npt.NDArray[np.float32], truth: Binary, found: Binary, spacing_mm: Sequence[float]
) -> npt.NDArray[np.uint8]:
    """uint8 (H, W, 3): the axial slice with most truth, outlines of truth (green) and found (orange).

    Radiological view: the patient's right is on the left of the picture, anterior on top. Pixels
    are square. Without any truth it is the slice with most found, or else the middle one.

    Args:
        image: float32 (X, Y, Z), prepared: RAS axes. Its 1st and 99th percentile are black and white.
        truth: (L, X, Y, Z).
        found: (L, X, Y, Z).
        spacing_mm: Voxel size along the image's axes.
    """
    at = _slice(truth, found)
    low, high = np.percentile(image, (1, 99))
    # Pixels of the finer axis' size, and at least 256 along the longer side.
    longest_mm = max(n * mm for n, mm in zip(image.shape[:2], spacing_mm[:2], strict=True))
    pixel_mm = min(*spacing_mm[:2], longest_mm / _LEAST_PIXELS)

    def axial(array: Voxels) -> Voxels:
        return upright(square_pixels(array[..., at], spacing_mm[:2], pixel_mm))

    picture = coloured(grey_levels(axial(image), (float(low), float(max(high, low + 1e-6)))))
    true, seen = (
        np.logical_or.reduce([inner_border(axial(channel)) for channel in mask]) for mask in (truth, found)
    )
    for where, colour in ((true & ~seen, TRUTH), (seen & ~true, FOUND), (true & seen, BOTH)):
        picture[where] = colour
    return picture


def _slice(truth: Binary, found: Binary) -> int:
    shown = truth if truth.any() else found
    anything: Binary = np.logical_or.reduce(shown, axis=0)
    return fullest(anything, axis=2)
