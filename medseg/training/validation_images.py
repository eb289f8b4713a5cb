"""A small picture of a prepared scan with its truth and what was found, for following a training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medseg.images.palette import GREEN, VERMILLION, rgb

Binary = npt.NDArray[np.bool_]

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
    plane = image[..., at]
    low, high = np.percentile(image, (1, 99))
    grey = np.clip((plane - low) / max(high - low, 1e-6), 0, 1)
    x_mm, y_mm = spacing_mm[:2]
    # Pixels of the finer axis' size, and at least 256 along the longer side.
    size = np.array([plane.shape[0] * x_mm, plane.shape[1] * y_mm])
    pixel_mm = min(x_mm, y_mm, size.max() / _LEAST_PIXELS)
    rows, columns = (_nearest(n, mm, pixel_mm) for n, mm in ((plane.shape[1], y_mm), (plane.shape[0], x_mm)))
    pick = np.ix_(columns[::-1], rows[::-1])  # R and A first: left of the picture, and its top
    picture = np.repeat((grey[pick].T * 255).astype(np.uint8)[..., None], 3, axis=2)
    true = _outline([channel[..., at][pick].T for channel in truth])
    seen = _outline([channel[..., at][pick].T for channel in found])
    for where, colour in ((true & ~seen, TRUTH), (seen & ~true, FOUND), (true & seen, BOTH)):
        picture[where] = colour
    return picture


def _slice(truth: Binary, found: Binary) -> int:
    for mask in (truth, found):
        area = mask.any(0).sum((0, 1))
        if area.any():
            return int(area.argmax())
    return int(truth.shape[-1]) // 2


def _nearest(n: int, spacing_mm: float, pixel_mm: float) -> npt.NDArray[np.int64]:
    """For each pixel along an axis the voxel under its centre."""
    pixels = max(1, round(n * spacing_mm / pixel_mm))
    at = ((np.arange(pixels) + 0.5) * pixel_mm / spacing_mm).astype(np.int64)
    return np.minimum(at, n - 1)


def _outline(masks: list[Binary]) -> Binary:
    """The inner border of each mask, together."""
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in masks]
    together: Binary = np.logical_or.reduce(edges)
    return together
