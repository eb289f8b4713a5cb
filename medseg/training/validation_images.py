"""Pictures of validation scans with their truth and prediction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medseg.images.palette import GREEN, VERMILLION, rgb
from medseg.images.volume import Voxels
from medseg.preprocessing.label_classes import LabelClasses
from medseg.visualization.planes import (
    Binary,
    coloured,
    fullest,
    grey_levels,
    inner_border,
    square_pixels,
    upright,
)

# Outlines of the truth, of the prediction, and of both.
TRUTH, PREDICTION, BOTH = rgb(GREEN), rgb(VERMILLION), (255, 255, 255)
_MIN_PIXELS = 256


def snapshot(
    image: npt.NDArray[np.float32], truth: LabelClasses, prediction: Binary, spacing_mm: Sequence[float]
) -> npt.NDArray[np.uint8]:
    """A picture of the axial slice with the largest area of truth: uint8 (H, W, 3).

    The truth is outlined in green, the prediction in orange, and both in white where they coincide. The
    view is radiological: the patient's right is on the left of the picture, anterior on top. Pixels are
    square. Without any truth it is the slice with the largest prediction, or else the middle one.

    Args:
        image: float32 (X, Y, Z), prepared, in RAS axes. Its 1st and 99th percentile are black and white.
        truth: The labels.
        prediction: bool (L, X, Y, Z).
        spacing_mm: Voxel size along the image's axes.
    """
    at = _slice(truth, prediction)
    outlined = LabelClasses(truth.classes[..., at : at + 1], truth.table).channels() == 1
    low, high = np.percentile(image, (1, 99))
    # Pixels of the finer axis' size, or smaller so that the longer side has at least 256.
    longest_mm = max(n * mm for n, mm in zip(image.shape[:2], spacing_mm[:2], strict=True))
    pixel_mm = min(*spacing_mm[:2], longest_mm / _MIN_PIXELS)

    def axial(array: Voxels) -> Voxels:
        return upright(square_pixels(array, spacing_mm[:2], pixel_mm))

    picture = coloured(grey_levels(axial(image[..., at]), (float(low), float(max(high, low + 1e-6)))))
    true, predicted = (
        np.logical_or.reduce([inner_border(axial(channel)) for channel in mask])
        for mask in (outlined[..., 0], prediction[..., at])
    )
    for where, colour in (
        (true & ~predicted, TRUTH),
        (predicted & ~true, PREDICTION),
        (true & predicted, BOTH),
    ):
        picture[where] = colour
    return picture


def _slice(truth: LabelClasses, prediction: Binary) -> int:
    anything: Binary = (truth.table == 1).any(axis=1)[truth.classes]
    if not anything.any():
        anything = np.logical_or.reduce(prediction, axis=0)
    return fullest(anything, axis=2)
