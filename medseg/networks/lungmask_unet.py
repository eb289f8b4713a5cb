"""The U-Net of lungmask, with its arithmetic up to the softmax and its names of weights."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from medseg.recipe import architecture

_CONVOLUTIONS: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_NORMS: dict[int, type[nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class _Level(nn.Module):
    """Two times convolution, ReLU and batch normalisation, in this order."""

    def __init__(self, spatial_dims: int, inside: int, outside: int) -> None:
        super().__init__()
        conv, norm = _CONVOLUTIONS[spatial_dims], _NORMS[spatial_dims]
        self.block = nn.Sequential(
            conv(inside, outside, 3, padding=1),
            nn.ReLU(),
            norm(outside),
            conv(outside, outside, 3, padding=1),
            nn.ReLU(),
            norm(outside),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.block(image)
        return maps


class _Up(nn.Module):
    """Linear upsampling, a convolution of size 1, concatenation of the encoder's maps, and a level."""

    def __init__(self, spatial_dims: int, coarse: int, fine: int) -> None:
        super().__init__()
        mode = "bilinear" if spatial_dims == 2 else "trilinear"
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2, mode=mode), _CONVOLUTIONS[spatial_dims](coarse, fine, 1)
        )
        self.conv_block = _Level(spatial_dims, 2 * fine, fine)

    def forward(self, coarse: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.conv_block(torch.cat([self.up(coarse), skip], 1))
        return maps


class LungmaskUNet(nn.Module):
    """Encoder with average pooling, decoder with linear upsampling (Hofmanninger et al. 2020).

    Args:
        rules: Section ``network`` of the recipe.
        spatial_dims: 2 or 3.
        in_channels: Number of input channels.
        out_channels: Number of channels of the logits.
    """

    def __init__(
        self, rules: architecture.LungmaskUNet, spatial_dims: int, in_channels: int, out_channels: int
    ) -> None:
        super().__init__()
        widths = rules.widths
        self.down_path = nn.ModuleList(
            _Level(spatial_dims, inside, outside) for inside, outside in pairwise((in_channels, *widths))
        )
        self.up_path = nn.ModuleList(
            _Up(spatial_dims, coarse, fine) for coarse, fine in pairwise(reversed(widths))
        )
        self.last = _CONVOLUTIONS[spatial_dims](widths[0], out_channels, 1)
        self._pool = F.avg_pool2d if spatial_dims == 2 else F.avg_pool3d

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits (N, out_channels, ...) of ``image`` (N, in_channels, ...)."""
        skips: list[torch.Tensor] = []
        for down in self.down_path:
            image = down(self._pool(image, 2) if skips else image)
            skips.append(image)
        image = skips.pop()
        for up in self.up_path:
            image = up(image, skips.pop())
        logits: torch.Tensor = self.last(image)
        return logits


def build(
    rules: architecture.LungmaskUNet, spatial_dims: int, in_channels: int, out_channels: int
) -> LungmaskUNet:
    """The network of a recipe."""
    return LungmaskUNet(rules, spatial_dims, in_channels, out_channels)
