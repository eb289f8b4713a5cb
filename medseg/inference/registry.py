"""Loading the method that segments a scan, by name or file: a model, or thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from medseg.images.label import Label
from medseg.images.volume import Mask, Volume
from medseg.inference.prediction import PreparedScan
from medseg.inference.threshold_segmenter import ThresholdSegmenter

DEFAULT = "lung_ct_context"
"""The model that is used if none is named."""


class SegmentationMethod(Protocol):
    """A model or another method that makes the mask of a scan, on exactly the scan's grid.

    Attributes:
        name: Name of the recipe or method, as written to outputs.
        labels: Labels of the masks.
        ignore_value: The integer that means "unknown" in reference masks; None if there is none.
        channels: Names of the scans of a case, in order.
        engine: The engine that runs it, with its version, as written to outputs.
        digest: Hexadecimal SHA-256 of everything that decides the mask, as written to outputs.
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
            scan: A volume, or one volume per channel, all on one grid.

        Raises:
            InputRefused: the method cannot segment the scan, for example because of its channels or modality.
        """
        ...

    def prepare(self, scan: Volume | Sequence[Volume], roi: Sequence[str] = ()) -> PreparedScan:
        """The scan, checked and prepared; this may happen while another scan is being segmented.

        Errors as in :meth:`__call__`.

        Args:
            scan: See :meth:`__call__`.
            roi: Names of the labels that will be used; all if empty. The method may leave out the voxels of
                others; those of the labels that are named are the same as without names.
        """
        ...


def load_segmenter(
    name: str | Path | None = None,
    *,
    device: str = "auto",
    engine: str = "auto",
    any_modality: bool = False,
) -> SegmentationMethod:
    """A method ready to segment scans: a model, loaded once for all of them, or ``threshold``.

    Args:
        name: ``threshold``, a model file, or the name of a model; `DEFAULT` if None.
        device: Device of the network, as for :class:`medseg.Segmenter`.
        engine: Engine of the network: ``auto`` or a key of :data:`medseg.inference.backends.REGISTRY`.
        any_modality: Skip the checks that the scan has the model's modality, and that CT is in HU.

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
