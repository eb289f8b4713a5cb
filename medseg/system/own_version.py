"""The version of medseg that is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def own_version() -> str:
    """The version of the distribution ``medseg``, or of ``medseg-runtime``, which is the same without torch.

    Raises:
        PackageNotFoundError: neither is installed.
    """
    try:
        return version("medseg")
    except PackageNotFoundError:
        return version("medseg-runtime")
