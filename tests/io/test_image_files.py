"""The data files that text headers name."""

import numpy as np
import pytest

from medseg.images.grid import Grid
from medseg.images.volume import Volume
from medseg.io.image_files import data_files


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr"])
def test_a_detached_header_names_its_data_file(tmp_path, name):
    Volume(np.zeros((3, 4, 5), np.int16), Grid.from_spacing((3, 4, 5))).save(tmp_path / name)
    (data,) = data_files(tmp_path / name)
    assert {data, tmp_path / name} == set(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd", "a.nii"])
def test_single_files_have_no_data_files(tmp_path, name):
    Volume(np.zeros((3, 4, 5), np.int16), Grid.from_spacing((3, 4, 5))).save(tmp_path / name)
    assert data_files(tmp_path / name) == ()


def test_a_damaged_header_has_no_data_files(tmp_path):
    (tmp_path / "a.mhd").write_text("nonsense")
    assert data_files(tmp_path / "a.mhd") == ()
