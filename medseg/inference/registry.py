"""What segments a scan, by name or file: a model, or thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from medseg.images.label import Label
from medseg.images.volume import Mask, Volume
from medseg.inference.prediction import PreparedScan
from medseg.inference.threshold_segmenter import ThresholdSegmenter

DEFAULT = "lung_ct"
"""The model that is used where none is named."""


class SegmentationMethod(Protocol):
    """Whatever gives the mask of a scan, on exactly its grid: a model, or thresholds.

    Attributes:
        name: Of the recipe or method, as outputs name it.
        labels: Of the masks.
        ignore_value: Integer in a truth that means unknown; None where truths have no such value.
        channels: Names of the scans of a case, in order.
        engine: What computes it, with its version, as outputs name it.
        digest: Hexadecimal SHA-256 of everything that decides the mask, as outputs name it.
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

    def __call__(self, scan: Volume | Sequence[Volume]) -> Mask:
        """The mask of one scan: :meth:`prepare` and ``predict`` in one call.

        Args:
            scan: A volume, or one volume a channel, all on one grid.

        Raises:
            InputRefused: the scan does not suit the method, for example by its channels or modality.
        """
        ...

    def prepare(self, scan: Volume | Sequence[Volume]) -> PreparedScan:
        """The scan checked and prepared, which can be done while another one is segmented.

        Args and errors as in :meth:`__call__`.
        """
        ...


def load_segmenter(
    name: str | Path | None = None,
    *,
    device: str = "cpu",
    engine: str = "auto",
    any_modality: bool = False,
) -> SegmentationMethod:
    """What segments scans: a model that is loaded once, or ``threshold``.

    Args:
        name: ``threshold``, a model file, or the name of a model; `DEFAULT` if None.
        device: Where a network runs, as torch names it.
        engine: What runs it: ``auto`` or a row of :data:`medseg.inference.backends.REGISTRY`.
        any_modality: Take scans that say they are of another modality.

    Raises:
        UsageError: no such model, device or engine.
        ModelRefused: the model file is damaged or does not fit.

    Example:
        >>> segment = medseg.load_segmenter("threshold")
        >>> mask = segment(medseg.read("chest.nii.gz"))
        >>> mask.grid
        Grid(98 x 76 x 67 voxels, 4 x 4 x 5 mm, LPS)
    """
    if str(name) == ThresholdSegmenter.name:
        return ThresholdSegmenter(any_modality=any_modality)
    from medseg.inference.segmenter import Segmenter

    return Segmenter(name or DEFAULT, device=device, engine=engine, any_modality=any_modality)
