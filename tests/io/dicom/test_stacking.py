"""Stacks of slices: tolerances, and what belongs to one volume."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from support.series import NUMBERS, a_volume, edit, moved, put, refusal

from medseg import io
from medseg.errors import InputWarning
from medseg.io.dicom import slice_headers
from medseg.io.dicom.slice import Slice
from medseg.io.dicom.stacking import volumes


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
def test_an_invalid_geometry_is_refused(series, values, reason):
    edit(series, put(**values))
    assert refusal(series).reason == reason


def test_text_instead_of_numbers_is_refused(series):
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


CHANGES = {
    "acquisitions that alternate": lambda ds, n: setattr(ds, "AcquisitionNumber", 1 + n % 2),
    "acquisitions in any order": lambda ds, n: setattr(ds, "AcquisitionNumber", (1, 2, 2, 1, 2)[n]),
    "some without an acquisition": lambda ds, n: setattr(ds, "AcquisitionNumber", 1 if n % 2 else None),
    "a number written in two ways": lambda ds, n: setattr(ds, "KVP", ("120", "120.0")[n % 2]),
    "two tube voltages": lambda ds, n: setattr(ds, "KVP", ("120", "140", "120", "120", "140")[n]),
    "a longer image type": lambda ds, n: setattr(
        ds, "ImageType", ["DERIVED", "PRIMARY", "AXIAL", "A"][: 3 + n % 2]
    ),
    "two kernels": lambda ds, n: setattr(ds, "ConvolutionKernel", (["B30f", "3"], "B30f")[n % 2]),
    "echo numbers": lambda ds, n: setattr(ds, "EchoNumbers", int(n in (1, 2))),
    "echo times": lambda ds, n: setattr(ds, "EchoTime", (4.9, 10.1, 4.9, 10.1, 4.9)[n]),
    "positions in time": lambda ds, n: setattr(ds, "TemporalPositionIdentifier", 1 + n % 3),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_an_even_stack_is_one_volume_whatever_else_differs(series, change):
    # As SimpleITK and dcm2niix read it.
    edit(series, change)
    volume = io.read(series)
    assert np.array_equal(volume.array, NUMBERS)
    assert volume.grid.spacing_mm[2] == pytest.approx(2.5)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    marks=st.lists(st.tuples(*[st.sampled_from(("", "1", "2", "2.0"))] * 3), min_size=6, max_size=6),
    order=st.permutations(range(6)),
)
def test_an_even_stack_is_not_split_by_any_header_field(marks, order):
    stacked = [a_slice(2.5 * k, dict(zip(NAMES, marks[k], strict=True))) for k in order]
    assert [len(part) for _, part in volumes(stacked)] == [6]


def test_different_spellings_of_a_number_do_not_separate_phases():
    # Two phases of three slices at the same positions; the tube voltage is the same number everywhere.
    stacked = [
        a_slice(2.5 * k, {"KVP": ("120", "120.0")[(k + phase) % 2], "TriggerTime": f"{phase}"})
        for phase in (0, 1)
        for k in range(3)
    ]
    assert [name for name, _ in volumes(stacked)] == ["TriggerTime 0", "TriggerTime 1"]


def test_a_tilted_stack_of_two_acquisitions_is_refused_as_tilted(series):
    def change(ds, n):
        ds.AcquisitionNumber = 1 + n % 2
        moved(ds, 0.0, sideways=0.5 * n)

    edit(series, change)
    assert refusal(series).reason == "tilted"


NAMES = ("AcquisitionNumber", "EchoTime", "KVP")


def a_slice(depth_mm: float, marks: dict[str, str]) -> Slice:
    """A slice of 4 x 4 pixels at a depth, with these attributes as its header's."""
    ds = Dataset()
    ds.SOPClassUID, ds.SeriesInstanceUID, ds.Modality, ds.Rows, ds.Columns = "1.2", "1.3", "CT", 4, 4
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, depth_mm], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing = [1, 1]
    for name, value in marks.items():
        setattr(ds, name, value)
    return slice_headers._slice(Path("a.dcm"), ds)
