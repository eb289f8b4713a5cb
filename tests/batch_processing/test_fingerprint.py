"""A case has changed when one of its files has."""

import os

import pytest
from support.batches import chest

from medseg.batch_processing.fingerprint import stamp
from medseg.io import write_dicom_series


def test_a_changed_file_beside_a_named_slice_changes_the_case(tmp_path):
    folder = write_dicom_series(chest(), tmp_path / "ct")
    first, last = sorted(folder.iterdir())[0], sorted(folder.iterdir())[-1]
    before = stamp([first], {}), stamp([folder], {})
    assert before == (stamp([first], {}), stamp([folder], {}))
    os.utime(last, ns=(0, 0))
    assert before[0] != stamp([first], {})
    assert before[1] != stamp([folder], {})
    assert stamp([tmp_path / "none"], {}) is None


@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
def test_a_changed_data_file_of_a_detached_header_changes_the_case(tmp_path, suffix):
    header = chest().save(tmp_path / f"a{suffix}")
    data = next(path for path in tmp_path.iterdir() if path != header)
    before = stamp([header], {})
    os.utime(data, ns=(0, 0))
    assert stamp([header], {}) != before


def test_a_changed_file_in_the_next_folder_of_a_series_changes_the_case(tmp_path):
    files = sorted(write_dicom_series(chest(), tmp_path / "DIR000").iterdir())
    (tmp_path / "DIR001").mkdir()
    last = files[-1].rename(tmp_path / "DIR001" / files[-1].name)
    before = stamp([files[0]], {})
    os.utime(last, ns=(0, 0))
    assert stamp([files[0]], {}) != before
