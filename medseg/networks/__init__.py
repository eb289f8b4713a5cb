"""The table of network architectures. To add one: a file beside this one and a row in `REGISTRY`."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import nn

from medseg.networks import attention_unet, dynunet, residual_unet, segresnet, swin_unetr
from medseg.networks.unet import UNet
from medseg.recipe import Recipe

# Each takes its own section of the recipe, the spatial dimensions, and channels in and out.
REGISTRY: dict[str, Callable[..., nn.Module]] = {
    "unet": UNet.from_recipe,
    "residual_unet": residual_unet.build,
    "attention_unet": attention_unet.build,
    "dynunet": dynunet.build,
    "segresnet": segresnet.build,
    "swin_unetr": swin_unetr.build,
}


def build(recipe: Recipe) -> nn.Module:
    """The recipe's network, freshly initialised from torch's global random state.

    It maps float32 (N, in_channels, *patch) to logits (N, labels, *patch); in training, a network
    with deep supervision gives a tuple of them, finest first, the others at coarser resolutions.
    """
    make = REGISTRY[recipe.network.kind]
    return make(recipe.network, recipe.spatial_dims, recipe.in_channels, len(recipe.labels))


def channels_last(network: nn.Module) -> nn.Module:
    """The network with its weights laid out channels last, which convolutions carry on through.

    Measured on 2 CPU cores, training step: 2D 0.48 s to 0.39 s, 3D 1.30 s to 1.04 s.
    """
    flat = any(isinstance(module, nn.Conv2d) for module in network.modules())
    layout = torch.channels_last if flat else torch.channels_last_3d
    return cast(nn.Module, network.to(memory_format=layout))  # type: ignore[call-overload]  # torch has no such stub
