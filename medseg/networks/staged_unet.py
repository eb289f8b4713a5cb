"""The decoder and the blocks that both networks of nnU-Net share.

Modules are named so that weights have the names they have in nnU-Net v2, which registers most of them twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from medseg.recipe.architecture import PlainConvUNet, ResidualEncoderUNet

_CONVOLUTIONS: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORMS: dict[int, type[nn.Module]] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


class ConvBlock(nn.Module):
    """Convolution, instance normalisation, and leaky ReLU unless it is left out.

    Args:
        rules: Section ``network`` of the recipe.
        inside: Number of input channels.
        outside: Number of output channels.
        kernel: Odd size along each axis; the output is as large as the input divided by the stride.
        stride: Step along each axis; None: 1.
        bias: Whether the convolution has a bias.
        active: Whether the leaky ReLU follows.
    """

    def __init__(
        self,
        rules: PlainConvUNet | ResidualEncoderUNet,
        inside: int,
        outside: int,
        kernel: Sequence[int],
        *,
        stride: Sequence[int] | None = None,
        bias: bool | None = None,
        active: bool = True,
    ) -> None:
        super().__init__()
        dims = len(kernel)
        self.conv = _CONVOLUTIONS[dims](
            inside,
            outside,
            tuple(kernel),
            tuple(stride or (1,) * dims),
            padding=tuple(n // 2 for n in kernel),
            bias=rules.bias if bias is None else bias,
        )
        self.norm = _NORMS[dims](outside, eps=rules.eps, affine=True)
        self.nonlin = nn.LeakyReLU(rules.slope, inplace=True) if active else nn.Identity()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Feature maps (N, outside, ...) of (N, inside, ...)."""
        maps: torch.Tensor = self.nonlin(self.norm(self.conv(image)))
        return maps


class Stack(nn.Module):
    """Convolutions at one resolution, the first with a stride; arguments as for :class:`ConvBlock`."""

    def __init__(self, rules: Any, count: int, inside: int, outside: int, **settings: Any) -> None:
        super().__init__()
        first = ConvBlock(rules, inside, outside, **settings)
        settings["stride"] = None
        rest = (ConvBlock(rules, outside, outside, **settings) for _ in range(count - 1))
        self.convs = nn.Sequential(first, *rest)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Feature maps (N, outside, ...) of (N, inside, ...)."""
        maps: torch.Tensor = self.convs(image)
        return maps


class Encoder(nn.Module):
    """The maps of every resolution.

    Args:
        stages: One module per resolution, finest first.
        stem: What comes before the first; None: nothing.
    """

    def __init__(self, stages: Iterable[nn.Module], stem: nn.Module | None = None) -> None:
        super().__init__()
        self.stem = stem or nn.Identity()
        self.stages = nn.ModuleList(stages)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps, finest first, of an image (N, channels, ...)."""
        maps = [self.stem(image)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]


class Decoder(nn.Module):
    """Transposed convolutions, concatenation of the encoder's maps, convolutions, and the outputs.

    Args:
        rules: Section ``network`` of the recipe.
        spatial_dims: 2 or 3.
        out_channels: Number of channels of the logits.
        repeats: Number of convolutions at each resolution, coarsest first.
    """

    def __init__(
        self,
        rules: PlainConvUNet | ResidualEncoderUNet,
        spatial_dims: int,
        out_channels: int,
        repeats: Sequence[int],
    ) -> None:
        super().__init__()
        widths, kernels, strides = rules.widths, rules.sizes(spatial_dims), rules.steps(spatial_dims)
        levels = range(len(widths) - 2, -1, -1)
        self.transpconvs = nn.ModuleList(
            _TRANSPOSED[spatial_dims](
                widths[i + 1], widths[i], strides[i + 1], strides[i + 1], bias=rules.bias
            )
            for i in levels
        )
        self.stages = nn.ModuleList(
            Stack(rules, count, 2 * widths[i], widths[i], kernel=kernels[i])
            for count, i in zip(repeats, levels, strict=True)
        )
        # The heads that supervise nothing are left out, coarsest first.
        heads = list(levels)[-len(rules.deep_supervision) :]
        one = (1,) * spatial_dims
        self.seg_layers = nn.ModuleList(
            _CONVOLUTIONS[spatial_dims](widths[i], out_channels, one) for i in heads
        )

    def forward(self, skips: Sequence[torch.Tensor]) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Logits of the encoder's maps, finest first; in training one for each head, finest first."""
        features, maps = skips[-1], []
        for up, stage, skip in zip(self.transpconvs, self.stages, reversed(skips[:-1]), strict=True):
            features = stage(torch.cat([up(features), skip], 1))
            maps.append(features)
        finest: torch.Tensor = self.seg_layers[-1](features)
        if not self.training or len(self.seg_layers) == 1:
            return finest
        coarser = zip(reversed(self.seg_layers[:-1]), reversed(maps[:-1]), strict=False)
        return (finest, *(head(each) for head, each in coarser))


class StagedUNet(nn.Module):
    """An encoder and a decoder, with weights drawn by :func:`initialise`.

    In training with deep supervision it returns a tuple of logits, finest first; otherwise it returns the
    finest logits (N, out_channels, *patch).
    """

    def __init__(self, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        initialise(self)

    def forward(self, image: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Logits of ``image`` (N, in_channels, *patch)."""
        logits: torch.Tensor | tuple[torch.Tensor, ...] = self.decoder(self.encoder(image))
        return logits


@torch.no_grad()
def initialise(network: nn.Module) -> None:
    """Draws weights as nnU-Net does: normal with He's variance for a leaky ReLU of slope 0.01, biases 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            nn.init.kaiming_normal_(layer.weight, a=1e-2)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
