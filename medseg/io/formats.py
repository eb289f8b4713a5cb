"""The one table of file formats and of the suffixes their files have: a new one is a row here.

Names decide nothing about DICOM, whose files are known by their content (`medseg.io.dicom.part10`).
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
    """How the files of a format are read and written."""

    name: str
    read: Reader
    write: Writer


@dataclass(frozen=True)
class Suffix:
    """What a file holds whose name ends in this suffix.

    Attributes:
        format: How it is read and written.
        writable: Whether files with it are written, too.
        part: The whole image, its header, or its voxels alone.
        partners: Suffixes the other file of a pair may have; none where the header names that file.
    """

    format: Format
    writable: bool = True
    part: Literal["whole", "header", "voxels"] = "whole"
    partners: tuple[str, ...] = ()


def _late(place: str) -> Callable[..., Any]:
    """The function at ``module:name``, whose module is imported by its first call."""
    module, _, name = place.partition(":")

    def call(*args: Any) -> Any:
        return getattr(import_module(module), name)(*args)

    return call


NIFTI = Format("nifti", _late("medseg.io.nifti:read"), _late("medseg.io.nifti:write"))
NRRD = Format("nrrd", _late("medseg.io.itk:read_nrrd"), _late("medseg.io.itk:write"))
METAIMAGE = Format("mha", _late("medseg.io.itk:read_metaimage"), _late("medseg.io.itk:write"))

SUFFIXES: dict[str, Suffix] = {
    ".nii.gz": Suffix(NIFTI),
    ".nii": Suffix(NIFTI),
    ".hdr": Suffix(NIFTI, part="header", partners=(".img", ".img.gz")),
    ".img": Suffix(NIFTI, part="voxels", partners=(".hdr", ".hdr.gz")),
    ".hdr.gz": Suffix(NIFTI, writable=False, part="header", partners=(".img.gz", ".img")),
    ".img.gz": Suffix(NIFTI, writable=False, part="voxels", partners=(".hdr.gz", ".hdr")),
    ".nrrd": Suffix(NRRD),
    ".nhdr": Suffix(NRRD, part="header"),
    ".mha": Suffix(METAIMAGE),
    ".mhd": Suffix(METAIMAGE, part="header"),
}
"""By the ending of a name in lower case."""

FORMATS: dict[str, Format] = {ending: row.format for ending, row in SUFFIXES.items() if row.writable}
"""The format that is written, by suffix."""

DICOM = (".dcm", ".dicom", ".ima")
"""Suffixes of DICOM files, which often have none; the first is the one that masks are written with."""

NOT_BARE_DICOM = (*SUFFIXES, ".gz", ".raw", ".zraw", ".rec")
"""Other formats, whose first voxels may look like a DICOM data set without preamble."""


def ending(path: Path) -> str | None:
    """The suffix of the table that the name ends in, in lower case; None for any other name."""
    name = path.name.lower()
    return next((each for each in SUFFIXES if name.endswith(each)), None)


def stem(path: Path) -> str:
    """The name without its suffix, ``.nii.gz`` taken as one."""
    known = ending(path)
    return path.name[: -len(known)] if known else path.stem


def partner(path: Path) -> Path | None:
    """The other file of a pair such as ``a.hdr`` and ``a.img``, if it is there."""
    known = ending(path)
    endings = SUFFIXES[known].partners if known else ()
    others = (path.with_name(stem(path) + each) for each in (*endings, *map(str.upper, endings)))
    return next((other for other in others if other.exists()), None)


def is_split(path: Path) -> bool:
    """Whether the name is that of one file of several: a header, or voxels alone."""
    known = ending(path)
    return known is not None and SUFFIXES[known].part != "whole"


def is_image(path: Path) -> bool:
    """Whether the name is that of a scan or a mask; of a pair, only the header's is."""
    known = ending(path)
    return known is not None and (SUFFIXES[known].part != "voxels" or partner(path) is None)


def is_dicom_output(path: Path) -> bool:
    """Whether a mask of this name is written as DICOM."""
    return path.name.lower().endswith(DICOM[0])


def endings(format: Format) -> str:
    """The suffixes that single files and headers of a format have, for a message."""
    return " or ".join(
        each for each, row in SUFFIXES.items() if row.format is format and row.writable and not row.partners
    )
