"""nnU-Net's ResEnc: the arithmetic and the names of weights of its ``ResidualEncoderUNet``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from medseg.networks.staged_unet import ConvBlock, Decoder, Encoder, Stack, StagedUNet
from medseg.recipe import architecture

_BLOCKS = (1, 3, 4, 6)  # and 6 at every coarser resolution


class Block(nn.Module):
    """Two convolutions around which the input is led, averaged over the stride (He et al. 2019, ResNet-D).

    Args:
        rules: Section ``network`` of the recipe.
        inside: Number of input channels.
        outside: Number of output channels.
        kernel: Odd size of both convolutions along each axis.
        stride: Step of the first along each axis.
    """

    def __init__(
        self,
        rules: architecture.ResidualEncoderUNet,
        inside: int,
        outside: int,
        *,
        kernel: Sequence[int],
        stride: Sequence[int],
    ) -> None:
        super().__init__()
        dims = len(kernel)
        self.conv1 = ConvBlock(rules, inside, outside, kernel, stride=stride)
        self.conv2 = ConvBlock(rules, outside, outside, kernel, active=False)
        self.nonlin2 = nn.LeakyReLU(rules.slope, inplace=True)
        skip: list[nn.Module] = []
        if set(stride) != {1}:
            pool: type[nn.Module] = nn.AvgPool2d if dims == 2 else nn.AvgPool3d
            skip.append(pool(tuple(stride), tuple(stride)))
        if inside != outside:
            skip.append(ConvBlock(rules, inside, outside, (1,) * dims, bias=False, active=False))
        self.skip = nn.Sequential(*skip)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Feature maps (N, outside, ...) of (N, inside, ...)."""
        maps: torch.Tensor = self.nonlin2(self.conv2(self.conv1(image)) + self.skip(image))
        return maps


class Blocks(nn.Module):
    """Residual blocks at one resolution, the first with a stride; arguments as for :class:`Block`."""

    def __init__(
        self,
        rules: architecture.ResidualEncoderUNet,
        count: int,
        inside: int,
        outside: int,
        *,
        kernel: Sequence[int],
        stride: Sequence[int],
    ) -> None:
        super().__init__()
        first = Block(rules, inside, outside, kernel=kernel, stride=stride)
        one = (1,) * len(kernel)
        rest = (Block(rules, outside, outside, kernel=kernel, stride=one) for _ in range(count - 1))
        self.blocks = nn.Sequential(first, *rest)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Feature maps (N, outside, ...) of (N, inside, ...)."""
        maps: torch.Tensor = self.blocks(image)
        return maps


def build(
    rules: architecture.ResidualEncoderUNet, spatial_dims: int, in_channels: int, out_channels: int
) -> StagedUNet:
    """Encoder of residual blocks, decoder of transposed convolutions (Isensee et al. 2024)."""
    widths, stages = rules.widths, len(rules.widths)
    kernels, strides = rules.sizes(spatial_dims), rules.steps(spatial_dims)
    counts = rules.blocks or (*_BLOCKS, *(_BLOCKS[-1],) * stages)[:stages]
    steps = zip(counts, (widths[0], *widths), widths, kernels, strides, strict=False)
    encoder = Encoder(
        (
            Blocks(rules, count, inside, outside, kernel=kernel, stride=stride)
            for count, inside, outside, kernel, stride in steps
        ),
        Stack(rules, 1, in_channels, widths[0], kernel=kernels[0]),
    )
    repeats = rules.decoder_convolutions or (1,) * (stages - 1)
    network = StagedUNet(encoder, Decoder(rules, spatial_dims, out_channels, repeats))
    # Each block starts as its skip connection alone.
    for module in network.modules():
        if isinstance(module, Block):
            nn.init.zeros_(module.conv2.norm.weight)  # type: ignore[arg-type]  # affine
    return network
