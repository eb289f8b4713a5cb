"""DICOM series for tests: a volume with a different number in each voxel, and ways to change its files."""

import io as bytesio

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage
from scipy.spatial.transform import Rotation

from medseg import io
from medseg.errors import InputRefused
from medseg.images.grid import Grid
from medseg.images.volume import Volume

TURN = Rotation.from_euler("xyz", (11, -17, 23), degrees=True).as_matrix()
NUMBERS = (np.arange(60, dtype=np.int16) * 37 - 1000).reshape(3, 4, 5)


def a_volume(array=NUMBERS, direction=TURN) -> Volume:
    spacing, origin = (0.8, 1.1, 2.5), (-12.3, 45.6, -7.8)
    return Volume(array, Grid.from_spacing(array.shape, spacing, origin_mm=origin, direction=direction))


def datasets(folder) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


def edit(folder, change, which=slice(None)):
    """Applies ``change`` to the data sets of ``folder``'s slices, in order along the normal."""
    for number, path in enumerate(sorted(folder.iterdir())[which]):
        ds = pydicom.dcmread(path)
        change(ds, number)
        ds.save_as(path)


def put(**values):
    """A change that sets these elements."""

    def change(ds, _):
        for keyword, value in values.items():
            setattr(ds, keyword, value)

    return change


def moved(ds, along: float, sideways: float = 0.0):
    """Moves a slice along its normal and along its rows, in mm."""
    row, column = np.reshape(ds.ImageOrientationPatient, (2, 3)).astype(float)
    position = np.array(ds.ImagePositionPatient, float) + along * np.cross(row, column) + sideways * row
    ds.ImagePositionPatient = [f"{p:.10g}" for p in position]


def refusal(path, **options) -> InputRefused:
    with pytest.raises(InputRefused) as caught:
        io.read(path, **options)
    assert caught.value.where
    assert caught.value.remedy
    assert len(str(caught.value).splitlines()) <= 3
    return caught.value


def enhanced(parts, order=None, **marks) -> pydicom.Dataset:
    """The slices as one enhanced CT file, frames in ``order``: PS3.3 C.7.6.16."""
    parts = [parts[i] for i in (order or range(len(parts)))]
    buffer = bytesio.BytesIO()
    parts[0].save_as(buffer)
    ds = pydicom.dcmread(bytesio.BytesIO(buffer.getvalue()))
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    ds.NumberOfFrames = len(parts)
    ds.PixelData = b"".join(part.PixelData for part in parts)
    orientation, measures, shared = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = parts[0].ImageOrientationPatient
    measures.PixelSpacing, measures.SliceThickness = parts[0].PixelSpacing, parts[0].SliceThickness
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    ds.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for number, part in enumerate(parts):
        position, rescale, content, frame = Dataset(), Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = part.ImagePositionPatient
        rescale.RescaleSlope, rescale.RescaleIntercept = part.RescaleSlope, part.RescaleIntercept
        for keyword, values in marks.items():
            setattr(content, keyword, values[number])
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [position], [rescale]
        frame.FrameContentSequence = [content]
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = frames
    for keyword in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "InstanceNumber"):
        delattr(ds, keyword)
    for keyword in ("RescaleSlope", "RescaleIntercept", "SliceThickness", "SpacingBetweenSlices"):
        delattr(ds, keyword)
    return ds
