"""U-Net with attention gates: MONAI's ``AttentionUnet``."""

from __future__ import annotations

from monai.networks.nets.attentionunet import AttentionUnet
from torch import nn

from medseg.recipe import network


def build(rules: network.AttentionUNet, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """The network of a recipe."""
    made: nn.Module = AttentionUnet(
        spatial_dims,
        in_channels,
        out_channels,
        channels=rules.widths,
        strides=(2,) * (len(rules.widths) - 1),
        dropout=rules.dropout,
    )
    return made
