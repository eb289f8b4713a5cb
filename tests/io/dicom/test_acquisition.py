from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from medseg.images.volume import Source
from medseg.io import read, write_dicom_series
from medseg.io.dicom.acquisition import Acquisition, acquisition_of
from medseg.phantom.thorax import Thorax, default_grid


def test_other_formats_and_files_that_are_gone_say_nothing(tmp_path):
    assert acquisition_of(Source()) == Acquisition()
    assert acquisition_of(Source(tmp_path, "dicom", files=(Path("gone.dcm"),))) == Acquisition()


def test_facts_of_shared_functional_groups(tmp_path):
    write_dicom_series(Thorax().scan(default_grid((20.0, 20.0, 30.0))), tmp_path)
    first = read(tmp_path).source.files[0]
    header = pydicom.dcmread(first)
    if "SliceThickness" in header:
        del header.SliceThickness
    group, measures, reconstruction = Dataset(), Dataset(), Dataset()
    measures.SliceThickness, reconstruction.ConvolutionKernel = "0.75", "FC51"
    group.PixelMeasuresSequence, group.CTReconstructionSequence = [measures], [reconstruction]
    header.SharedFunctionalGroupsSequence = [group]
    header.ContrastBolusAgent = "NONE"
    header.save_as(tmp_path / "enhanced.dcm")
    found = acquisition_of(Source(tmp_path, "dicom", files=(tmp_path / "enhanced.dcm",)))
    assert found == Acquisition(0.75, "FC51", False)
