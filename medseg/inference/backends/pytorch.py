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

from medseg.inference.backends.cuda_graph import CudaGraph
from medseg.inference.backends.network_source import NetworkSource
from medseg.inference.backends.torch_mode import Mode, Run, fastest, mode_key, remembered
from medseg.system.arrays import Array
from medseg.system.devices import described


class TorchEngine:
    """See :class:`medseg.inference.backends.Engine`.

    On a GPU, layout, precision, number of windows at once and use of a CUDA graph are those that were
    measured to be the fastest for the model and the card, see :mod:`medseg.inference.backends.torch_mode`.

    Attributes:
        batch: Number of windows to run at once.
    """

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
        self._shape = shape
        mode = Mode(half=self._device.type == "cuda", batch=shape[0])
        weights, stage = getattr(network, "weights", None), getattr(network, "stage", None)
        if device != "cpu" and weights is not None:
            key = mode_key(weights, shape, self._device, free=free, stage=stage)
            graphs = self._device.type == "cuda" and not free
            mode = remembered(key, lambda: fastest(self._built, self._sample, mode, graphs=graphs))
        self.batch = mode.batch
        self._run = self._built(mode)

    def __call__(self, windows: Array) -> Array:  # noqa: D102
        if isinstance(windows, np.ndarray):
            return self._logits(torch.from_numpy(windows)).cpu().numpy()
        return self._logits(windows)

    def _logits(self, windows: torch.Tensor) -> torch.Tensor:
        if self._device.type == "cuda" and windows.device.type == "cpu":
            windows = windows.pin_memory().to(self._device, non_blocking=True)
        with torch.inference_mode():
            return self._run(windows.to(self._device))

    def _built(self, mode: Mode) -> Run:
        """The network in a mode, ready to run."""
        last = torch.channels_last if len(self._shape) == 4 else torch.channels_last_3d
        layout = last if mode.channels_last else torch.contiguous_format
        self._network = self._network.to(memory_format=layout)  # type: ignore[call-overload]

        def run(windows: torch.Tensor) -> torch.Tensor:
            # Within a graph, autocast must not keep weights that it has converted.
            half = torch.autocast("cuda", torch.float16, mode.half, cache_enabled=not mode.graph)
            with torch.inference_mode(), half:
                logits: torch.Tensor = self._network(windows.contiguous(memory_format=layout))
            return logits.float()

        return CudaGraph(run, self._sample(mode.batch)) if mode.graph else run

    def _sample(self, batch: int) -> torch.Tensor:
        """Windows of noise on the device."""
        random = torch.Generator().manual_seed(0)
        with torch.inference_mode():
            noise = [torch.randn(self._shape[1:], generator=random) for _ in range(batch)]
            return torch.stack(noise).to(self._device)


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
