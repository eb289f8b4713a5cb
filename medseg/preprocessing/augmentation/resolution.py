"""How sharp things are: blur and low resolution. Each is a matrix along every axis."""

from __future__ import annotations

import numpy as np
import torch

from medseg.preprocessing.augmentation.interpolation import Matrix, along
from medseg.preprocessing.augmentation.transform import ChannelTransform, by_amount

_TRUNCATE = 4.0  # standard deviations, as scipy.ndimage.gaussian_filter


class Blur(ChannelTransform[float]):
    """A Gaussian blur of a standard deviation of 0..most voxels, the same along each axis.

    Mirrored at the border (half-sample symmetric, scipy's ``reflect``), which keeps the mean.
    """

    def draw(self, dims: int) -> float:
        """The standard deviation, in voxels."""
        return self.up_to(self.most)

    def change(self, values: torch.Tensor, drawn: float) -> torch.Tensor:
        """The blurred patch."""
        for axis in range(1, values.ndim):
            values = along(values, torch.from_numpy(gaussian(values.shape[axis], drawn)).to(values), axis)
        return values


class LowResolution(ChannelTransform[float]):
    """As if scanned with fewer voxels: a share of 0..most of each axis is left out and filled in again.

    Nearest voxels are kept and linear interpolation goes back, as in nnU-Net's and MONAI's
    simulation: aliasing is part of it. All axes lose the same share, and at least a voxel of each stays.
    """

    def draw(self, dims: int) -> float:
        """The share of resolution that is lost."""
        return self.up_to(self.most)

    def change(self, values: torch.Tensor, drawn: float) -> torch.Tensor:
        """The patch at lower resolution, on its own voxels."""
        for axis in range(1, values.ndim):
            n = values.shape[axis]
            values = along(
                values, torch.from_numpy(coarse(n, max(1, round(n * (1 - drawn))))).to(values), axis
            )
        return values


def gaussian(n: int, sd: float) -> Matrix:
    """(n, n) Gaussian blur of a line, mirrored at its ends; rows and columns add up to 1.

    Args:
        n: Voxels of the line.
        sd: Standard deviation in voxels; 0 gives the identity.
    """
    reach = int(_TRUNCATE * sd + 0.5)
    steps = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (steps / max(sd, 1e-6)) ** 2)
    at = (np.arange(n)[:, None] + steps) % (2 * n)
    at = np.minimum(at, 2 * n - 1 - at)
    matrix = np.zeros((n, n))
    np.add.at(matrix, (np.arange(n)[:, None], at), weights / weights.sum())
    return matrix


def coarse(n: int, kept: int) -> Matrix:
    """(n, n): ``kept`` evenly spaced voxels of a line, and linear interpolation between them.

    Both as torch's ``interpolate`` does it (``nearest-exact``, then ``linear`` without aligned corners).
    """
    at = np.clip((np.arange(n) + 0.5) * kept / n - 0.5, 0, kept - 1)
    low = np.minimum(at.astype(int), max(kept - 2, 0))
    back = np.zeros((n, kept))
    back[np.arange(n), low] = 1 - (at - low)
    back[np.arange(n), np.minimum(low + 1, kept - 1)] += at - low
    taken = ((np.arange(kept) + 0.5) * n / kept).astype(int)
    matrix = np.zeros((n, n))
    matrix[:, taken] = back
    return matrix


ROWS = {
    "blur": by_amount(Blur, "blur_voxels"),
    "low_resolution": by_amount(LowResolution, "low_resolution"),
}
"""Rows of the table, in the order in which they are applied."""
