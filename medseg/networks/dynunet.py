"""nnU-Net's network with deep supervision, built from MONAI's ``DynUNet``."""

from __future__ import annotations

import torch
from monai.networks.nets.dynunet import DynUNet as MonaiDynUNet
from torch import nn

from medseg.recipe import network


class DynUNet(MonaiDynUNet):  # type: ignore[misc]  # monai has no types
    """MONAI's DynUNet with coarser outputs at their own resolution.

    In training with deep supervision it returns a tuple of logits, finest first; otherwise it returns the
    finest logits (N, out_channels, *patch).

    Args:
        rules: Section ``network`` of the recipe.
        spatial_dims: 2 or 3.
        in_channels: Number of input channels.
        out_channels: Number of labels.
    """

    def __init__(
        self, rules: network.DynUNet, spatial_dims: int, in_channels: int, out_channels: int
    ) -> None:
        coarser = len(rules.deep_supervision) - 1
        strides = [1, *[2] * (len(rules.widths) - 1)]
        super().__init__(
            spatial_dims,
            in_channels,
            out_channels,
            kernel_size=[3] * len(strides),
            strides=strides,
            upsample_kernel_size=strides[1:],
            filters=list(rules.widths),
            dropout=rules.dropout or None,
            deep_supervision=coarser > 0,
            deep_supr_num=max(coarser, 1),
            res_block=rules.residual,
        )
        # MONAI registers the same blocks twice, which would save every weight twice.
        del self.skip_layers

    def forward(self, image: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Logits of ``image`` (N, in_channels, *patch)."""
        skips = [self.input_block(image)]
        for down in self.downsamples:
            skips.append(down(skips[-1]))
        maps = [self.bottleneck(skips[-1])]
        for up, skip in zip(self.upsamples, reversed(skips), strict=True):
            maps.append(up(maps[-1], skip))
        logits: torch.Tensor = self.output_block(maps[-1])
        if not (self.training and self.deep_supervision):
            return logits
        coarser = zip(self.deep_supervision_heads, reversed(maps[:-1]), strict=False)
        return (logits, *(head(features) for head, features in coarser))


def build(rules: network.DynUNet, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """The network of a recipe."""
    made: nn.Module = DynUNet(rules, spatial_dims, in_channels, out_channels)
    return made
