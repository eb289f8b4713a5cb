"""Reading scans and writing masks: one table of formats, one place where conventions are converted.

Everything that leaves this package has arrays (X, Y, Z) and world coordinates in RAS+ mm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.errors import InputRefused, UsageError
from medseg.io import atomic, dicom, foreign, itk, nifti, place
from medseg.io.choices import NO_CHOICES, Choices, Trust
from medseg.io.dicom import Series, list_series
from medseg.io.dicom_writer import write_dicom_series
from medseg.label import Label
from medseg.volume import Mask, Volume

__all__ = [
    "FORMATS",
    "NO_CHOICES",
    "Choices",
    "Format",
    "Series",
    "check_writable",
    "list_series",
    "read",
    "read_channels",
    "read_mask",
    "write",
    "write_dicom_series",
]

_SAME_GRID_MM = 0.01


@dataclass(frozen=True)
class Format:
    """How files of one suffix are read and written."""

    name: str
    read: Callable[[Path, Choices], Volume]
    write: Callable[[Volume | Mask, Path], None]


_NIFTI = Format("nifti", nifti.read, nifti.write)
_NRRD = Format("nrrd", itk.read_nrrd, itk.write)
_METAIMAGE = Format("mha", itk.read_metaimage, itk.write)

FORMATS: dict[str, Format] = {
    ".nii.gz": _NIFTI,
    ".nii": _NIFTI,
    ".hdr": _NIFTI,
    ".img": _NIFTI,
    ".nrrd": _NRRD,
    ".nhdr": _NRRD,
    ".mha": _METAIMAGE,
    ".mhd": _METAIMAGE,
}
_READ_ONLY = {".hdr.gz": _NIFTI, ".img.gz": _NIFTI}


def read(
    path: str | Path,
    *,
    series: str | None = None,
    volume: int | None = None,
    trust: Trust | None = None,
    nonfinite: float | None = None,
) -> Volume:
    """The scan at ``path``, on its own grid, intensities in its own unit (HU for CT).

    Args:
        path: NIfTI (.nii, .nii.gz, .hdr/.img), NRRD (.nrrd, .nhdr), MetaImage (.mha, .mhd), a
            folder with a DICOM series, or any file of one, whatever its suffix.
        series: For DICOM: the SeriesInstanceUID to read, or an ending of it that only one
            series in the folder has.
        volume: Which of several volumes in one series or file (phases, echoes, time points),
            counted from 1.
        trust: For NIfTI: the form to believe where ``sform`` and ``qform`` disagree, or
            ``pixdim`` where neither is set: voxel sizes along R, A and S.
        nonfinite: What NaN and infinite voxels become; they are refused without it.

    Raises:
        InputRefused: the scan cannot be read, or reading it would mean guessing. The readers
            in `medseg.io.nifti`, `medseg.io.itk` and `medseg.io.dicom` list their reasons;
            here ``not-found``, ``empty`` and ``format`` are added.
    """
    return _read(path, Choices(series, volume, trust, nonfinite))


def _read(path: str | Path, choices: Choices) -> Volume:
    path = place.existing(path)
    if path.is_dir():
        return _read_folder(path, choices)
    if dicom.is_dicom(path):
        return dicom.read(path, choices)
    return _format(path).read(path, choices)


def _read_folder(path: Path, choices: Choices) -> Volume:
    try:
        return dicom.read(path, choices)
    except InputRefused as error:
        if error.reason == "no-scan" and (_suffix(path) or path.suffix.lower() == ".gz"):
            error.problem = f"a folder, though its name ends like a file's ({path.suffix}): {error.problem}"
        raise


def read_channels(
    paths: Sequence[str | Path], *, channels: int = 1, choices: Choices = NO_CHOICES
) -> tuple[Volume, ...]:
    """One volume a channel, all on the same grid.

    Args:
        paths: One path for each channel; or a single 4D NIfTI file whose 4th dimension is
            ``channels`` (as in the Medical Segmentation Decathlon).
        channels: How many the model needs.
        choices: What the user decided where a file leaves it open: see :func:`read`.

    Raises:
        UsageError: the number of paths does not fit (``channel-count``).
        InputRefused: the channels lie on different grids (``grid-mismatch``), or as `read`.
    """
    if len(paths) == 1 and channels > 1:
        only = place.existing(paths[0])
        if only.is_file() and not dicom.is_dicom(only) and _format(only) is _NIFTI:
            return nifti.read_channels(only, choices, channels=channels)
    if len(paths) != channels:
        raise UsageError(
            f"{channels} channel(s) are needed, {len(paths)} path(s) were given",
            remedy="pass one path for each channel, or one 4D NIfTI file",
            reason="channel-count",
        )
    volumes = tuple(_read(path, choices) for path in paths)
    for path, volume in zip(paths[1:], volumes[1:], strict=True):
        apart = volume.grid.distance_mm(volumes[0].grid)
        if apart > _SAME_GRID_MM:
            raise InputRefused(
                f"{volume.grid} is not the grid of {paths[0]}: {volumes[0].grid}, {apart:.3g} mm apart",
                where=path,
                remedy="register and resample the channels to one grid first",
                reason="grid-mismatch",
            )
    return volumes


def read_mask(path: str | Path, labels: Sequence[Label]) -> Mask:
    """The label map at ``path``, in any image format, with the meaning of its values.

    Args:
        path: As for :func:`read`. Floats are accepted when all of them are whole numbers.
        labels: What the values mean. Values without a label are kept.

    Raises:
        InputRefused: values with a fraction (``mask-dtype``) or outside 0..65535
            (``mask-range``), or as `read`.
    """
    volume = read(path)
    array = volume.array
    if array.dtype.kind == "f":
        whole = np.rint(array)
        odd = int(np.count_nonzero(whole != array))
        if odd:
            raise InputRefused(
                f"{odd} of {array.size} voxels have a fraction: not a label map",
                where=path,
                remedy="pass the mask itself, not the scan or probabilities; resample with nearest neighbour",
                reason="mask-dtype",
            )
        # Clipped so that absurd values survive the cast and are refused by their range.
        array = np.clip(whole, -1, 1 << 20).astype(np.int32)
    try:
        return Mask(array, volume.grid, tuple(labels), volume.source)
    except InputRefused as error:
        error.where = str(path)
        raise


def write(image: Volume | Mask, path: str | Path) -> Path:
    """Writes a scan or a mask and returns its path; the suffix chooses the format.

    The file carries exactly the grid's shape and affine. It appears whole or not at all, and
    equal images give equal bytes.

    Raises:
        UsageError: unknown suffix (``format``), missing folder (``no-folder``).
        ResourceError: the disk refuses (``disk``).
    """
    path = Path(path)
    form = check_writable(path)
    with atomic.replacing(path) as fresh:
        form.write(image, fresh)
    return path


def check_writable(path: str | Path) -> Format:
    """The format an output will have; asked before long work, so that it is not done in vain.

    Raises:
        UsageError: unknown suffix (``format``) or missing folder (``no-folder``).
    """
    path = Path(path)
    suffix = _suffix(path)
    if suffix is None:
        raise UsageError(
            f"no format has the suffix of {path.name!r}",
            where=path,
            remedy=f"use one of {', '.join(FORMATS)}",
            reason="format",
        )
    atomic.check_folder(path)
    return FORMATS[suffix]


def _suffix(path: Path) -> str | None:
    return next((s for s in FORMATS if path.name.lower().endswith(s)), None)


def _format(path: Path) -> Format:
    name = path.name.lower()
    for suffix, form in (FORMATS | _READ_ONLY).items():
        if name.endswith(suffix):
            return form
    raise foreign.refusal(path, place.head(path), ", ".join(FORMATS))
