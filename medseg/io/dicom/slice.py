"""One image slice of a DICOM series, as its header describes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.uid import UID

from medseg.io.dicom import sop_classes

# Two slices belong to one stack when their cosines agree to 1e-4: 0.03 mm at 300 mm. Scanners
# write 6 digits and more; a localizer in the same series differs in the first.
_SAME_COSINE = 1e-4


@dataclass(frozen=True)
class Slice:
    """The header of one image slice: a file, or one frame of a file.

    Attributes:
        path: The file.
        frame: Index in a multi-frame file or a mosaic; None for a file with one slice.
        tiles: Number of tiles along each side of a mosaic; 0 for other images.
        sop_class: SOPClassUID, the kind of object.
        series: SeriesInstanceUID.
        subject: Digests of the patient's, the study's and the frame of reference's identifiers,
            by these names.
        modality: Such as ``CT``, ``MR``, ``SEG``.
        columns: Pixels along a row.
        rows: Pixels along a column.
        frames: NumberOfFrames of the file, 1 when absent.
        samples: SamplesPerPixel, 1 when absent.
        photometric: PhotometricInterpretation.
        image_type: ImageType, such as ``("ORIGINAL", "PRIMARY", "AXIAL")``.
        number: InstanceNumber, or None.
        position_mm: ImagePositionPatient in LPS, or None.
        cosines: ImageOrientationPatient in LPS, or None.
        spacing_mm: PixelSpacing, (between rows, between columns), or None.
        depth_mm: SpacingBetweenSlices, else SliceThickness, else None.
        rescale: RescaleSlope and RescaleIntercept; each None if absent.
        has_lut: Whether intensities are given by a table (Modality LUT).
        marks: Attributes that may distinguish volumes of one series, as text.
        instance: SOPInstanceUID; without one, the path.
        oddities: Elements that are not written as DICOM prescribes: see `element_values.oddities`.
        parts: Number of files that hold the frames (PS3.3 C.7.6.16.2.2.4); usually one.
    """

    path: Path
    frame: int | None
    sop_class: str
    series: str
    subject: tuple[tuple[str, str], ...]
    modality: str
    columns: int
    rows: int
    frames: int
    samples: int
    photometric: str
    image_type: tuple[str, ...]
    number: int | None
    position_mm: tuple[float, ...] | None
    cosines: tuple[float, ...] | None
    spacing_mm: tuple[float, ...] | None
    depth_mm: float | None
    rescale: tuple[float | None, float | None]
    has_lut: bool
    marks: tuple[tuple[str, str], ...]
    tiles: int = 0
    parts: int = 1
    instance: str = ""
    oddities: tuple[str, ...] = ()

    @property
    def is_image(self) -> bool:
        """Whether this is a slice of a scan: it has pixels and is not a segmentation or a dose."""
        return self.rows > 0 and self.columns > 0 and self.sop_class not in sop_classes.NOT_SCANS

    @property
    def is_localizer(self) -> bool:
        """Whether this is a localizer (scout): a projection or a few crossed slices for planning."""
        return "LOCALIZER" in self.image_type

    @property
    def kind(self) -> str:
        """The name of its SOP class, such as ``RT Structure Set Storage``."""
        return str(UID(self.sop_class).name) or "object of unknown class"

    @property
    def name(self) -> str:
        """The file name, with the frame number counted from 1."""
        return self.path.name if self.frame is None else f"{self.path.name} frame {self.frame + 1}"

    def stacks_with(self, other: Slice) -> bool:
        """Whether both can belong to one volume: same series, modality, size and orientation."""
        same = (self.series, self.modality, self.rows, self.columns) == (
            other.series,
            other.modality,
            other.rows,
            other.columns,
        )
        return (
            same
            and _near(self.cosines, other.cosines, _SAME_COSINE)
            and _near(self.spacing_mm, other.spacing_mm, _SAME_COSINE)
        )


def _near(a: Sequence[float] | None, b: Sequence[float] | None, tolerance: float) -> bool:
    if a is None or b is None:
        return a is b
    return max(abs(x - y) for x, y in zip(a, b, strict=True)) <= tolerance
