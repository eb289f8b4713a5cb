"""Engines that run a network: torch, OpenVINO and ONNX Runtime. A new one is a row in `REGISTRY`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

from medseg.errors import ResourceError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from medseg.inference.backends.network_source import NetworkSource


class Engine(Protocol):
    """Runs one network on windows of one shape, or of one number of channels.

    Attributes:
        name: Name and version, as written to outputs.
    """

    name: str

    def __call__(self, windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits float32 (N, labels, ...) of windows float32 (N, in_channels, ...), at most the shape's N.

        Several threads may call one engine at the same time. The torch engine takes and returns tensors as
        well, on its device.
        """
        ...


Shape = tuple[int, ...]


class _Kind(Protocol):
    """Creates an engine for a network, for windows (N, C, ...) of a shape.

    With ``free`` only N and C of the shape are fixed; the sides may vary. The package of an engine is
    imported when one is created.
    """

    def __call__(
        self, network: NetworkSource, shape: Shape, device: str, *, free: bool = False
    ) -> Engine: ...


def _torch(network: NetworkSource, shape: Shape, device: str, *, free: bool = False) -> Engine:
    from medseg.inference.backends.pytorch import TorchEngine

    return TorchEngine(network, shape, device, free=free)


def _openvino(network: NetworkSource, shape: Shape, device: str, *, free: bool = False) -> Engine:
    from medseg.inference.backends.openvino import OpenVino

    return OpenVino(network, shape, device, free=free)


def _onnx(network: NetworkSource, shape: Shape, device: str, *, free: bool = False) -> Engine:
    from medseg.inference.backends.onnx_runtime import OnnxRuntime

    return OnnxRuntime(network, shape, device, free=free)


REGISTRY: dict[str, _Kind] = {"torch": _torch, "openvino": _openvino, "onnx": _onnx}

_PACKAGES = {"torch": "torch", "openvino": "openvino", "onnx": "onnxruntime"}
_INSTALL = {
    "torch": "pip install medseg, with its dependencies",
    "openvino": "pip install 'medseg[fast]'",
    "onnx": "pip install 'medseg[onnx]'",
}


def check_known(name: str) -> None:
    """Refuses a name that is neither ``auto`` nor a key of `REGISTRY`.

    Raises:
        UsageError: no such engine (``engine``).
    """
    if name not in ("auto", *REGISTRY):
        raise UsageError(
            f"no engine is called {name!r}",
            where="engine",
            remedy="give one of: auto, " + ", ".join(REGISTRY),
            reason="engine",
        )


def choose(name: str, device: str, *, packaged: bool = False) -> str:
    """A key of `REGISTRY`, from a key or ``auto``.

    ``auto`` is OpenVINO on a CPU if it is installed, which is about twice as fast, and torch otherwise. It is
    ONNX Runtime for the exported networks of a package, which torch cannot run, and on a CPU without torch.

    Args:
        name: A key of `REGISTRY`, or ``auto``.
        device: Device of the networks.
        packaged: Whether there is only an exported graph of each network.

    Raises:
        UsageError: no such engine, or it cannot use the device (``engine``).
        ResourceError: its packages are not installed (``missing-extra``).
    """
    if name == "auto":
        if device == "cpu" and _installed("openvino"):
            return "openvino"
        if not packaged and (device != "cpu" or _installed("torch") or not _installed("onnx")):
            return "torch"
        name = "onnx"
    check_known(name)
    if device != "cpu" and name != "torch":
        raise UsageError(
            f"{name} runs on the CPU only",
            where="engine",
            remedy="use the device cpu" if packaged else "use auto or torch",
            reason="engine",
        )
    if not _installed(name):
        raise ResourceError(
            f"{name} is not installed",
            where="engine",
            remedy=_INSTALL[name] + ("" if packaged else ", or use auto"),
            reason="missing-extra",
        )
    return name


def load(
    name: str, networks: Sequence[NetworkSource], shape: Shape, device: str, *, free: bool = False
) -> list[Engine]:
    """One engine per network, all of the kind that ``name`` selects.

    With ``auto``, torch is used if the preferred engine fails: the graph of some networks cannot be exported,
    or not be compiled on this machine.

    Args:
        name: A key of `REGISTRY`, or ``auto``.
        networks: Networks in evaluation mode.
        shape: Shape of their windows, (N, C, ...).
        device: Device of the networks.
        free: Whether the sides of a window may differ from those in ``shape``.

    Raises:
        UsageError: no such engine, it cannot use the device, or it cannot run a network (``engine``).
        ResourceError: the engine is not installed (``missing-extra``).
    """

    def built(kind: str) -> list[Engine]:
        return [REGISTRY[kind](network, shape, device, free=free) for network in networks]

    packaged = any(network.packaged is not None for network in networks)
    kind = choose(name, device, packaged=packaged)
    if kind == "torch":
        return built(kind)
    try:
        return built(kind)
    except (UsageError, RuntimeError) as error:
        if name == "auto" and not packaged:
            return built("torch")
        if isinstance(error, UsageError):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(
            f"{kind} cannot run this network: {lines[0]:.200}",
            where="engine",
            remedy="use the engine auto or torch",
            reason="engine",
        ) from error


def _installed(name: str) -> bool:
    return find_spec(_PACKAGES[name]) is not None
