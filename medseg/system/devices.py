"""Names of the devices that networks run on; torch is imported only where there may be a GPU."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from medseg.errors import UsageError

# Of NVIDIA's driver, of AMD's, and of Windows in its Linux.
_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
_NOT_BUILT = ("not compiled with", "not linked with", "Could not run")
_NAME = re.compile(r"auto|cpu|gpu|mps|(cuda|xpu)(:\d+)?")


def resolved(name: str, *, cpu_only: bool = False) -> str:
    """The device that a name means, as torch names it.

    Args:
        name: ``cpu``; ``cuda`` or ``cuda:1``; ``mps``, the GPU of a Mac; ``gpu``, whichever of both there
            is; or ``auto``, CUDA if it is available, otherwise the CPU. ``auto`` never chooses the GPU of a
            Mac, for which torch lacks operations of some networks.
        cpu_only: Whether ``auto`` must be the CPU.

    Raises:
        UsageError: no device has this name, or ``gpu`` is asked for and there is none (``device``).
    """
    check_name(name)
    if name == "auto":
        return "cuda" if not cpu_only and cuda_devices() else "cpu"
    if name == "gpu":
        if cuda_devices():
            return "cuda"
        if _has_mps():
            return "mps"
        raise _no_device(name, "use cpu, or install the GPU's driver and a torch that was built for it")
    return name


def check_name(name: str) -> None:
    """Refuses what is not the name of a device.

    Raises:
        UsageError: no device has this name (``device``).
    """
    if not _NAME.fullmatch(name):
        raise _no_device(name, "give auto, cpu, gpu, cuda, cuda:1 or mps")


def checked(device: str) -> str:
    """The device, if it can be used; torch is only imported for devices other than the CPU.

    Raises:
        UsageError: there is no such device (``device``).
    """
    if device == "cpu":
        return device
    torch = import_module("torch")
    try:
        torch.empty(0, device=torch.device(device))
    except (RuntimeError, AssertionError) as error:
        usable = ["cpu", *(f"cuda:{number}" for number in range(cuda_devices()))]
        remedy = f"use {' or '.join(usable)}"
        raise _no_device(device, remedy, _why(str(error))) from None
    return device


def _why(said: str) -> str:
    """Why torch cannot use a device: in plain words, or the whole line that torch says."""
    if any(words in said for words in _NOT_BUILT):
        return "the installed torch was not built for it"
    return "no GPU has this number" if "invalid device ordinal" in said else said.split("\n", 1)[0]


def cuda_devices() -> int:
    """Number of devices that torch calls CUDA, which includes AMD's."""
    if not _may_have_cuda():
        return 0
    cuda = import_module("torch").cuda
    return int(cuda.device_count()) if cuda.is_available() else 0


def described(device: str) -> str:
    """The name of a device for people, such as ``cuda:0 (NVIDIA H200)``; torch must have been imported."""
    torch = sys.modules.get("torch")
    if torch is None or not device.startswith("cuda"):
        return device
    number = int(device.partition(":")[2] or 0)
    return f"cuda:{number} ({torch.cuda.get_device_name(number)})"


def _may_have_cuda() -> bool:
    if "torch" in sys.modules:
        return True
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return False
    try:
        if version("torch").endswith("+cpu"):
            return False
    except PackageNotFoundError:
        return False
    return platform.system() == "Windows" or any(Path(driver).exists() for driver in _DRIVERS)


def _has_mps() -> bool:
    return platform.system() == "Darwin" and bool(import_module("torch").backends.mps.is_available())


def _no_device(name: str, remedy: str, why: str = "") -> UsageError:
    return UsageError(
        f"no device {name!r}{why and f': {why}'}", where="device", remedy=remedy, reason="device"
    )
