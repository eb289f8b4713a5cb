"""Engines that run a network: torch, OpenVINO and ONNX Runtime. A new one is a row in `REGISTRY`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Protocol

import torch
from torch import nn

from medseg.errors import ResourceError, UsageError
from medseg.inference.backends import onnx_runtime, openvino, pytorch


class Engine(Protocol):
    """Runs one network on windows of one shape, or of one number of channels.

    Attributes:
        name: Name and version, as written to outputs.
    """

    name: str

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits float32 (N, labels, ...) of windows float32 (N, in_channels, ...), at most the shape's N.

        Several threads may call one engine at the same time.
        """


Shape = tuple[int, ...]


class _Kind(Protocol):
    """Creates an engine for a network in evaluation mode, for windows (N, C, ...) of a shape.

    With ``free`` only N and C of the shape are fixed; the sides may vary.
    """

    def __call__(
        self, network: nn.Module, shape: Shape, device: torch.device, *, free: bool = False
    ) -> Engine: ...


REGISTRY: dict[str, _Kind] = {
    "torch": pytorch.TorchEngine,
    "openvino": openvino.OpenVino,
    "onnx": onnx_runtime.OnnxRuntime,
}

_PACKAGES = {"openvino": ("openvino", "onnx"), "onnx": ("onnxruntime", "onnx")}
_EXTRAS = {"openvino": "fast", "onnx": "onnx"}


def choose(name: str, device: torch.device) -> str:
    """A key of `REGISTRY`, from a key or ``auto``.

    ``auto`` is OpenVINO on a CPU if it is installed, which is about twice as fast, and torch otherwise.

    Raises:
        UsageError: no such engine, or it cannot use the device (``engine``).
        ResourceError: its packages are not installed (``missing-extra``).
    """
    if name == "auto":
        return "openvino" if device.type == "cpu" and _installed("openvino") else "torch"
    if name not in REGISTRY or (device.type != "cpu" and name != "torch"):
        raise UsageError(
            f"no engine is called {name!r}" if name not in REGISTRY else f"{name} runs on the CPU only",
            where="engine",
            remedy="give one of: auto, " + ", ".join(REGISTRY)
            if name not in REGISTRY
            else "use auto or torch",
            reason="engine",
        )
    if not _installed(name):
        raise ResourceError(
            f"{name} is not installed",
            where="engine",
            remedy=f"pip install 'medseg[{_EXTRAS[name]}]', or use auto",
            reason="missing-extra",
        )
    return name


def _installed(name: str) -> bool:
    return all(find_spec(package) is not None for package in _PACKAGES.get(name, ()))
