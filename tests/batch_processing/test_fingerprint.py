"""A case has changed when one of its files has."""

import os

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
