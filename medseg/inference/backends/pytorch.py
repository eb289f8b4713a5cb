"""The torch engine, which runs on every device and is the reference for the others."""

from __future__ import annotations

import copy

import numpy as np
import torch
from monai.networks.blocks.convolutions import Convolution
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_eval

from medseg.inference.backends.network_source import NetworkSource
from medseg.system.arrays import Array
from medseg.system.devices import described


class TorchEngine:
    """See :class:`medseg.inference.backends.Engine`. On a GPU torch's autocast uses half precision."""

    def __init__(
        self,
        network: NetworkSource,
        shape: tuple[int, ...],
        device: str,
        *,
        free: bool = False,
    ) -> None:
        self._device = torch.device(device)
        place = "" if device == "cpu" else f" on {described(device)}"
        self.name = f"torch {torch.__version__}{place}"
        self._network = folded(network.network()).to(self._device)
        flat = len(shape) == 4
        self._layout = torch.channels_last if flat else torch.channels_last_3d
        self._network = self._network.to(memory_format=self._layout)  # type: ignore[call-overload]

    def __call__(self, windows: Array) -> Array:  # noqa: D102
        if isinstance(windows, np.ndarray):
            return self._logits(torch.from_numpy(windows)).cpu().numpy()
        return self._logits(windows)

    def _logits(self, windows: torch.Tensor) -> torch.Tensor:
        if self._device.type == "cuda" and windows.device.type == "cpu":
            windows = windows.pin_memory().to(self._device, non_blocking=True)
        with torch.inference_mode(), torch.autocast("cuda", torch.float16, self._device.type == "cuda"):
            logits: torch.Tensor = self._network(windows.contiguous(memory_format=self._layout))
        return logits.float()


def folded(network: nn.Module) -> nn.Module:
    """A copy in which each convolution has absorbed the batch normalisation that follows it.

    In evaluation, batch normalisation is a scale and a shift per channel: the result is the same function up
    to rounding.
    """
    network = copy.deepcopy(network)
    for block in network.modules():
        if not isinstance(block, Convolution):
            continue
        after = dict(dict(block.named_children()).get("adn", nn.Module()).named_children())
        norm = after.get("N")
        # The normalisation must follow the convolution directly.
        if not isinstance(norm, _BatchNorm) or next(iter(after)) != "N":
            continue
        # Weights are (out, in / groups, ...), but (in, out / groups, ...) if transposed.
        transposed = isinstance(block.conv, _ConvTransposeNd)
        if transposed and block.conv.groups > 1:
            continue
        block.conv = fuse_conv_bn_eval(block.conv, norm, transpose=transposed)
        block.adn.N = nn.Identity()
    return network
