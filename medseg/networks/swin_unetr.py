"""Swin transformer with a convolutional decoder: MONAI's ``SwinUNETR``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.networks.nets.swin_unetr import SwinUNETR
from torch import nn
from torch.overrides import TorchFunctionMode

from medseg.recipe import network


class _LinspaceOnCpu(TorchFunctionMode):
    """Keeps MONAI's drop rates, numbers in a tensor, readable when a network is built without memory."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if function is torch.linspace:
            kwargs.setdefault("device", "cpu")
        return function(*args, **kwargs)


def build(rules: network.SwinUNETR, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """The network of a recipe."""
    with _LinspaceOnCpu():
        made: nn.Module = SwinUNETR(
            in_channels,
            out_channels,
            depths=rules.depths,
            feature_size=rules.features,
            drop_rate=rules.dropout,
            spatial_dims=spatial_dims,
        )
    return made
