"""Augmentation with artefacts of MR scanners: bias fields, ghosts and motion.

Ghosts and motion are simplified: k-space is that of the patch, so that aliasing wraps around within the
patch instead of the scan's field of view.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from medseg.preprocessing.augmentation.interpolation import Matrix, along
from medseg.preprocessing.augmentation.transform import (
    Augmentation,
    ChannelTransform,
    RandomTransform,
    by_amount,
)
from medseg.recipe import Augment, Recipe

_DEGREE = 3
_GHOSTS = (4, 10)
_TINY = 1e-7


class Field(NamedTuple):
    """Polynomial coefficients, (4,) * axes of the patch, and the largest logarithm of the factor."""

    coefficients: Matrix
    strength: float


class BiasField(ChannelTransform[Field]):
    """Intensity above the patch's minimum times a smooth factor within 1 / (1 + most)..1 + most.

    The factor is exp of a random polynomial of degree 3 in the coordinates -1..1 (Van Leemput et al. 1999,
    doi:10.1109/42.811268; TorchIO's ``RandomBiasField``), scaled so that its extreme is the strength drawn.
    The minimum represents the absence of signal, because z-scores do not preserve zero.
    """

    def draw(self, dims: int) -> Field:
        """Polynomial and strength."""
        coefficients = self.R.uniform(-1, 1, size=(_DEGREE + 1,) * dims)
        order = np.indices(coefficients.shape).sum(0)
        coefficients[(order == 0) | (order > _DEGREE)] = 0
        return Field(coefficients, self.up_to(float(np.log1p(self.most))))

    def change(self, values: torch.Tensor, drawn: Field) -> torch.Tensor:
        """The patch with the field, which is the same for all slices."""
        field = torch.from_numpy(drawn.coefficients).to(values)
        for axis, n in enumerate(values.shape[1:]):
            powers = np.vander(np.linspace(-1, 1, n), _DEGREE + 1, increasing=True)
            field = along(field, torch.from_numpy(powers).to(values), axis)
        factor = field.mul_(drawn.strength / (field.abs().amax() + _TINY)).exp_()
        low = values.amin()
        return (values - low).mul_(factor).add_(low)


class Ghosts(NamedTuple):
    """Axis along which ghosts repeat, their number, and the fraction by which their lines are weakened."""

    axis: int
    number: int
    share: float


class Ghosting(ChannelTransform[Ghosts]):
    """Ghosts along an axis: every 4th to 10th line of k-space weakened by a fraction of 0..most.

    As in TorchIO's ``RandomGhosting`` (4 to 10 ghosts); the line of the mean is kept. The root mean square
    of the change is at most ``most`` times that of the patch (Parseval).
    """

    def draw(self, dims: int) -> Ghosts:
        """Axis, number of ghosts and fraction."""
        number = int(self.R.randint(_GHOSTS[0], _GHOSTS[1] + 1))
        return Ghosts(int(self.R.randint(dims)), number, self.up_to(self.most))

    def change(self, values: torch.Tensor, drawn: Ghosts) -> torch.Tensor:
        """The patch with its ghosts."""
        n = values.shape[drawn.axis + 1]
        lines = np.ones(n // 2 + 1, complex)
        step = min(drawn.number, max(n // 2, 1))  # the number of ghosts is the distance between their lines
        lines[step::step] -= drawn.share
        return _filtered(values, lines, drawn.axis)


class Moved(NamedTuple):
    """Axis of the patch, fraction of lines acquired before the motion, and shift in voxels."""

    axis: int
    before: float
    shift: float


class Motion(ChannelTransform[Moved]):
    """Motion of the patient by up to ``most`` along an axis, after the inner lines of k-space were acquired.

    The inner 20 to 80 % of the lines, which carry the contrast, are those of the first position, where the
    label stays; the outer lines get the phase of the second position. A simplification of TorchIO's
    ``RandomMotion`` to a shift along one axis, without rotation.

    Args:
        most: Largest shift in mm.
        probability: Probability of motion in each scan channel.
        spacing_mm: Voxel size along each axis of the patch.
        channels: Number of scan channels of the image.
    """

    def __init__(
        self, most: float, probability: float, spacing_mm: tuple[float, ...], *, channels: int = 1
    ) -> None:
        super().__init__(most, probability, channels=channels)
        self.spacing_mm = spacing_mm

    def draw(self, dims: int) -> Moved:
        """Axis, time, and shift in voxels."""
        axis = int(self.R.randint(dims))
        return Moved(axis, float(self.R.uniform(0.2, 0.8)), self.within(self.most) / self.spacing_mm[axis])

    def change(self, values: torch.Tensor, drawn: Moved) -> torch.Tensor:
        """The patch with its outer lines of k-space shifted."""
        n = values.shape[drawn.axis + 1]
        k = np.arange(n // 2 + 1)
        phase = np.exp(-2j * np.pi * k * drawn.shift / n)
        return _filtered(values, np.where(k > drawn.before * (n // 2), phase, 1), drawn.axis)


def _filtered(values: torch.Tensor, lines: npt.NDArray[np.complex128], axis: int) -> torch.Tensor:
    """``values`` with each line of k-space along an axis of the patch multiplied by ``lines``.

    The multiplication in k-space is a matrix along the axis, which is faster than two Fourier transforms.
    """
    n = values.shape[axis + 1]
    matrix = np.fft.irfft(np.fft.rfft(np.eye(n), axis=0) * lines[:, None], n=n, axis=0)
    return along(values, torch.from_numpy(matrix).to(values), axis + 1)


def _motion(recipe: Recipe) -> RandomTransform:
    rules, spacing_mm = recipe.augment, recipe.prepare.spacing_mm[: recipe.spatial_dims]
    assert isinstance(rules, Augment)
    return Motion(rules.motion_mm, rules.probability, spacing_mm, channels=len(recipe.channels))


ROWS = {
    "bias_field": by_amount(BiasField, "bias_field"),
    "ghosting": by_amount(Ghosting, "ghosting"),
    "motion": Augmentation(("motion_mm",), _motion),
}
"""Rows of the table, in the order of application."""
