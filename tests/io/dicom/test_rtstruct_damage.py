"""RT Structure Sets that are cut, changed or drawn elsewhere, and answers read off paper."""

from __future__ import annotations

import warnings
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pydicom
import pytest
from matplotlib.path import Path as Polygon
from scipy import ndimage
from support.dicom_masks import TURN
from support.structure_sets import PAPER, drawn, square

from medseg import io
from medseg.errors import InputRefused, InputWarning
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask, Volume
from medseg.io.dicom import rtstruct

LABELS = tuple(Label(name=f"Organ {n}", values=(n,)) for n in (1, 2, 3))
ONE = LABELS[:1]
DIRECTIONS = {
    "axial": np.diag([-1.0, -1.0, 1.0]),
    "coronal": np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "sagittal": np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]),
    "oblique": TURN,
    "against the normal": TURN @ np.diag([1.0, 1.0, -1.0]),
}


def a_scan(folder: Path, direction=DIRECTIONS["axial"], shape=(23, 17, 5)) -> Volume:
    grid = Grid.from_spacing(shape, (0.7, 1.9, 4.2), origin_mm=(-12.34, 45.6, -7.8), direction=direction)
    array = np.arange(np.prod(shape)).reshape(shape).astype(np.int16)
    return io.read(io.write_dicom_series(Volume(array, grid), folder))


def blobs(shape) -> np.ndarray:
    """Three structures with holes, islands in holes, and contact with the border and at corners."""
    field = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=shape), (1.2, 1.2, 0.5))
    return np.digitize(field, np.quantile(field, (0.4, 0.65, 0.85))).astype(np.uint8)


def written(scan: Volume, array: np.ndarray, path: Path) -> Path:
    rtstruct.write(Mask(array, scan.grid, LABELS, scan.source), path)
    return path


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Volume:
    return a_scan(tmp_path_factory.mktemp("rt") / "series")


@pytest.fixture(scope="module")
def sample(scan, tmp_path_factory) -> Path:
    return written(scan, blobs(scan.grid.shape), tmp_path_factory.mktemp("rt") / "sample.dcm")


def refusal(path: Path, grid: Grid, labels=LABELS) -> InputRefused:
    with pytest.raises(InputRefused) as caught:
        rtstruct.read(path, labels, grid)
    assert caught.value.where
    assert caught.value.remedy
    assert len(str(caught.value).splitlines()) == 3
    return caught.value


# --- answers from elsewhere --------------------------------------------------------------


@pytest.mark.parametrize("name", DIRECTIONS)
def test_matplotlib_fills_the_same_voxels_and_so_does_medseg(tmp_path, name):
    """Contours put on the slices they name by those slices' headers, joined without even and odd."""
    scan = a_scan(tmp_path / "series", DIRECTIONS[name])
    array = blobs(scan.grid.shape)
    path = written(scan, array, tmp_path / "rt.dcm")
    np.testing.assert_array_equal(rtstruct.read(path, LABELS, scan.grid).array, array)
    parts = [pydicom.dcmread(file) for file in scan.source.files]
    columns, rows, depth = scan.grid.shape
    pixels = np.stack(np.meshgrid(np.arange(columns), np.arange(rows), indexing="ij"), -1).reshape(-1, 2)
    for n, roi in enumerate(pydicom.dcmread(path).ROIContourSequence, 1):
        found = np.zeros((columns, rows, depth), bool)
        for contour in roi.ContourSequence:
            uid = contour.ContourImageSequence[0].ReferencedSOPInstanceUID
            k = next(k for k, part in enumerate(parts) if uid == part.SOPInstanceUID)
            row, column = np.reshape(np.array(parts[k].ImageOrientationPatient, float), (2, 3))
            down, across = np.array(parts[k].PixelSpacing, float)
            points = np.reshape(np.array(contour.ContourData, float), (-1, 3))
            points = points - np.array(parts[k].ImagePositionPatient, float)
            assert np.abs(points @ np.cross(row, column)).max() < 1e-3
            assert all(len(str(v)) <= 16 for v in contour.ContourData)  # DS, PS3.5 6.2
            flat = np.stack([points @ row / across, points @ column / down], axis=1)
            found[:, :, k] |= Polygon(flat).contains_points(pixels).reshape(columns, rows)
        np.testing.assert_array_equal(found, array == n)


def test_a_square_drawn_on_paper(tmp_path):
    # x 1.5..4.5 holds columns 2, 3, 4; y 2.5..9 (a row every 2 mm) rows 2, 3, 4; z = 6 is slice 2.
    wanted = np.zeros(PAPER.shape, np.uint8)
    wanted[2:5, 2:5, 2] = 1
    path = drawn(tmp_path / "rt.dcm", [square(1.5, 4.5, 2.5, 9, 6)])
    np.testing.assert_array_equal(rtstruct.read(path, ONE, PAPER).array, wanted)


@pytest.mark.parametrize("kind", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR"])
def test_rings_drawn_on_paper(tmp_path, kind):
    """Both defined terms of PS3.3 C.8.8.6.1 for areas, spelled as there."""
    rings = [square(0.5, 8.5, 1, 13), square(1.5, 7.5, 3, 11), square(3.5, 5.5, 5, 9)]
    wanted = np.zeros((10, 8), np.uint8)
    wanted[1:9, 1:7], wanted[2:8, 2:6], wanted[4:6, 3:5] = 1, 0, 1
    path = drawn(tmp_path / "rt.dcm", rings, kind=kind)
    np.testing.assert_array_equal(rtstruct.read(path, ONE, PAPER).array[:, :, 0], wanted)


def test_a_planning_systems_contours_have_the_volume_of_their_polygons(shared_data, tmp_path):
    """4DLung, patient 113 (TCIA): area by the shoelace formula, times 3 mm between slices."""
    name = "4DLung-113/rtstruct/RS.dcm"
    with zipfile.ZipFile(shared_data / "dicom" / "4DLung-113_ct_99slices.zip") as packed:
        path = Path(packed.extract(name, tmp_path))
    contours = [
        np.reshape(np.array(contour.ContourData, float), (-1, 3))
        for contour in pydicom.dcmread(path).ROIContourSequence[0].ContourSequence
    ]
    low, high = np.min([c.min(0) for c in contours], 0), np.max([c.max(0) for c in contours], 0)
    # Fine pixels, so that the voxels' staircase adds little; slices where the contours are.
    affine = np.diag([-0.4, -0.4, 3.0, 1.0])
    affine[:3, 3] = (low - (0.9, 0.9, 3)) * (-1, -1, 1)
    shape = tuple(int(n) for n in np.ceil((high - low) / (0.4, 0.4, 3)) + 5)
    label = Label(name="tumor C40", values=(1,))
    found = rtstruct.read(path, (label,), Grid(shape, affine)).volumes_ml()["tumor C40"]
    area = 0.0
    for c in contours:
        x, y = c[:, 0], c[:, 1]
        area += abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    assert found == pytest.approx(area * 3 / 1000, rel=0.01)


# --- what is not there -------------------------------------------------------------------


def test_a_region_without_contours_is_empty_with_a_notice(tmp_path):
    path = drawn(tmp_path / "rt.dcm", [square(1.5, 4.5, 2.5, 9)], [])
    with pytest.warns(InputWarning, match="no contours in ROI 2") as caught:
        rtstruct.read(path, LABELS[:2], PAPER)
    assert not any("organ" in str(one.message).lower() for one in caught)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rtstruct.read(path, ONE, PAPER)  # nobody asked for the empty one


# --- damage ------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["implicit", "explicit"])
def test_a_file_cut_anywhere_is_refused_or_read_whole(tmp_path, whose):
    """Pydicom only warns when a file ends early, and leaves the cut element out."""
    if whose == "implicit":
        scan = a_scan(tmp_path / "series", shape=(5, 4, 2))
        array = np.random.default_rng(0).integers(0, 4, scan.grid.shape).astype(np.uint8)
        path, labels, grid = written(scan, array, tmp_path / "rt.dcm"), LABELS, scan.grid
    else:
        rois = [square(0.5, 5.5, 1, 9)], [square(6.5, 8.5, 3, 13), square(6.5, 8.5, 3, 13, 3)]
        path, labels, grid = drawn(tmp_path / "rt.dcm", *rois), LABELS[:2], PAPER
    whole, data = rtstruct.read(path, labels, grid), path.read_bytes()
    short, reasons = tmp_path / "short.dcm", set()
    for size in range(0, len(data), 23 if whose == "implicit" else 3):
        short.write_bytes(data[:size])
        try:
            found = rtstruct.read(short, labels, grid)
        except InputRefused as error:
            reasons.add(error.reason)
        else:
            np.testing.assert_array_equal(found.array, whole.array, err_msg=f"cut at {size} of {len(data)}")
    assert reasons == {"unreadable"}


def test_bytes_changed_by_chance_are_refused_or_read_and_nothing_else(sample, scan, tmp_path):
    data, random = sample.read_bytes(), np.random.default_rng(5)
    damaged = tmp_path / "damaged.dcm"
    for _ in range(25):
        raw = bytearray(data)
        for at in random.integers(132, len(raw), 4):
            raw[at] = int(random.integers(256))
        damaged.write_bytes(raw)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", InputWarning)
            with suppress(InputRefused):
                rtstruct.read(damaged, LABELS, scan.grid)


def _first(ds):
    return ds.ROIContourSequence[0].ContourSequence[0]


DAMAGE = {
    "no regions": lambda ds: delattr(ds, "StructureSetROISequence"),
    "no contour sequence": lambda ds: delattr(ds, "ROIContourSequence"),
    "a coordinate short": lambda ds: setattr(_first(ds), "ContourData", _first(ds).ContourData[:-1]),
    "a point short": lambda ds: setattr(_first(ds), "ContourData", _first(ds).ContourData[:-3]),
    "no points": lambda ds: delattr(_first(ds), "ContourData"),
    "no kind": lambda ds: delattr(_first(ds), "ContourGeometricType"),
    "a number twice": lambda ds: setattr(ds.StructureSetROISequence[1], "ROINumber", 1),
    "no number": lambda ds: delattr(ds.StructureSetROISequence[1], "ROINumber"),
    "another number": lambda ds: setattr(ds.ROIContourSequence[1], "ReferencedROINumber", 9),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_structure_set_is_refused(scan, sample, tmp_path, name):
    ds = pydicom.dcmread(sample)
    DAMAGE[name](ds)
    ds.save_as(tmp_path / "rt.dcm")
    error = refusal(tmp_path / "rt.dcm", scan.grid)
    assert error.reason == "unreadable"
    assert "Organ" not in str(error)
    if "coord" not in name and "point" not in name and "kind" not in name and name != "another number":
        with pytest.raises(InputRefused):
            rtstruct.read(tmp_path / "rt.dcm", ONE, scan.grid)


@pytest.mark.parametrize("word", ["nan", "inf", "-inf", "1e999", "1e300", "-9e99", "Doe^John", ""])
def test_a_coordinate_that_is_not_a_number_is_refused_without_quoting_it(tmp_path, word):
    data = drawn(tmp_path / "rt.dcm", [square(1.23456, 5, 3, 9)]).read_bytes()
    assert data.count(b"1.23456\\3\\") == 1
    (tmp_path / "rt.dcm").write_bytes(data.replace(b"1.23456\\3\\", f"{word:8}\\3"[:9].encode() + b"\\"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        error = refusal(tmp_path / "rt.dcm", PAPER, ONE)
    assert error.reason in ("unreadable", "contour-off-grid")
    assert "Doe" not in str(error)


def test_a_contour_type_that_is_free_text_is_not_quoted(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, on writing it
        path = drawn(tmp_path / "rt.dcm", [square(1, 5, 3, 9)], kind="Doe John")
    error = refusal(path, PAPER, ONE)
    assert error.reason == "open-contour"
    assert "Doe" not in str(error)


@pytest.mark.parametrize("undefined", [False, True])
def test_missing_observations_are_reported_where_the_contours_are_whole(tmp_path, undefined):
    """The last of the required parts describes what the regions are for; reading them does not need it."""
    path = drawn(tmp_path / "rt.dcm", [square(1.5, 4.5, 2.5, 9, 6)])
    ds = pydicom.dcmread(path)
    del ds.RTROIObservationsSequence
    ds["ROIContourSequence"].is_undefined_length = undefined
    ds.save_as(path)
    with pytest.warns(InputWarning, match="no RTROIObservationsSequence"):
        assert np.count_nonzero(rtstruct.read(path, ONE, PAPER).array) == 9
    data = path.read_bytes()
    for missing in range(1, 200, 7):
        path.write_bytes(data[:-missing])
        assert refusal(path, PAPER, ONE).reason == "unreadable"


def test_contours_oblique_to_the_grid_are_refused(sample, tmp_path):
    assert refusal(sample, a_scan(tmp_path / "turned", TURN).grid).reason == "contour-off-grid"


def test_sequences_nested_without_end_are_refused(tmp_path):
    path = drawn(tmp_path / "rt.dcm", [square(1, 5, 3, 9)])
    opened = bytes.fromhex("06301000") + b"SQ\0\0" + bytes.fromhex("ffffffff feff00e0 ffffffff")
    path.write_bytes(path.read_bytes() + opened * 20000)
    assert refusal(path, PAPER, ONE).reason == "unreadable"


def test_other_objects_and_texts_are_refused(scan, tmp_path):
    (tmp_path / "text.dcm").write_text("not a structure set " * 50)
    for path in (scan.source.files[0], tmp_path / "text.dcm"):
        assert refusal(path, scan.grid).reason == "unreadable"
        with pytest.raises(InputRefused):
            rtstruct.list_segments(path)
