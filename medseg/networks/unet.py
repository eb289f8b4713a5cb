"""The classic U-Net, built from MONAI's blocks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from monai.networks.layers.factories import Conv
from monai.networks.nets.basic_unet import Down, TwoConv, UpCat
from torch import nn

from medseg.recipe import network

NORMS: dict[str, tuple[str, dict[str, bool]] | None] = {
    "batch": ("batch", {}),
    "instance": ("instance", {"affine": True}),
    "none": None,
}


class UNet(nn.Module):
    """Encoder, decoder and skip connections (Ronneberger et al. 2015, figure 1), in 2D or 3D.

    Every resolution has two convolutions of size 3. In the encoder, max pooling halves the size; in the
    decoder, a transposed convolution doubles it and halves the number of feature maps, and the encoder's
    feature maps of that resolution are concatenated. There are two differences from the article, both
    usual today: convolutions are padded, so that the output has the size of the input, and each is
    followed by a normalisation (``norm="none"`` gives the original).

    Args:
        spatial_dims: 2 or 3.
        in_channels: Number of input channels.
        out_channels: Number of labels.
        widths: Number of feature maps at each resolution, finest first.
        norm: ``batch``, ``instance`` or ``none``.
        dropout: Probability of dropping a feature map in training.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        widths: Sequence[int] = (64, 128, 256, 512, 1024),
        norm: str = "instance",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        normed = NORMS[norm]
        # A normalisation removes the bias of the convolution before it, so there is none.
        act = ("relu", {"inplace": True})
        block = {"act": act, "norm": normed, "bias": normed is None, "dropout": dropout}
        pairs = list(pairwise(widths))
        self.stem = TwoConv(spatial_dims, in_channels, widths[0], **block)
        self.encoder = nn.ModuleList(Down(spatial_dims, fine, coarse, **block) for fine, coarse in pairs)
        self.decoder = nn.ModuleList(
            UpCat(spatial_dims, coarse, fine, fine, **block) for fine, coarse in reversed(pairs)
        )
        self.head = Conv["conv", spatial_dims](widths[0], out_channels, kernel_size=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits (N, out_channels, ...) of ``image`` (N, in_channels, ...)."""
        skips = [self.stem(image)]
        for down in self.encoder:
            skips.append(down(skips[-1]))
        features = skips.pop()
        for up in self.decoder:
            features = up(features, skips.pop())
        logits: torch.Tensor = self.head(features)
        return logits


def build(rules: network.UNet, spatial_dims: int, in_channels: int, out_channels: int) -> UNet:
    """The network of a recipe."""
    return UNet(
        spatial_dims, in_channels, out_channels, widths=rules.widths, norm=rules.norm, dropout=rules.dropout
    )
