"""DICOM: a series of single-frame slices in one folder becomes a volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medseg.errors import InputRefused
from medseg.io.choices import NO_CHOICES, Choices
from medseg.io.intensity import narrowed, rescaled
from medseg.io.refusal import first_line
from medseg.io.slices import Slice, header, is_dicom, scan, stack
from medseg.volume import Source, Volume, Voxels

__all__ = ["Series", "is_dicom", "list_series", "read"]


@dataclass(frozen=True)
class Series:
    """The image slices in a folder that share series, modality, size and orientation.

    Attributes:
        uid: SeriesInstanceUID.
        modality: Such as ``CT`` or ``MR``.
        slices: Number of files.
        shape: (columns, rows, slices).
        files: Sorted by name. No patient data and no free text is kept.
    """

    uid: str
    modality: str
    slices: int
    shape: tuple[int, int, int]
    files: tuple[Path, ...]

    def __str__(self) -> str:
        return f"{self.uid} ({self.modality}, {self.slices} slices, {' x '.join(map(str, self.shape))})"


def list_series(path: str | Path) -> tuple[Series, ...]:
    """The image series in a folder, or in the folder of a file; the largest first.

    Objects that are not scans (SEG, RTSTRUCT, reports, dose) are passed over; a series whose
    slices differ in size or orientation is listed once for each kind.

    Raises:
        InputRefused: the path does not exist (``not-found``), or a header is damaged
            (``unreadable``).
    """
    path = Path(path)
    if not path.exists():
        raise InputRefused("no such file or folder", where=path, reason="not-found")
    return tuple(_series(group) for group in _groups(scan(path if path.is_dir() else path.parent)))


def read(path: Path, choices: Choices = NO_CHOICES) -> Volume:
    """The series at ``path`` as one volume, intensities rescaled (HU for CT), world RAS+ mm.

    Args:
        path: A folder, or any file of a series, which stands for all files of that series in
            its folder.
        choices: ``series`` and ``volume``.

    Raises:
        InputRefused: nothing to read (``no-scan``), a choice to make (``several-series``,
            ``no-series``), slices that do not form a regular volume (``inconsistent`` and the
            reasons of `medseg.io.slices.stack`), kinds not supported (``multi-frame``,
            ``mosaic``, ``pixel-type``, ``modality-lut``), damaged pixels (``unreadable``).
    """
    series = choices.series
    if path.is_file() and series is None:
        one = header(path)
        if one is None or not one.is_image:
            kind = "without a series" if one is None else one.kind
            raise InputRefused(f"not a scan: a DICOM object {kind}", where=path, reason="no-scan")
        series = one.series
    folder = path if path.is_dir() else path.parent
    try:
        slices = _chosen(scan(folder), series, folder)
        for one in slices:
            _check(one)
        ordered, grid = stack(slices)
        source = Source(path, "dicom", ordered[0].modality)
        return Volume(_voxels(ordered), grid, source)
    except InputRefused as error:
        error.where = error.where or str(path)
        raise


def _groups(slices: Sequence[Slice]) -> list[list[Slice]]:
    """The images, put together with those they can form a volume with; the largest group first."""
    groups: list[list[Slice]] = []
    for one in slices:
        if not one.is_image:
            continue
        home = next((g for g in groups if g[0].stacks_with(one)), None)
        if home is None:
            groups.append([one])
        else:
            home.append(one)
    return sorted(groups, key=lambda g: (-len(g), g[0].series))


def _chosen(slices: Sequence[Slice], wanted: str | None, folder: Path) -> list[Slice]:
    """The slices of the one series that is meant."""
    groups = _groups(slices)
    if not groups:
        raise _no_scan(slices, folder)
    listed = "; ".join(str(_series(group)) for group in groups)
    uids = {group[0].series for group in groups}
    if wanted is not None:
        uids = {wanted} & uids or {uid for uid in uids if uid.endswith(wanted)}
        if not uids:
            raise InputRefused(
                f"no series ends in {wanted!r}", reason="no-series", remedy=f"choose one of: {listed}"
            )
    if len(uids) > 1:
        raise InputRefused(
            f"{len(uids)} series match: {listed}",
            reason="several-series",
            remedy="choose one with --series UID; the last digits are enough",
        )
    matching = [group for group in groups if group[0].series in uids]
    if len(matching) > 1:
        raise InputRefused(
            f"the slices of one series differ in size, spacing or orientation: {listed}",
            reason="inconsistent",
            remedy="move the odd slices, often a localizer, out of the folder",
        )
    return matching[0]


def _no_scan(slices: Sequence[Slice], folder: Path) -> InputRefused:
    kinds = sorted({one.kind for one in slices})
    if kinds:
        return InputRefused(
            f"no scan in this folder, only {', '.join(kinds)}",
            reason="no-scan",
            remedy="pass the folder with the image series these objects refer to",
        )
    inner = sorted(f.name for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))
    return InputRefused(
        "no DICOM slices in this folder",
        reason="no-scan",
        remedy=f"pass one of its folders: {', '.join(inner[:5])}"
        if inner
        else "pass a file or a series folder",
    )


def _series(group: Sequence[Slice]) -> Series:
    first = group[0]
    shape = (first.columns, first.rows, len(group))
    return Series(first.series, first.modality, len(group), shape, tuple(one.path for one in group))


def _check(one: Slice) -> None:
    """Refuses the kinds of image that one file a slice does not describe."""
    if one.frames > 1 or "Enhanced" in one.kind:
        raise InputRefused(
            f"{one.kind} with {one.frames} frame(s) is not supported yet",
            where=one.path,
            reason="multi-frame",
            remedy="convert it to NIfTI, for example with dcm2niix",
        )
    if "MOSAIC" in one.image_type:
        raise InputRefused(
            "a Siemens mosaic, many slices in one image, is not supported",
            where=one.path,
            reason="mosaic",
            remedy="convert it to NIfTI, for example with dcm2niix",
        )
    if one.samples != 1:
        raise InputRefused(
            f"{one.samples} samples a pixel: a colour image, not a scan",
            where=one.path,
            reason="pixel-type",
            remedy="pass the original series",
        )


def _voxels(ordered: Sequence[Slice]) -> Voxels:
    """(columns, rows, slices) of rescaled intensities, in the smallest dtype that fits them all."""
    first = _pixels(ordered[0])
    voxels = np.empty((*first.shape, len(ordered)), first.dtype, order="F")
    voxels[:, :, 0] = first
    for k, one in enumerate(ordered[1:], start=1):
        pixels = _pixels(one)
        wider = np.result_type(voxels, pixels)
        if wider != voxels.dtype:
            # A mix with uint16 or float32, which only some slices needed.
            voxels = voxels.astype(np.float32 if wider.kind == "f" else wider)
        voxels[:, :, k] = pixels
    return voxels if voxels.dtype.kind == "f" else narrowed(voxels)


def _pixels(one: Slice) -> Voxels:
    """(columns, rows): one slice, decoded and rescaled."""
    try:
        ds = pydicom.dcmread(one.path, force=True)
        _check_meaning(ds)
        if "TransferSyntaxUID" not in ds.file_meta:
            # A bare data set; uncompressed then, in the encoding pydicom has found it in.
            implicit, _ = ds.original_encoding
            ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        pixels = ds.pixel_array
    except InputRefused as error:
        error.where = str(one.path)
        raise
    except Exception as error:
        raise InputRefused(
            f"the pixels cannot be decoded: {first_line(error)}",
            where=one.path,
            reason="unreadable",
            remedy="export the series again, uncompressed if that is offered",
        ) from error
    slope, intercept = (ds.get(k) for k in ("RescaleSlope", "RescaleIntercept"))
    return rescaled(
        pixels.T,
        1.0 if slope is None else float(slope),
        0.0 if intercept is None else float(intercept),
    )


def _check_meaning(ds: Any) -> None:
    """Refuses pixels whose numbers mean something else than intensity = slope x stored + intercept."""
    if ds.get("ModalityLUTSequence"):
        raise InputRefused(
            "intensities are given by a Modality LUT, which is not supported",
            reason="modality-lut",
            remedy="convert it to NIfTI, for example with dcm2niix",
        )
    meaning = ds.get("PhotometricInterpretation")
    if meaning != "MONOCHROME2":
        raise InputRefused(
            f"PhotometricInterpretation is {meaning}, not MONOCHROME2",
            reason="pixel-type",
            remedy="pass the original series",
        )
