"""U-Net with residual units: MONAI's ``UNet``."""

from __future__ import annotations

from monai.networks.nets.unet import UNet
from torch import nn

from medseg.networks.unet import NORMS
from medseg.recipe import network


def build(rules: network.ResidualUNet, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """The network of a recipe."""
    made: nn.Module = UNet(
        spatial_dims,
        in_channels,
        out_channels,
        channels=rules.widths,
        strides=(2,) * (len(rules.widths) - 1),
        num_res_units=rules.units,
        norm=NORMS[rules.norm],
        dropout=rules.dropout,
    )
    return made
