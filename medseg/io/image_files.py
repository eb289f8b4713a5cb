"""Files that belong to an image beside the one that names it."""

from __future__ import annotations

from pathlib import Path

from medseg.errors import MedsegError
from medseg.io import formats
from medseg.io.itk import text_header


def data_files(image: Path) -> tuple[Path, ...]:
    """The files that a text header (``.mhd``, ``.nhdr``) names as holding the voxels; usually none."""
    parsers = {formats.NRRD: text_header.nrrd, formats.METAIMAGE: text_header.metaimage}
    row = formats.SUFFIXES.get(formats.ending(image) or "")
    parse = parsers.get(row.format) if row else None
    if parse is None:
        return ()
    try:
        return tuple(file for file in parse(image).files if file != image)
    except MedsegError:  # the reader reports what is wrong with the header
        return ()
