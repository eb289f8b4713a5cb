"""The changes of nnU-Net's default augmentation, with its probabilities and ranges.

The formulas are those of batchgeneratorsv2 0.3; ``make peers`` compares them with it, parameter by parameter.
Rotation and scaling are :class:`medseg.preprocessing.augmentation.spatial.NnunetDeform`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch

from medseg.preprocessing.augmentation.intensity import Noise
from medseg.preprocessing.augmentation.interpolation import Matrix, along, one_thread
from medseg.preprocessing.augmentation.resolution import coarse
from medseg.preprocessing.augmentation.spatial import flip
from medseg.preprocessing.augmentation.transform import ChannelTransform, RandomTransform
from medseg.recipe import NnunetAugment, Recipe

_TINY = 1e-7
Drawn = TypeVar("Drawn")


class PatchTransform(ChannelTransform[Drawn]):
    """A change of intensity that happens to a whole patch or not at all, and then to a share of its channels.

    Args:
        probability: Probability of a change of the patch.
        share: Probability that a scan channel of a changed patch takes part.
        channels: Number of scan channels of the image.
    """

    def __init__(self, probability: float, *, share: float = 1.0, channels: int = 1) -> None:
        super().__init__(0.0, probability, channels=channels)
        self.share = share

    def randomize(self, data: Mapping[str, torch.Tensor]) -> None:
        """Draws whether and how each scan channel changes."""
        dims = data["image"].ndim - 1
        self.drawn = [None] * self.channels
        if self.happens():
            self.drawn = [
                self.draw(dims) if self.R.random_sample() < self.share else None for _ in self.drawn
            ]

    def factor(self, low: float, high: float) -> float:
        """A random number in low..high, in half of the cases below 1."""
        return float(self.R.uniform(low, 1) if self.R.random_sample() < 0.5 else self.R.uniform(1, high))


class PatchNoise(Noise):
    """Gaussian noise of one standard deviation, 0 to 0.1, in all channels of a patch."""

    def randomize(self, data: Mapping[str, torch.Tensor]) -> None:
        """Draws the standard deviation, and a seed for each channel."""
        self.drawn = [None] * self.channels
        if self.happens():
            sd = self.up_to(self.most)
            self.drawn = [(sd, int(self.R.randint(2**31 - 1))) for _ in self.drawn]


class PatchBlur(PatchTransform[tuple[float, ...]]):
    """Gaussian blur with a standard deviation of 0.5 to 1 voxel, drawn for each axis.

    The patch is mirrored about its outermost voxels, and the kernel reaches about 3 standard deviations.
    """

    def draw(self, dims: int) -> tuple[float, ...]:
        """The standard deviations, in voxels."""
        return tuple(float(self.R.uniform(0.5, 1)) for _ in range(dims))

    def change(self, values: torch.Tensor, drawn: tuple[float, ...]) -> torch.Tensor:
        """The blurred patch."""
        for axis, sd in enumerate(drawn, start=1):
            values = along(values, torch.from_numpy(blur_matrix(values.shape[axis], sd)).to(values), axis)
        return values


class PatchBrightness(PatchTransform[float]):
    """Intensities multiplied by a factor of 0.75 to 1.25."""

    def draw(self, dims: int) -> float:
        """The factor."""
        return self.factor(0.75, 1.25)

    def change(self, values: torch.Tensor, drawn: float) -> torch.Tensor:
        """The patch times the factor."""
        return values * drawn


class PatchContrast(PatchTransform[float]):
    """Differences to the mean multiplied by 0.75 to 1.25, within the range that the patch had."""

    def draw(self, dims: int) -> float:
        """The factor."""
        return self.factor(0.75, 1.25)

    def change(self, values: torch.Tensor, drawn: float) -> torch.Tensor:
        """The patch with another contrast."""
        with one_thread():  # a sum depends on the number of threads
            mean = values.mean()
        low, high = torch.aminmax(values)
        return ((values - mean).mul_(drawn).add_(mean)).clamp_(low, high)


class PatchLowResolution(PatchTransform[float]):
    """Resolution reduced to 0.5 to 1 of it along each axis: nearest voxels, then linear interpolation.

    Args:
        probability: Probability of a change of the patch.
        flat_axis: Axis that keeps its resolution.
        channels: Number of scan channels of the image.
    """

    def __init__(self, probability: float, *, flat_axis: int | None = None, channels: int = 1) -> None:
        super().__init__(probability, share=0.5, channels=channels)
        self.flat_axis = flat_axis

    def draw(self, dims: int) -> float:
        """The share of voxels that remain along an axis."""
        return float(self.R.uniform(0.5, 1))

    def change(self, values: torch.Tensor, drawn: float) -> torch.Tensor:
        """The patch at lower resolution, on its own voxels."""
        for axis, n in enumerate(values.shape[1:]):
            if axis != self.flat_axis:
                matrix = coarse(n, max(1, round(n * drawn)))
                values = along(values, torch.from_numpy(matrix).to(values), axis + 1)
        return values


class PatchGamma(PatchTransform[float]):
    """Gamma correction within the range of the patch; mean and standard deviation are restored.

    Args:
        probability: Probability of a change of the patch.
        inverted: Whether the negative of the image is corrected, which changes bright voxels most.
        channels: Number of scan channels of the image.
    """

    def __init__(self, probability: float, *, inverted: bool = False, channels: int = 1) -> None:
        super().__init__(probability, channels=channels)
        self.inverted = inverted

    def draw(self, dims: int) -> float:
        """The exponent."""
        return self.factor(0.7, 1.5)

    def change(self, values: torch.Tensor, drawn: float) -> torch.Tensor:
        """The patch with the drawn exponent."""
        before = -values if self.inverted else values
        low, high = torch.aminmax(before)
        span = high - low
        # Not pow: torch rounds it differently in the last voxels of each thread's part.
        done = ((before - low) / span.clamp_min(_TINY)).log_().mul_(drawn).exp_().mul_(span).add_(low)
        with one_thread():
            mean, sd, mean_now, sd_now = before.mean(), before.std(), done.mean(), done.std()
        done = (done - mean_now).mul_(sd / sd_now.clamp_min(_TINY)).add_(mean)
        return done.neg_() if self.inverted else done


def blur_matrix(n: int, sd: float) -> Matrix:
    """Matrix (n, n) of a Gaussian blur of a line, mirrored about its outermost voxels; rows sum to 1."""
    reach = _odd(6 * sd + 0.5) // 2
    steps = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (steps / sd) ** 2)
    period = max(2 * (n - 1), 1)
    at = (np.arange(n)[:, None] + steps) % period
    at = np.minimum(at, period - at) if n > 1 else np.zeros_like(at)
    matrix = np.zeros((n, n))
    np.add.at(matrix, (np.arange(n)[:, None], at), weights / weights.sum())
    return matrix


def _odd(length: float) -> int:
    """The odd number nearest to a length; of two the higher."""
    rounded = round(length)
    return rounded if rounded % 2 else rounded + (1 if length >= rounded else -1)


def transforms(recipe: Recipe) -> list[RandomTransform]:
    """The changes of patches that are cut and moved, in the order of application.

    Args:
        recipe: A recipe whose section ``augment`` is of the kind ``nnunet``.
    """
    rules = recipe.augment
    assert isinstance(rules, NnunetAugment)
    count = len(recipe.channels)
    # Flips first instead of last: the other changes are the same in a mirrored patch.
    return [
        *([flip(recipe)] if rules.flip_axes else []),
        PatchNoise(0.1, 0.1, channels=count),
        PatchBlur(0.2, share=0.5, channels=count),
        PatchBrightness(0.15, channels=count),
        PatchContrast(0.15, channels=count),
        PatchLowResolution(0.25, flat_axis=rules.flat_axis, channels=count),
        PatchGamma(0.1, inverted=True, channels=count),
        PatchGamma(0.3, channels=count),
    ]
