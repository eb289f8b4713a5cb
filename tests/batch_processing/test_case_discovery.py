import numpy as np
import pytest
from pydicom import dcmread
from support.dicom_masks import a_foreign

from medseg import Grid, Volume
from medseg.batch_processing.case_discovery import items
from medseg.batch_processing.runner import BatchConfig, run
from medseg.io import read as read_scan
from medseg.io import write_dicom_series


def a_series(folder) -> Volume:
    """Two boxes of -800 HU (lungs) in one of 40 HU in air, as a CT series."""
    grid = Grid((24, 24, 10), np.diag([12.0, 12.0, 20.0, 1.0]))
    array = np.full(grid.shape, -1000, np.int16)
    array[2:-2, 2:-2] = 40
    array[4:8, 6:18, 2:8] = array[14:20, 6:18, 2:8] = -800
    return read_scan(write_dicom_series(Volume(array, grid), folder))


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("beside", [True, False])
def test_a_segmentation_of_a_scan_is_not_a_case(tmp_path, kind, beside):
    root = tmp_path / "in"
    root.mkdir()
    scan = a_series(root / "ct")
    pixels = (scan.array.T == -800).astype(np.uint8)
    place = root / "ct" if beside else root / "seg"
    place.mkdir(exist_ok=True)
    path = a_foreign(scan, place, pixels, kind, names=("Lung",))
    assert str(dcmread(path).SOPClassUID)[-2:] == {"BINARY": ".4", "LABELMAP": ".7"}[kind]
    found = items(root)
    assert [(item.id, item.images) for item in found] == [("ct", (root / "ct",))]
    if kind == "LABELMAP" and not beside:
        out = tmp_path / "out"
        ended = run(found, BatchConfig(models=("threshold",), folder=str(out), scratch=""))
        assert (ended.done, ended.failed) == (1, 0)
        assert [mask.name for mask in (out / "masks").iterdir() if mask.suffix == ".gz"] == ["ct.nii.gz"]


def test_a_dose_of_a_scan_is_not_a_case(tmp_path):
    scan = a_series(tmp_path / "ct")
    dose = dcmread(scan.source.files[0])
    dose.SOPClassUID = dose.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.2"
    dose.SeriesInstanceUID, dose.Modality = "1.2.3", "RTDOSE"
    (tmp_path / "dose").mkdir()
    dose.save_as(tmp_path / "dose" / "1.dcm")
    assert [item.id for item in items(tmp_path)] == ["ct"]
