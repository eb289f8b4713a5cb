"""nnU-Net's default network: the arithmetic and the names of weights of its ``PlainConvUNet``."""

from __future__ import annotations

from torch import nn

from medseg.networks.staged_unet import Decoder, Encoder, Stack, StagedUNet
from medseg.recipe import architecture


def build(
    rules: architecture.PlainConvUNet, spatial_dims: int, in_channels: int, out_channels: int
) -> StagedUNet:
    """Encoder of strided convolutions, decoder of transposed ones (Isensee et al. 2021)."""
    widths, stages = rules.widths, len(rules.widths)
    counts = rules.convolutions or (2,) * stages
    kernels, strides = rules.sizes(spatial_dims), rules.steps(spatial_dims)
    steps = zip(counts, (in_channels, *widths), widths, kernels, strides, strict=False)
    encoder = Encoder(
        nn.Sequential(Stack(rules, count, inside, outside, kernel=kernel, stride=stride))
        for count, inside, outside, kernel, stride in steps
    )
    repeats = rules.decoder_convolutions or (2,) * (stages - 1)
    return StagedUNet(encoder, Decoder(rules, spatial_dims, out_channels, repeats))
