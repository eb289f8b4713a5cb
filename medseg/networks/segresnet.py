"""Residual encoder-decoder: MONAI's ``SegResNet``."""

from __future__ import annotations

from monai.networks.nets.segresnet import SegResNet
from torch import nn

from medseg.recipe import network


def build(rules: network.SegResNet, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """The network of a recipe."""
    made: nn.Module = SegResNet(
        spatial_dims,
        rules.filters,
        in_channels,
        out_channels,
        dropout_prob=rules.dropout or None,
        blocks_down=rules.blocks,
        blocks_up=(1,) * (len(rules.blocks) - 1),
    )
    return made
