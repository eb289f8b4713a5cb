"""Augmentation of resolution: blur and subsampling, each as a matrix along every axis."""

from __future__ import annotations

import numpy as np
import torch

from medseg.preprocessing.augmentation.interpolation import Matrix, along
from medseg.preprocessing.augmentation.transform import ChannelTransform, by_amount

_TRUNCATE = 4.0  # standard deviations, as scipy.ndimage.gaussian_filter


class Blur(ChannelTransform[float]):
    """Gaussian blur with a standard deviation of 0..most voxels, the same along each axis.

    The patch is mirrored at its border (half-sample symmetric, scipy's ``reflect``), which keeps the mean.
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
    """A lower resolution: a fraction of 0..most of the voxels of each axis is dropped and interpolated.

    Voxels are chosen by nearest neighbour and interpolated linearly, as in nnU-Net's and MONAI's
    simulation, and therefore with aliasing. All axes lose the same fraction, and keep at least one voxel.
    """

    def draw(self, dims: int) -> float:
        """The fraction of resolution that is lost."""
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
    """Matrix (n, n) of a Gaussian blur of a line, mirrored at its ends; rows and columns sum to 1.

    Args:
        n: Number of voxels of the line.
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
    """Matrix (n, n) of linear interpolation between ``kept`` evenly spaced voxels of a line.

    As two calls of torch's ``interpolate`` (``nearest-exact``, then ``linear`` without aligned corners).
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
"""Rows of the table, in the order of application."""
