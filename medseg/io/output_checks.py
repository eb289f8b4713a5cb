"""Whether an output can be written, asked before long work; nothing large is imported for it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from medseg.errors import ResourceError, UsageError
from medseg.io import formats
from medseg.system import atomic_write

_PICTURES = [suffix for suffix, row in formats.PICTURES.items() if row.writable]


def check_writable(path: str | Path, format: str | None = None) -> str:
    """The name of the format of an output; call it before long work, which would otherwise be lost.

    Raises:
        UsageError: unknown suffix or format (``format``) or missing folder (``no-folder``).
        ResourceError: highdicom is not installed (``missing-extra``).
    """
    path = Path(path)
    form = formats.writable_format(path)
    is_dicom = formats.is_dicom_output(path)
    if form is None and not is_dicom:
        raise UsageError(
            f"no format has the suffix of {path.name!r}",
            where=path,
            remedy=f"use one of {', '.join(formats.FORMATS)}, {', '.join(_PICTURES)} for a picture, or "
            f"{formats.DICOM[0]} for a mask",
            reason="format",
        )
    atomic_write.check_folder(path)
    if format is not None and (not is_dicom or format not in formats.DICOM_FORMATS):
        raise UsageError(
            f"{path.name!r} cannot have the format {format!r}",
            where=path,
            remedy=f"{formats.DICOM[0]} files have {' or '.join(formats.DICOM_FORMATS)}; "
            "else the suffix decides",
            reason="format",
        )
    if form is not None:
        return form.name
    name = format or next(iter(formats.DICOM_FORMATS))
    if name == "dicom-seg":
        check_highdicom()
    return name


def check_highdicom() -> None:
    """Refuses early if highdicom, which writes SEG, is not installed.

    Raises:
        ResourceError: highdicom is missing (``missing-extra``).
    """
    if find_spec("highdicom") is None:
        raise ResourceError(
            "DICOM SEG is written with highdicom, which is not installed",
            remedy="pip install 'medseg[dicom]'",
            reason="missing-extra",
        )
