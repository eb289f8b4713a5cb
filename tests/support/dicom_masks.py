"""What the tests of DICOM SEG and RTSTRUCT share: a series with a mask on it, and a validator."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy.spatial.transform import Rotation

from medseg import io
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask, Volume

SHAPE = (7, 9, 5)  # columns, rows, slices: 35 and 63 bits do not fill whole bytes
TURN = Rotation.from_euler("xyz", (11, -17, 23), degrees=True).as_matrix()
# Array axes along which columns, rows and slices run: axial as DICOM has it, and others.
DIRECTIONS = {
    "axial": np.diag([-1.0, -1.0, 1.0]),
    "sagittal": np.array([[0, 0, 1.0], [-1.0, 0, 0], [0, -1.0, 0]]),
    "oblique": TURN,
}
RIGHT = Label(name="right_lung", values=(1, 3), side="right")
LEFT = Label(name="left_lung", values=(2,), side="left")
NODULE = Label(name="right_nodule", values=(3,), side="right")
GHOST = Label(name="ghost", values=(4,))
LABELS = (RIGHT, LEFT, NODULE, GHOST)


def a_scan(tmp_path: Path, direction: str = "oblique", *, modality: str = "CT", seed: int = 0) -> Volume:
    """A small series that was written and read again, so that it has files to refer to."""
    axes = DIRECTIONS[direction]
    grid = Grid.from_spacing(SHAPE, (0.8, 1.1, 2.5), origin_mm=(-12.3, 45.6, -7.8), direction=axes)
    numbers = np.random.default_rng(seed).integers(-1000, 1000, SHAPE).astype(np.int16)
    return io.read(io.write_dicom_series(Volume(numbers, grid), tmp_path / "series", modality=modality))


def an_enhanced_scan(tmp_path: Path) -> Volume:
    """The same kind of scan as one multi-frame file, whose frames run against the third axis."""
    ds, shared, frames = Dataset(), Dataset(), []
    columns, rows, depth = SHAPE
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        setattr(ds, name, generate_uid(entropy_srcs=[name]))
    ds.SOPClassUID, ds.Modality, ds.PatientName, ds.PatientID = EnhancedMRImageStorage, "MR", "A^B", "1"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER", "NONE"]
    ds.Rows, ds.Columns, ds.NumberOfFrames = rows, columns, depth
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [1.1, 0.8], 2.5
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    for number in range(depth):
        position, frame = Dataset(), Dataset()
        position.ImagePositionPatient = [-3.5, 8.25, 2.5 * (depth - number)]
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = [shared], frames
    ds.PixelData = np.arange(np.prod(SHAPE), dtype="<u2").tobytes()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = tmp_path / "enhanced.dcm"
    ds.save_as(path, enforce_file_format=True)
    return io.read(path)


def a_mask(scan: Volume, labels=LABELS, values=(0, 1, 2, 3), *, seed: int = 1) -> Mask:
    """Every voxel by chance, the first slice empty: no symmetry, holes, corners that touch."""
    numbers = np.random.default_rng(seed).choice(values, scan.grid.shape).astype(np.uint8)
    numbers[:, :, 0] = 0
    return Mask(numbers, scan.grid, labels, scan.source)


def a_foreign(
    scan: Volume, tmp_path: Path, pixels, kind="BINARY", names=("Left Lung", "Liver"), **options
) -> Path:
    """A SEG as highdicom writes it by itself."""
    highdicom = pytest.importorskip("highdicom")
    headers = [pydicom.dcmread(file) for file in scan.source.files]
    described = [
        highdicom.seg.SegmentDescription(n, name, codes.SCT.Tissue, codes.SCT.Lung, "MANUAL")
        for n, name in enumerate(names, 1)
    ]
    seg = highdicom.seg.Segmentation(
        headers,
        pixels,
        kind,
        described,
        highdicom.UID(),
        1,
        highdicom.UID(),
        1,
        "a",
        "b",
        "c",
        "d",
        **options,
    )
    path = tmp_path / "foreign.dcm"
    seg.save_as(path)
    return path


def edited(path: Path, change) -> Path:
    """The file with ``change`` applied to its data set."""
    ds = pydicom.dcmread(path)
    change(ds)
    ds.save_as(path)
    return path


def errors_of_dciodvfy(path: Path) -> list[str]:
    """What David Clunie's validator calls an error; skips the test where it is not installed."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed: apt-get install dicom3tools")
    result = subprocess.run([program, path], capture_output=True, text=True, check=False)
    lines = (result.stdout + result.stderr).splitlines()
    assert lines  # it names the kind of object at least
    return [line for line in lines if line.startswith("Error")]
