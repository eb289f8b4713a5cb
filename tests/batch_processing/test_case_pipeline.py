"""The result of a case reports the warnings of its own scan, even if another is read meanwhile."""

import subprocess
import sys
import threading

import nibabel
import numpy as np
import pandas as pd
import pytest

from medseg import Grid, Volume
from medseg.batch_processing.case_pipeline import CasePipeline
from medseg.batch_processing.messages import BatchConfig, CaseJob
from medseg.io import write_dicom_series

GRID = Grid((16, 16, 6), np.diag([-4.0, -4.0, 5.0, 1.0]))
NO_LUNG = "no lung was found: check that the scan shows a chest, in HU"


def without_lung(folder, number):
    write_dicom_series(Volume(np.full(GRID.shape, 40 + number, np.int16), GRID), folder)
    return folder


@pytest.mark.parametrize("memory", ["8G", "1500M"])
def test_every_row_has_its_own_warning_even_if_scans_are_read_ahead(tmp_path, memory):
    """With 8G the next scan is read while one is segmented; with 1500M it is not."""
    scans = tmp_path / "scans"
    scans.mkdir()
    for number in range(12):
        without_lung(scans / f"series_{number}", number)
    options = ("--model", "threshold", "--workers", "1", "--memory", memory)
    command = [sys.executable, "-m", "medseg.cli", "batch", scans, "-o", tmp_path / "out", *options]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    assert pd.read_csv(tmp_path / "out" / "results.csv")["warnings"].tolist() == [NO_LUNG] * 12


def pipeline(tmp_path) -> CasePipeline:
    return CasePipeline(BatchConfig(("threshold",), str(tmp_path / "out"), str(tmp_path / "scratch")))


def job(name, *images) -> CaseJob:
    return CaseJob(name, tuple(map(str, images)), (0,))


def test_a_second_scan_with_the_same_problem_gets_the_same_warning(tmp_path):
    station = pipeline(tmp_path)
    for number in range(2):
        (record,) = station.finish(
            station.load(job(f"c{number}", without_lung(tmp_path / str(number), number)))
        )
        assert record.warnings == (NO_LUNG,)


def test_warnings_of_two_threads_stay_apart(tmp_path):
    station = pipeline(tmp_path)
    odd = tmp_path / "odd.nii.gz"
    array = np.zeros(GRID.shape, np.float32)
    array[0, 0, 0] = np.nan
    nibabel.save(nibabel.Nifti1Image(array, GRID.affine), odd)
    station = CasePipeline(
        BatchConfig(("threshold",), str(tmp_path / "out"), str(tmp_path / "scratch"), nonfinite=-1024)
    )
    plain = station.load(job("plain", without_lung(tmp_path / "plain", 0)))
    loaded = []
    both = threading.Barrier(2)

    def ahead() -> None:
        both.wait(10)
        loaded.append(station.load(job("odd", odd)))

    thread = threading.Thread(target=ahead)
    thread.start()
    both.wait(10)
    (first,) = station.finish(plain)
    thread.join()
    (second,) = station.finish(loaded[0])
    assert first.warnings == (NO_LUNG,)
    replaced = f"1 of {array.size} voxels are NaN or infinite (not finite); replaced by -1024"
    assert second.warnings == (replaced, NO_LUNG)


def test_a_method_of_ones_own_need_not_know_of_labels_to_leave_out(tmp_path):
    class Own:
        def __init__(self, method):
            self.method = method

        def __getattr__(self, name):
            return getattr(self.method, name)

        def prepare(self, scan):
            return self.method.prepare(scan)

    station = pipeline(tmp_path)
    station.methods = (Own(station.methods[0]),)
    (record,) = station.finish(station.load(job("c", without_lung(tmp_path / "c", 0))))
    assert (record.status, record.message) == ("done", "")
