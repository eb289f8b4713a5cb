"""The table of network architectures. To add one: a file beside this one and a row in `KINDS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import nn

from medseg.networks.unet import UNet
from medseg.recipe import Network, Recipe

KINDS: dict[str, Callable[[Network, int, int, int], nn.Module]] = {
    "unet": UNet.from_recipe,
}


def build(recipe: Recipe) -> nn.Module:
    """The recipe's network, freshly initialised from torch's global random state.

    It maps float32 (N, in_channels, *patch) to logits (N, labels, *patch).
    """
    make = KINDS[recipe.network.kind]
    return make(recipe.network, recipe.spatial_dims, recipe.in_channels, len(recipe.labels))


def channels_last(network: nn.Module) -> nn.Module:
    """The network with its weights laid out channels last, which convolutions carry on through.

    Measured on 2 CPU cores, training step: 2D 0.48 s to 0.39 s, 3D 1.30 s to 1.04 s.
    """
    flat = any(isinstance(module, nn.Conv2d) for module in network.modules())
    layout = torch.channels_last if flat else torch.channels_last_3d
    return cast(nn.Module, network.to(memory_format=layout))  # type: ignore[call-overload]  # torch has no such stub
