"""Where slices lie: beyond test_io_dicom.py, the tolerances and what is told."""

import numpy as np
import pytest
from support.series import NUMBERS, a_volume, edit, moved, put, refusal

from medseg import io
from medseg.errors import InputWarning


@pytest.fixture
def series(tmp_path):
    return io.write_dicom_series(a_volume(), tmp_path / "series")


def test_positions_with_one_decimal_are_even(tmp_path):
    # 0.625 mm steps written as 0.0, 0.6, 1.2, 1.9, 2.5 (exact: 0, 0.625, 1.25, 1.875, 2.5).
    folder = io.write_dicom_series(a_volume(direction=np.diag([-1.0, -1.0, 1.0])), tmp_path / "s")
    z = (0.0, 0.6, 1.2, 1.9, 2.5)
    edit(folder, lambda ds, n: setattr(ds, "ImagePositionPatient", [0, 0, z[n]]))
    with pytest.warns(InputWarning, match="0.05 mm off"):
        assert io.read(folder).grid.spacing_mm[2] == pytest.approx(0.625)


def test_fine_steps_have_a_finer_tolerance(tmp_path):
    # Of 5 slices 0.12 mm apart one moves by 0.04 mm, a third of a step.
    folder = io.write_dicom_series(a_volume(direction=np.diag([-1.0, -1.0, 1.0])), tmp_path / "s")
    edit(folder, lambda ds, n: setattr(ds, "ImagePositionPatient", [0, 0, 0.12 * n + 0.04 * (n == 2)]))
    assert refusal(folder).reason == "missing-slices"


def test_a_slight_sideways_drift_is_rounding_and_a_larger_one_is_tilt(series):
    edit(series, lambda ds, n: moved(ds, 0.0, sideways=0.02 * n))
    assert np.array_equal(io.read(series).array, NUMBERS)
    edit(series, lambda ds, n: moved(ds, 0.0, sideways=0.5 * n))
    error = refusal(series)
    assert error.reason == "tilted"
    # 0.52 mm a slice of 2.5 mm: atan(0.52 / 2.5) = 11.749 degrees.
    assert "11.7 degrees" in error.problem


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"PixelSpacing": ["1e30", "1e30"]}, "geometry"),
        ({"PixelSpacing": ["1e-30", "1e-30"]}, "geometry"),
        ({"PixelSpacing": ["-1", "-1"]}, "no-geometry"),
        ({"ImageOrientationPatient": ["2", "0", "0", "0", "1", "0"]}, "no-geometry"),
        ({"ImageOrientationPatient": ["1", "0", "0", "0.1", "1", "0"]}, "no-geometry"),
        ({"ImageOrientationPatient": None}, "no-geometry"),
    ],
)
def test_geometry_that_is_none_is_refused(series, values, reason):
    edit(series, put(**values))
    assert refusal(series).reason == reason


def test_text_where_numbers_belong_is_no_geometry(series):
    for path in series.iterdir():
        content = path.read_bytes()
        start = content.find(b"\x20\x00\x37\x00DS") + 8
        path.write_bytes(content[:start] + b"axial " + content[start + 6 :])
    error = refusal(series)
    assert error.reason == "no-geometry"
    assert "ImageOrientationPatient" in error.problem


def test_the_nearest_right_angle_is_taken_for_rounded_cosines(tmp_path):
    folder = io.write_dicom_series(a_volume(), tmp_path / "s")
    exact = io.read(folder).grid
    edit(
        folder,
        lambda ds, _: setattr(
            ds, "ImageOrientationPatient", [f"{float(c):.4f}" for c in ds.ImageOrientationPatient]
        ),
    )
    grid = io.read(folder).grid
    assert grid.distance_mm(exact) < 1e-3
    assert np.allclose(grid.direction.T @ grid.direction, np.eye(3), atol=1e-12)
