"""Writing a volume as a classic DICOM series: one CT or MR image file per slice."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import DSfloat

from medseg.errors import InputRefused, UsageError
from medseg.images.grid import LPS_RAS, Array, Grid
from medseg.images.volume import Volume, Voxels
from medseg.io.dicom import sop_classes


def write_dicom_series(volume: Volume, folder: str | Path, *, modality: Literal["CT", "MR"] = "CT") -> Path:
    """Writes ``volume`` as a series of single-frame slices and returns the folder.

    Every voxel keeps its world position, whatever the orientation of the grid: slices follow
    the third array axis and are numbered along the DICOM normal. UIDs are derived from the
    content, so equal volumes give equal files. Meant for phantoms and tests: the patient is
    ``PHANTOM``.

    Args:
        volume: Whole numbers in -32768..32767 are stored unchanged; other intensities are
            quantised to 16 bits.
        folder: New or empty; its parent must exist.
        modality: CT Image Storage or MR Image Storage (PS3.3 A.3 and A.4).

    Raises:
        UsageError: the folder is not empty or has no parent (``no-folder``).
        InputRefused: a sheared grid, which such a series cannot hold (``sheared``).

    Example:
        >>> scan = medseg.Thorax().scan(medseg.phantom_grid((10.0, 10.0, 20.0)))
        >>> len(list(medseg.write_dicom_series(scan, "phantom_series").iterdir())) == scan.grid.shape[2]
        True
    """
    folder = Path(folder)
    if not folder.parent.is_dir() or (folder.exists() and (folder.is_file() or any(folder.iterdir()))):
        raise UsageError(
            "the folder is not empty, or its parent does not exist",
            where=folder,
            remedy="choose a new folder in an existing one",
            reason="no-folder",
        )
    lps, reverse = _lps(volume.grid)
    stored, slope, intercept = _stored(volume.array)
    shared = _shared(volume, modality, lps)
    shared.RescaleSlope, shared.RescaleIntercept = slope, intercept
    hidden = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        fresh = hidden / folder.name  # created here, so that it gets the user's default permissions
        fresh.mkdir()
        depth = stored.shape[2]
        for k in range(depth):
            number = depth - k if reverse else k + 1
            position = lps[:3, 3] + k * lps[:3, 2]
            ds = _slice(shared, stored[:, :, k], number, position)
            ds.save_as(fresh / f"slice{number:04d}.dcm", enforce_file_format=True)
        fresh.replace(folder)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return folder


def _lps(grid: Grid) -> tuple[Array, bool]:
    """The LPS affine, and whether the third axis runs against the normal (row x column)."""
    lps: Array = LPS_RAS @ grid.affine
    unit = lps[:3, :3] / np.asarray(grid.spacing_mm)
    if np.abs(unit.T @ unit - np.eye(3)).max() > 1e-4:
        raise InputRefused(
            "the axes of the grid are not perpendicular, but a DICOM series cannot hold shear",
            reason="sheared",
            remedy="resample the volume to an orthogonal grid",
        )
    return lps, bool(np.dot(np.cross(unit[:, 0], unit[:, 1]), unit[:, 2]) < 0)


def _stored(array: Voxels) -> tuple[Voxels, str, str]:
    """int16 pixels, and RescaleSlope and RescaleIntercept as written to the file."""
    low, high = float(array.min()), float(array.max())
    whole = array.dtype.kind in "iub" or bool((np.rint(array) == array).all())
    if whole and low >= -32768 and high <= 32767:
        return array.astype(np.int16), "1", "0"
    # DS holds 16 characters, so divide by the rounded slope.
    slope = str(DSfloat((high - low) / 65534 or 1.0, auto_format=True))
    intercept = str(DSfloat((high + low) / 2, auto_format=True))
    levels = np.rint((array.astype(np.float64) - float(intercept)) / float(slope))
    return np.clip(levels, -32768, 32767).astype(np.int16), slope, intercept


def _shared(volume: Volume, modality: str, lps: Array) -> Dataset:
    """The attributes that all slices share: patient, study, series, equipment, pixel description."""
    digest = hashlib.sha256(np.ascontiguousarray(volume.array.T).tobytes())
    digest.update(f"{volume.array.dtype} {volume.grid.affine.tolist()} {modality}".encode())
    content = digest.hexdigest()
    x, y, z = volume.grid.spacing_mm
    ds = Dataset()
    ds.SOPClassUID = sop_classes.CT_IMAGE if modality == "CT" else sop_classes.MR_IMAGE
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "PHANTOM", "PHANTOM", "", ""
    ds.StudyInstanceUID = generate_uid(entropy_srcs=[content, "study"])
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=[content, "series"])
    ds.FrameOfReferenceUID = generate_uid(entropy_srcs=[content, "frame"])
    ds.StudyDate = ds.StudyTime = ds.ReferringPhysicianName = ds.StudyID = ds.AccessionNumber = ""
    ds.PositionReferenceIndicator, ds.Manufacturer = "", "medseg"
    # Type 2C: present, but empty if unknown.
    ds.PatientPosition = ds.Laterality = ""
    ds.Modality, ds.SeriesNumber, ds.AcquisitionNumber = modality, 1, 1
    ds.ImageType = ["DERIVED", "PRIMARY", "AXIAL" if modality == "CT" else "OTHER"]
    if modality == "CT":
        ds.KVP, ds.RescaleType = None, "HU"
    else:
        ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions = "RM", "NONE", ""
        ds.MRAcquisitionType, ds.EchoTime, ds.EchoTrainLength, ds.RepetitionTime = "3D", None, None, None
    ds.ImageOrientationPatient = _texts([*(lps[:3, 0] / x), *(lps[:3, 1] / y)])
    ds.PixelSpacing = _texts([y, x])  # between rows first: PS3.3 10.7.1.3
    ds.SliceThickness = ds.SpacingBetweenSlices = _texts([z])[0]
    ds.Columns, ds.Rows = volume.grid.shape[0], volume.grid.shape[1]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    return ds


def _slice(shared: Dataset, pixels: Voxels, number: int, position_mm: Array) -> Dataset:
    """One file: ``pixels`` (columns, rows) at ``position_mm`` in LPS."""
    ds = Dataset()
    ds.update(shared)
    ds.SOPInstanceUID = generate_uid(entropy_srcs=[str(shared.SeriesInstanceUID), str(number)])
    ds.InstanceNumber = number
    ds.ImagePositionPatient = _texts(position_mm)
    ds.PixelData = np.ascontiguousarray(pixels.T).astype("<i2").tobytes()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def _texts(numbers: Iterable[float]) -> list[str]:
    """Decimal strings of at most 16 characters, as DICOM's DS holds."""
    return [str(DSfloat(float(n), auto_format=True)) for n in numbers]
