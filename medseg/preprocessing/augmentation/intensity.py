"""Augmentation of intensities: gamma, contrast, brightness, noise, hidden boxes, clipping."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from medseg.preprocessing.augmentation.transform import (
    Augmentation,
    ChannelTransform,
    Patch,
    RandomTransform,
    by_amount,
)

_TINY = 1e-7  # avoids a division by zero in a constant patch, such as one of air


class Gamma(ChannelTransform[float]):
    """Gamma correction: low + range * ((v - low) / range)^g.

    ``low`` and ``range`` are those of the patch, as in MONAI's ``AdjustContrast`` and nnU-Net; g is drawn
    from 1 - most..1 + most. The range of the patch is preserved, and a constant patch is unchanged.
    """

    def draw(self, dims: int) -> float:
        """The exponent."""
        return 1 + self.within(self.most)

    def change(self, values: torch.Tensor, drawn: float) -> torch.Tensor:
        """The patch with the drawn exponent."""
        low, high = torch.aminmax(values)
        span = high - low
        # Not pow: torch rounds it differently in the last voxels of each thread's part.
        return ((values - low) / (span + _TINY)).log_().mul_(drawn).exp_().mul_(span).add_(low)


class Contrast(ChannelTransform[float]):
    """Intensities multiplied by a factor of 1 - most..1 + most.

    This scales z-scores about their mean, and windows or percentiles about their lower end.
    """

    def draw(self, dims: int) -> float:
        """The factor."""
        return 1 + self.within(self.most)

    def change(self, values: torch.Tensor, drawn: float) -> torch.Tensor:
        """The patch times the factor."""
        return values * drawn


class Brightness(ChannelTransform[float]):
    """Intensities shifted by -most..most, in normalised intensity."""

    def draw(self, dims: int) -> float:
        """The shift."""
        return self.within(self.most)

    def change(self, values: torch.Tensor, drawn: float) -> torch.Tensor:
        """The patch plus the shift."""
        return values + drawn


class Noise(ChannelTransform[tuple[float, int]]):
    """Gaussian noise, independent in each voxel, with a standard deviation of 0..most.

    It is drawn by torch on the tensor's device: the same seed gives different noise on a GPU and a CPU.
    """

    def draw(self, dims: int) -> tuple[float, int]:
        """Standard deviation and seed."""
        return self.up_to(self.most), int(self.R.randint(2**31 - 1))

    def change(self, values: torch.Tensor, drawn: tuple[float, int]) -> torch.Tensor:
        """The patch with noise."""
        sd, seed = drawn
        generator = torch.Generator(values.device).manual_seed(seed)
        noise = torch.randn(values.shape, generator=generator, device=values.device, dtype=values.dtype)
        return noise.mul_(sd).add_(values)


class Cutout(RandomTransform):
    """A box of the patch filled with the patch's mean, for each scan channel; the label is unchanged.

    DeVries and Taylor 2017 (arXiv:1708.04552), who fill with the mean of the data set. The network has to
    infer the content of the box from its surroundings, as with nnU-Net's blank rectangles.

    Args:
        most: Largest length of each edge relative to the patch; at least one voxel is hidden.
        probability: Probability of hiding a box.
        channels: Number of scan channels of the image; the same box is hidden in all of them.
    """

    def __init__(self, most: float, probability: float, *, channels: int = 1) -> None:
        super().__init__(probability)
        self.most = most
        self.channels = channels
        self.box: tuple[slice, ...] | None = None

    def randomize(self, data: Mapping[str, torch.Tensor]) -> None:
        """Draws the box."""
        self.box = None
        if self.happens():
            shape = data["image"].shape[1:]
            lengths = [max(1, int(n * self.up_to(self.most))) for n in shape]
            starts = [int(self.R.randint(n - size + 1)) for n, size in zip(shape, lengths, strict=True)]
            self.box = tuple(slice(at, at + size) for at, size in zip(starts, lengths, strict=True))

    def __call__(self, data: Mapping[str, torch.Tensor]) -> Patch:
        """The patch with its box hidden."""
        self.randomize(data)
        if self.box is None:
            return dict(data)
        image = data["image"].clone(memory_format=torch.contiguous_format)
        for values in image.view(-1, self.channels, *image.shape[1:]).unbind(1):
            values[(slice(None), *self.box)] = _mean(values)
        return dict(data) | {"image": image}


def _mean(values: torch.Tensor) -> torch.Tensor:
    """The mean, axis by axis; in a single sum it would depend on the number of threads."""
    while values.ndim:
        values = values.mean(-1)
    return values


class Clip(RandomTransform):
    """Intensities clipped to 0..1, the range of the preparation; nothing is random."""

    def __init__(self) -> None:
        super().__init__(1.0)

    def randomize(self, data: Mapping[str, torch.Tensor]) -> None:
        """Draws nothing."""

    def __call__(self, data: Mapping[str, torch.Tensor]) -> Patch:
        """The patch with every intensity in 0..1."""
        return dict(data) | {"image": data["image"].clamp(0, 1)}


ROWS = {
    "gamma": by_amount(Gamma, "gamma"),
    "contrast": by_amount(Contrast, "contrast"),
    "brightness": by_amount(Brightness, "brightness"),
    "noise": by_amount(Noise, "noise_sd"),
    "cutout": by_amount(Cutout, "cutout"),
    "clip": Augmentation(("clip",), lambda recipe: Clip()),
}
"""Rows of the table, in the order of application."""
