"""The decoder of the classic U-Net with less arithmetic: the same function up to rounding."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from monai.networks.nets.basic_unet import UpCat
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import skip_init


def shortened(network: nn.Module) -> nn.Module:
    """A copy of the network whose decoder steps do not concatenate the encoder's maps.

    Such a step doubles the size by a transposed convolution, concatenates the encoder's maps and convolves.
    A convolution of concatenated maps is the sum of a convolution of each, and a convolution after a
    transposed one is a transposed convolution with a larger kernel: together they need a quarter to a third
    fewer multiplications, and the finest maps are not copied. Valid for windows whose sides can be halved
    at every level without remainder.
    """
    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, UpCat) and _plain(child):
                setattr(parent, name, _Step(child))
    return network


def _plain(step: UpCat) -> bool:
    """Whether a step is a transposed convolution of kernel and stride 2, and then one of kernel 3."""
    layers = list(step.upsample.children())
    up, conv = layers[0] if len(layers) == 1 else None, step.convs.conv_0.conv
    return (
        isinstance(up, _ConvTransposeNd)
        and isinstance(conv, _ConvNd)
        and {*up.kernel_size, *up.stride} == {2}
        and {*up.padding, *up.output_padding} == {0}
        and up.groups == conv.groups == 1
        and set(conv.kernel_size) == {3}
        and {*conv.padding, *conv.stride, *conv.dilation} == {1}
        and conv.padding_mode == "zeros"
    )


class _Step(nn.Module):
    """One decoder step, with the call signature of MONAI's ``UpCat``."""

    def __init__(self, step: UpCat) -> None:
        super().__init__()
        (up,), conv = step.upsample.children(), step.convs.conv_0.conv
        skipped = conv.in_channels - up.out_channels
        self.skip = _bare(type(conv), skipped, conv.out_channels, 3, padding=1, bias=conv.bias is not None)
        self.skip.weight.data = conv.weight.data[:, :skipped].clone()
        if conv.bias is not None:
            self.skip.bias.data = conv.bias.data.clone()
        self.up = _bare(type(up), up.in_channels + 1, conv.out_channels, 4, stride=2, padding=1, bias=False)
        self.up.weight.data = _joined(up, conv.weight.data[:, skipped:])
        self.after, self.second = step.convs.conv_0.adn, step.convs.conv_1
        self.to(conv.weight.dtype)

    def forward(self, coarse: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        # A channel of ones carries the bias of the transposed convolution, which the borders cut off.
        coarse = torch.cat([coarse, torch.ones_like(coarse[:, :1])], 1)
        maps: torch.Tensor = self.second(self.after(self.skip(skip) + self.up(coarse)))
        return maps


def _bare(kind: type[nn.Module], *sizes: int, **settings: int) -> Any:
    """A layer with uninitialised weights: initialising them would advance torch's random generator."""
    return skip_init(kind, *sizes, **settings)  # type: ignore[no-untyped-call]


def _joined(up: _ConvTransposeNd, conv: torch.Tensor) -> torch.Tensor:
    """The combined kernel (in + 1, out, 4, ...); the last input is a channel of ones.

    With u[2 i + r] = sum of up[r] x[i], output o takes conv[t] u[o + t - 1]: that is kernel r + 2 - t of a
    transposed convolution with stride 2 and padding 1.
    """
    dims = conv.ndim - 2
    bias = torch.zeros(up.out_channels) if up.bias is None else up.bias.data
    weight, conv = up.weight.data.double(), conv.double()
    made = weight.new_zeros((up.in_channels + 1, len(conv), *(4,) * dims))
    for r in product(range(2), repeat=dims):
        taps = torch.cat([weight[_tap(r)], bias.double()[None]])
        for t in product(range(3), repeat=dims):
            made[_tap([b + 2 - a for a, b in zip(t, r, strict=True)])] += taps @ conv[_tap(t)].T
    return made.to(up.weight.dtype)


def _tap(at: Sequence[int]) -> tuple[Any, ...]:
    """The index of one tap of a kernel (in, out, ...), for all of its channels."""
    return (slice(None), slice(None), *at)
