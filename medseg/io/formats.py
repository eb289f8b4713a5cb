"""The table of file formats and their suffixes; add a row here to support a new one.

DICOM files are recognised by content, not by name (`medseg.io.dicom.part10`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from medseg.images.volume import Mask, Volume
    from medseg.io.read_options import ReadOptions

    Reader: TypeAlias = Callable[[Path, ReadOptions], Volume]
    Writer: TypeAlias = Callable[[Volume | Mask, Path], None]


@dataclass(frozen=True)
class Format:
    """A file format: its name, reader and writer."""

    name: str
    read: Reader
    write: Writer


@dataclass(frozen=True)
class Suffix:
    """The kind of file that a suffix stands for.

    Attributes:
        format: The file format.
        writable: Whether files with this suffix can be written.
        part: Whether such a file holds the whole image, the header, or only the voxels.
        partners: Possible suffixes of the other file of a pair; empty if the header names that file.
        packed: Whether the whole file is compressed with gzip.
    """

    format: Format
    writable: bool = True
    part: Literal["whole", "header", "voxels"] = "whole"
    partners: tuple[str, ...] = ()
    packed: bool = False


def _late(place: str) -> Callable[..., Any]:
    """The function at ``module:name``; its module is imported at the first call."""
    module, _, name = place.partition(":")

    def call(*args: Any) -> Any:
        return getattr(import_module(module), name)(*args)

    return call


NIFTI = Format("nifti", _late("medseg.io.nifti:read"), _late("medseg.io.nifti:write"))
NRRD = Format("nrrd", _late("medseg.io.itk:read_nrrd"), _late("medseg.io.itk:write"))
METAIMAGE = Format("mha", _late("medseg.io.itk:read_metaimage"), _late("medseg.io.itk:write"))

PNG = Format("png", _late("medseg.io.picture.reader:read"), _late("medseg.io.picture.writer:write_png"))
JPEG = Format("jpeg", _late("medseg.io.picture.reader:read"), _late("medseg.io.picture.writer:refuse_jpeg"))
TIFF = Format("tiff", _late("medseg.io.picture.reader:read"), _late("medseg.io.picture.writer:write_tiff"))

SUFFIXES: dict[str, Suffix] = {
    ".nii.gz": Suffix(NIFTI, packed=True),
    ".nii": Suffix(NIFTI),
    ".hdr": Suffix(NIFTI, part="header", partners=(".img", ".img.gz")),
    ".img": Suffix(NIFTI, part="voxels", partners=(".hdr", ".hdr.gz")),
    ".hdr.gz": Suffix(NIFTI, writable=False, part="header", partners=(".img.gz", ".img"), packed=True),
    ".img.gz": Suffix(NIFTI, writable=False, part="voxels", partners=(".hdr.gz", ".hdr"), packed=True),
    ".nrrd": Suffix(NRRD),
    ".nhdr": Suffix(NRRD, part="header"),
    ".mha": Suffix(METAIMAGE),
    ".mhd": Suffix(METAIMAGE, part="header"),
}
"""All suffixes, in lower case; a new one comes after those of its format that other libraries know."""

PICTURES: dict[str, Suffix] = {
    ".png": Suffix(PNG),
    ".tif": Suffix(TIFF),
    ".tiff": Suffix(TIFF),
    ".jpg": Suffix(JPEG, writable=False),  # changes the values of pixels
    ".jpeg": Suffix(JPEG, writable=False),
}
"""The suffixes of pictures of one plane. Folders with scans keep such files for other purposes, so that they
count as images only where there are no scans, or for models of pictures."""

FORMATS: dict[str, Format] = {ending: row.format for ending, row in SUFFIXES.items() if row.writable}
"""The writable formats by suffix."""

DICOM = (".dcm", ".dicom", ".ima")
"""Suffixes of DICOM files, which often have none; masks are written with the first one."""

DicomFormat: TypeAlias = Literal["dicom-seg", "rtstruct"]
"""The kinds of DICOM object that a mask can be written as."""

# The first is the default.
DICOM_FORMATS: dict[str, Callable[[Mask, Path], None]] = {
    "dicom-seg": _late("medseg.io.dicom.seg:write"),
    "rtstruct": _late("medseg.io.dicom.rtstruct:write"),
}

NOT_BARE_DICOM = (*SUFFIXES, ".gz", ".raw", ".zraw", ".rec")
"""Suffixes of other formats whose first voxels may look like a DICOM data set without preamble."""


def ending(path: Path) -> str | None:
    """The known suffix that the name ends in, in lower case; None if there is none."""
    name = path.name.lower()
    return next((each for each in SUFFIXES if name.endswith(each)), None)


def picture_ending(path: Path) -> str | None:
    """The suffix of a picture (PNG, JPEG, TIFF) that the name ends in, in lower case; else None."""
    suffix = path.suffix.lower()
    return suffix if suffix in PICTURES else None


def writable_format(path: Path) -> Format | None:
    """The format of a file of this name, if it can be written; None for DICOM and unknown suffixes."""
    row = SUFFIXES.get(ending(path) or "") or PICTURES.get(picture_ending(path) or "")
    return row.format if row is not None and row.writable else None


def mask_ending(scan: Path) -> str:
    """The suffix of a scan's mask: PNG for pictures, else NIfTI."""
    return ".png" if picture_ending(scan) else ".nii.gz"


def common_ending(path: Path) -> str:
    """A suffix that other libraries know: a single file's is the first of its format."""
    known = ending(path) or path.suffix.lower()
    row = SUFFIXES.get(known)
    if row is None or row.part != "whole":
        return known
    return next(each for each, other in SUFFIXES.items() if other == row)


def stem(path: Path) -> str:
    """The name without its suffix; ``.nii.gz`` counts as one suffix."""
    known = ending(path)
    return path.name[: -len(known)] if known else path.stem


def partner(path: Path) -> Path | None:
    """The other file of a pair such as ``a.hdr`` and ``a.img``; None if it does not exist."""
    known = ending(path)
    endings = SUFFIXES[known].partners if known else ()
    others = (path.with_name(stem(path) + each) for each in (*endings, *map(str.upper, endings)))
    return next((other for other in others if other.exists()), None)


def is_packed(path: Path) -> bool:
    """Whether the name is that of a file that is compressed as a whole."""
    known = ending(path)
    return known is not None and SUFFIXES[known].packed


def is_split(path: Path) -> bool:
    """Whether the name is that of a header or of voxels without a header: one file of several."""
    known = ending(path)
    return known is not None and SUFFIXES[known].part != "whole"


def is_image(path: Path) -> bool:
    """Whether the name is that of a scan or a mask; for a pair, only the header counts."""
    known = ending(path)
    return known is not None and (SUFFIXES[known].part != "voxels" or partner(path) is None)


def is_dicom_output(path: Path) -> bool:
    """Whether a mask of this name is written as DICOM."""
    return path.name.lower().endswith(DICOM[0])


def endings(format: Format) -> str:
    """The suffixes of a format's single files and headers, for messages."""
    return " or ".join(
        each for each, row in SUFFIXES.items() if row.format is format and row.writable and not row.partners
    )
