"""What goes wrong in an MR scanner: bias fields, ghosts and motion.

Ghosts and motion are caricatures: k-space here is that of the patch, so that what wraps around
comes back within the patch and not within the scan's field of view.
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
from medseg.recipe import Recipe

_DEGREE = 3
_GHOSTS = (4, 10)
_TINY = 1e-7


class Field(NamedTuple):
    """Polynomial coefficients, (4,) * axes of the patch, and the largest logarithm of the factor."""

    coefficients: Matrix
    strength: float


class BiasField(ChannelTransform[Field]):
    """Intensity above the patch's lowest times a smooth factor within 1 / (1 + most)..1 + most.

    exp of a random polynomial of degree 3 in the coordinates -1..1 (Van Leemput et al. 1999,
    doi:10.1109/42.811268; TorchIO's ``RandomBiasField``), here scaled so that its extreme is what
    was drawn. The lowest voxel stands for no signal, because z-scores do not say where zero was.
    """

    def draw(self, dims: int) -> Field:
        """Polynomial and strength."""
        coefficients = self.R.uniform(-1, 1, size=(_DEGREE + 1,) * dims)
        order = np.indices(coefficients.shape).sum(0)
        coefficients[(order == 0) | (order > _DEGREE)] = 0
        return Field(coefficients, self.up_to(float(np.log1p(self.most))))

    def change(self, values: torch.Tensor, drawn: Field) -> torch.Tensor:
        """The patch under the field, which is the same for all of its slices."""
        field = torch.from_numpy(drawn.coefficients).to(values)
        for axis, n in enumerate(values.shape[1:]):
            powers = np.vander(np.linspace(-1, 1, n), _DEGREE + 1, increasing=True)
            field = along(field, torch.from_numpy(powers).to(values), axis)
        factor = field.mul_(drawn.strength / (field.abs().amax() + _TINY)).exp_()
        low = values.amin()
        return (values - low).mul_(factor).add_(low)


class Ghosts(NamedTuple):
    """Axis of the patch along which ghosts repeat, how many, and the share their lines lose."""

    axis: int
    number: int
    share: float


class Ghosting(ChannelTransform[Ghosts]):
    """Ghosts along an axis: every 4th to 10th line of k-space weakened by a share of 0..most.

    As TorchIO's ``RandomGhosting`` (4 to 10 ghosts); the line of the mean is kept. The change has at
    most ``most`` of the patch's root mean square (Parseval).
    """

    def draw(self, dims: int) -> Ghosts:
        """Axis, number of ghosts and share."""
        number = int(self.R.randint(_GHOSTS[0], _GHOSTS[1] + 1))
        return Ghosts(int(self.R.randint(dims)), number, self.up_to(self.most))

    def change(self, values: torch.Tensor, drawn: Ghosts) -> torch.Tensor:
        """The patch with its ghosts."""
        n = values.shape[drawn.axis + 1]
        lines = np.ones(n // 2 + 1, complex)
        step = min(drawn.number, max(n // 2, 1))  # the number of ghosts is the distance of their lines
        lines[step::step] -= drawn.share
        return _filtered(values, lines, drawn.axis)


class Moved(NamedTuple):
    """Axis of the patch, share of its lines acquired before the patient moved, and the shift in voxels."""

    axis: int
    before: float
    shift: float


class Motion(ChannelTransform[Moved]):
    """The patient moved by up to ``most`` along an axis, once the inner lines of k-space were there.

    The inner 20 to 80 % of the lines, and so what carries the contrast, are of the first position,
    where the label stays; the outer ones get the phase of the second. After TorchIO's
    ``RandomMotion``, of which only a shift along the phase axis is left: neither rotation nor other axes.

    Args:
        most: Largest shift in mm.
        probability: How often.
        spacing_mm: Voxel size along each axis of the patch.
        channels: Scan channels of the image.
    """

    def __init__(
        self, most: float, probability: float, spacing_mm: tuple[float, ...], *, channels: int = 1
    ) -> None:
        super().__init__(most, probability, channels=channels)
        self.spacing_mm = spacing_mm

    def draw(self, dims: int) -> Moved:
        """Axis, time and shift in voxels of that axis."""
        axis = int(self.R.randint(dims))
        return Moved(axis, float(self.R.uniform(0.2, 0.8)), self.within(self.most) / self.spacing_mm[axis])

    def change(self, values: torch.Tensor, drawn: Moved) -> torch.Tensor:
        """The patch whose outer lines of k-space are shifted."""
        n = values.shape[drawn.axis + 1]
        k = np.arange(n // 2 + 1)
        phase = np.exp(-2j * np.pi * k * drawn.shift / n)
        return _filtered(values, np.where(k > drawn.before * (n // 2), phase, 1), drawn.axis)


def _filtered(values: torch.Tensor, lines: npt.NDArray[np.complex128], axis: int) -> torch.Tensor:
    """``values`` with each line of k-space along an axis of the patch multiplied by ``lines``.

    A multiplication in k-space is a matrix along the axis, which is faster than the way there and back.
    """
    n = values.shape[axis + 1]
    matrix = np.fft.irfft(np.fft.rfft(np.eye(n), axis=0) * lines[:, None], n=n, axis=0)
    return along(values, torch.from_numpy(matrix).to(values), axis + 1)


def _motion(recipe: Recipe) -> RandomTransform:
    rules, spacing_mm = recipe.augment, recipe.prepare.spacing_mm[: recipe.spatial_dims]
    return Motion(rules.motion_mm, rules.probability, spacing_mm, channels=len(recipe.channels))


ROWS = {
    "bias_field": by_amount(BiasField, "bias_field"),
    "ghosting": by_amount(Ghosting, "ghosting"),
    "motion": Augmentation(("motion_mm",), _motion),
}
"""Rows of the table, in the order in which they are applied."""
