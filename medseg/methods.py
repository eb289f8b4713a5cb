"""What segments a scan, by name or file: a model, or thresholds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from medseg.label import Label
from medseg.threshold import Threshold
from medseg.volume import Mask, Volume

DEFAULT = "lung_ct"
"""The model that is used where none is named."""


class Method(Protocol):
    """Gives the mask of a scan, on exactly its grid; :meth:`ready` does what can be done ahead.

    Attributes:
        name: Told in outputs.
        labels: Of the masks.
        ignore_value: Integer in a truth that means unknown.
        channels: Names of the scans of a case, in order.
        engine: What computes it, with its version; told in outputs.
        digest: Hexadecimal SHA-256 of what decides the mask; told in outputs.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def labels(self) -> tuple[Label, ...]: ...  # noqa: D102

    @property
    def channels(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def digest(self) -> str: ...  # noqa: D102

    @property
    def engine(self) -> str: ...  # noqa: D102

    @property
    def ignore_value(self) -> int | None: ...  # noqa: D102

    def __call__(self, scan: Volume | Sequence[Volume]) -> Mask: ...  # noqa: D102

    def ready(self, scan: Volume | Sequence[Volume]) -> Callable[[], Mask]: ...  # noqa: D102


def method(
    name: str | Path | None = None,
    *,
    device: str = "cpu",
    engine: str = "auto",
    any_modality: bool = False,
) -> Method:
    """The method of a name.

    Args:
        name: ``threshold``, or a model as :func:`medseg.model.find` takes it; `DEFAULT` if None.
        device: Where a network runs, as torch names it.
        engine: What runs it: ``auto`` or a row of :data:`medseg.engines.KINDS`.
        any_modality: Take scans that say they are of another modality.

    Raises:
        UsageError: no such model, device or engine.
        ModelRefused: the model file is damaged or does not fit.
    """
    if str(name) == Threshold.name:
        return Threshold(any_modality=any_modality)
    from medseg.segmenter import Segmenter

    return Segmenter(name or DEFAULT, device=device, engine=engine, any_modality=any_modality)
