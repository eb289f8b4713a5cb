"""nnU-Net's default network: the arithmetic and the names of weights of its ``PlainConvUNet``."""

from __future__ import annotations

import torch
from torch import nn

from medseg.networks.staged_unet import Decoder, Encoder, Stack, initialise
from medseg.recipe import architecture


class PlainConvUNet(nn.Module):
    """Encoder of strided convolutions, decoder of transposed ones (Isensee et al. 2021).

    In training with deep supervision it returns a tuple of logits, finest first; otherwise it returns the
    finest logits (N, out_channels, *patch).

    Args:
        rules: Section ``network`` of the recipe.
        spatial_dims: 2 or 3.
        in_channels: Number of input channels.
        out_channels: Number of channels of the logits.
    """

    def __init__(
        self, rules: architecture.PlainConvUNet, spatial_dims: int, in_channels: int, out_channels: int
    ) -> None:
        super().__init__()
        widths, stages = rules.widths, len(rules.widths)
        counts = rules.convolutions or (2,) * stages
        steps = zip(
            counts,
            (in_channels, *widths),
            widths,
            rules.sizes(spatial_dims),
            rules.steps(spatial_dims),
            strict=False,
        )
        self.encoder = Encoder(
            nn.Sequential(Stack(rules, count, inside, outside, kernel=kernel, stride=stride))
            for count, inside, outside, kernel, stride in steps
        )
        repeats = rules.decoder_convolutions or (2,) * (stages - 1)
        self.decoder = Decoder(rules, spatial_dims, out_channels, repeats)
        initialise(self)

    def forward(self, image: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Logits of ``image`` (N, in_channels, *patch)."""
        logits: torch.Tensor | tuple[torch.Tensor, ...] = self.decoder(self.encoder(image))
        return logits


def build(
    rules: architecture.PlainConvUNet, spatial_dims: int, in_channels: int, out_channels: int
) -> PlainConvUNet:
    """The network of a recipe."""
    return PlainConvUNet(rules, spatial_dims, in_channels, out_channels)
