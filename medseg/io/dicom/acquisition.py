"""How a CT was acquired and reconstructed, as far as its DICOM header says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medseg.errors import printable
from medseg.images.volume import Source
from medseg.io.dicom import part10

_TAGS = (
    "SliceThickness",
    "ConvolutionKernel",
    "ContrastBolusAgent",
    "ContrastBolusAgentSequence",
    "SharedFunctionalGroupsSequence",
)
_LONGEST = 64


@dataclass(frozen=True)
class Acquisition:
    """Facts of a header; None where it does not say. Never patient data.

    Attributes:
        slice_thickness_mm: SliceThickness (0018,0050), which may differ from the distance of the slices.
        kernel: ConvolutionKernel (0018,1210), several values separated by a blank.
        contrast_agent: Whether ContrastBolusAgent (0018,0010) names one.
    """

    slice_thickness_mm: float | None = None
    kernel: str | None = None
    contrast_agent: bool | None = None


def acquisition_of(source: Source) -> Acquisition:
    """The facts in the first file of a DICOM scan; of other formats and damaged headers nothing."""
    if source.format != "dicom" or not source.files:
        return Acquisition()
    try:
        header = part10.header(source.files[0], _TAGS)
        shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
        thickness = header.get("SliceThickness") or _within(shared, "PixelMeasuresSequence", "SliceThickness")
        kernel = header.get("ConvolutionKernel") or _within(
            shared, "CTReconstructionSequence", "ConvolutionKernel"
        )
        words = [kernel] if isinstance(kernel, str) else list(kernel or ())
        agent = str(header.get("ContrastBolusAgent") or "").strip().lower()
        return Acquisition(
            None if thickness is None else float(thickness),
            printable(" ".join(str(word).strip() for word in words))[:_LONGEST] or None,
            agent not in ("", "none", "no") or bool(header.get("ContrastBolusAgentSequence")),
        )
    except Exception:  # the scan has been read; what else its header says is not worth an error
        return Acquisition()


def _within(group: Any, sequence: str, name: str) -> Any:
    items = None if group is None else group.get(sequence)
    return items[0].get(name) if items else None
