"""Odd items of structure sets: what is sound is read, what is left out is named; answers read off paper."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from support.dicom_masks import a_scan
from support.structure_sets import PAPER, drawn, square

from medseg.errors import InputRefused, UsageError
from medseg.images.label import Label
from medseg.images.volume import Source, Volume
from medseg.io.dicom import rtstruct
from medseg.io.dicom.regions import voxels_inside
from medseg.io.dicom.segments import Painting
from medseg.system.notices import collect_notices

LABELS = tuple(Label(name=f"Organ {n}", values=(n,)) for n in (1, 2, 3))
ONE, TWO = LABELS[:1], LABELS[:2]
# x 1.5..4.5 holds columns 2, 3, 4; y 2.5..9 (a row every 2 mm) rows 2, 3, 4: nine voxels of a slice.
NINE = square(1.5, 4.5, 2.5, 9, 6)


def read_with_reasons(path, labels=ONE, reference=PAPER):
    """The mask and the reasons of its notices."""
    with collect_notices() as notices:
        mask = rtstruct.read(path, labels, reference)
    return mask, [notice.reason for notice in notices]


def refused(path, labels=ONE, reference=PAPER):
    with pytest.raises(InputRefused) as caught, collect_notices():
        rtstruct.read(path, labels, reference)
    return caught.value.reason


# --- beyond the scan ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("contour", "inside"),
    [
        (square(-30.5, 1.5, 2.5, 9, 3), np.s_[0:2, 2:5, 1]),  # to the left: columns 0 and 1 remain
        (square(7.5, 400, 9.5, 99, 3), np.s_[8:10, 5:8, 1]),  # beyond the corner at the other end
        (square(-99, 99, -99, 99, 9), np.s_[:, :, 3]),  # a body around all of the last slice
        (square(1.5, 4.5, 2.5, 9, 12), np.s_[0:0, 0:0, 0]),  # one slice above the last
        (square(1.5, 4.5, 2.5, 9, -6), np.s_[0:0, 0:0, 0]),  # two below the first
        (square(40, 50, 2.5, 9, 3), np.s_[0:0, 0:0, 0]),  # beside the pixels
    ],
)
def test_what_extends_beyond_the_scan_is_cut_off_with_a_notice(tmp_path, contour, inside):
    wanted = np.zeros(PAPER.shape, np.uint8)
    wanted[2:5, 2:5, 2] = 1
    wanted[inside] = 1
    mask, reasons = read_with_reasons(drawn(tmp_path / "rt.dcm", [NINE, contour]))
    assert np.array_equal(mask.array, wanted)
    assert reasons == ["contours-cut"]


def test_a_couch_around_an_edge_keeps_its_hole(tmp_path):
    # A ring from x -20 to 6.5 whose hole ends at 4.5: of rows 1 to 4 only columns 5 and 6 are inside.
    ring = [square(-20, 6.5, 1, 9), square(-10, 4.5, 1, 9)]
    mask, _ = read_with_reasons(drawn(tmp_path / "rt.dcm", ring))
    assert sorted(map(tuple, np.argwhere(mask.array))) == [(i, j, 0) for i in (5, 6) for j in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    "contours", [[square(40, 50, 2.5, 9)], [square(1, 5, 2, 9, 12), square(1, 5, 2, 9, -3)]]
)
def test_a_region_outside_of_the_scan_was_drawn_on_another(tmp_path, contours):
    path = drawn(tmp_path / "rt.dcm", contours, [NINE])
    assert refused(path) == "contour-off-grid"
    mask, reasons = read_with_reasons(path, ())
    assert [label.name for label in mask.labels] == ["ORGAN 2"]
    assert np.count_nonzero(mask.array == 2) == 9
    assert reasons == ["roi-left-out"]


def test_one_contour_between_slices_rejects_its_region(tmp_path):
    path = drawn(tmp_path / "rt.dcm", [NINE, square(1, 5, 2, 9, 7.5)], [NINE])
    assert refused(path) == "contour-off-grid"
    assert read_with_reasons(path, ())[1] == ["roi-left-out"]


# --- no area -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "points"),
    [
        ("POINT", [(3, 3, 6)]),
        ("OPEN_PLANAR", square(1, 5, 2, 9, 3)),
        ("OPEN_NONPLANAR", [(0, 0, 0), (5, 5, 9)]),
        ("CLOSED_PLANAR", [(3, 3, 6)]),  # a lone voxel, as some tools write it
        ("CLOSED_PLANAR", [(3, 3, 6), (4, 3, 6)]),
        ("CLOSED_PLANAR", []),
    ],
)
def test_a_contour_without_area_beside_areas_is_left_out(tmp_path, kind, points):
    path = drawn(tmp_path / "rt.dcm", [NINE, points], kind=["CLOSED_PLANAR", kind])
    mask, reasons = read_with_reasons(path)
    assert np.count_nonzero(mask.array) == 9
    assert reasons == ["contours-left-out"]


def test_a_region_of_points_is_refused_by_name_and_otherwise_left_out(tmp_path):
    path = drawn(tmp_path / "rt.dcm", [[(3, 3, 6)]], [NINE], kind=["POINT", "CLOSED_PLANAR"])
    assert refused(path) == refused(path, TWO) == "open-contour"
    assert (
        read_with_reasons(path, (Label(name="Organ 2", values=(5,)),))[1] == []
    )  # nobody asked for the points
    mask, reasons = read_with_reasons(path, ())
    assert [label.name for label in mask.labels] == ["ORGAN 2"]
    assert reasons == ["roi-left-out"]


def test_a_file_of_unsound_regions_is_refused(tmp_path):
    path = drawn(
        tmp_path / "rt.dcm", [[(3, 3, 6)]], [], [square(40, 50, 2.5, 9)], kind=["POINT", "CLOSED_PLANAR"]
    )
    assert refused(path, ()) == "open-contour"


def test_interpolated_contours_are_areas(tmp_path):
    path = drawn(tmp_path / "rt.dcm", [NINE], kind="CLOSED_PLANAR")
    ds = pydicom.dcmread(path)
    ds.ROIContourSequence[0].ContourSequence[0]["ContourGeometricType"].validation_mode = 0
    ds.ROIContourSequence[0].ContourSequence[0]["ContourGeometricType"].value = "INTERPOLATED_PLANAR"
    ds.save_as(path)
    mask, reasons = read_with_reasons(path)
    assert np.count_nonzero(mask.array) == 9
    assert reasons == ["contours-interpolated"]


def test_damage_of_a_region_nobody_asked_for(tmp_path):
    path = drawn(tmp_path / "rt.dcm", [NINE], [NINE])
    ds = pydicom.dcmread(path)
    ds.ROIContourSequence[1].ContourSequence[0].NumberOfContourPoints = 7
    ds.save_as(path)
    assert np.count_nonzero(read_with_reasons(path)[0].array) == 9
    assert refused(path, TWO) == "unreadable"
    mask, reasons = read_with_reasons(path, ())
    assert [label.name for label in mask.labels] == ["ORGAN 1"]
    assert reasons == ["roi-left-out"]
    ds.ROIContourSequence[0].ContourSequence[0].NumberOfContourPoints = 7
    ds.save_as(path)
    assert refused(path, ()) == "unreadable"  # nothing remains


TOLD = {
    "beyond the scan": (
        {"contours": ([NINE, square(40, 50, 2.5, 9, 3)],)},
        "1 of 2 contours of ROI 1 extend beyond the scan; the mask holds the part inside",
    ),
    "a point beside areas": (
        {"contours": ([NINE, [(3, 3, 6)]],), "kind": ["CLOSED_PLANAR", "POINT"]},
        "left out 1 contour(s) of ROI 1, which enclose no area (POINT)",
    ),
    "empty ContourData": (
        {"contours": ([NINE, []],)},
        "left out 1 contour(s) of ROI 1, which enclose no area (no points)",
    ),
    "a region of empty ContourData": (
        {"contours": ([NINE], [[]])},
        "no contours in ROI 2; assumed empty",
    ),
}


@pytest.mark.parametrize("name", TOLD)
def test_a_notice_names_what_was_left_out_and_of_which_region(tmp_path, name):
    how, text = TOLD[name]
    path = drawn(tmp_path / "rt.dcm", *how.pop("contours"), **how)
    with collect_notices() as notices:
        rtstruct.read(path, (), PAPER)
    assert [notice.text for notice in notices] == [text]


def test_a_notice_names_the_region_that_is_damaged(tmp_path):
    path = drawn(tmp_path / "rt.dcm", [NINE], [NINE])
    ds = pydicom.dcmread(path)
    ds.ROIContourSequence[1].ContourSequence[0].ContourData = [1, 2, 3, 4]
    ds.save_as(path)
    with collect_notices() as notices:
        rtstruct.read(path, (), PAPER)
    assert "left out 1 ROI(s): ROI 2: not a readable RTSTRUCT: a contour of" in notices[0].text
    assert "name the ROIs to read" in str(notices[0])


def _fails_in_painting(monkeypatch, slices):
    """Painting of the second region fails after so many of its slices, as only a fault of ours can."""
    add = Painting.add

    def failing(self, number, at, region):
        if number == 2 and not slices:
            raise IndexError("a fault of ours")
        add(self, number, at, region)
        if number == 2:
            slices.pop()

    monkeypatch.setattr(Painting, "add", failing)


@pytest.mark.parametrize("slices", [0, 1])
@pytest.mark.parametrize("labels", [(), TWO])
def test_a_fault_while_painting_is_no_damage_of_a_region(tmp_path, monkeypatch, slices, labels):
    path = drawn(tmp_path / "rt.dcm", [NINE], [NINE, [(x, y, z + 3) for x, y, z in NINE]])
    _fails_in_painting(monkeypatch, [None] * slices)
    assert refused(path, labels) == "unreadable"


def test_a_fault_while_filling_is_no_damage_of_a_region(tmp_path, monkeypatch):
    path = drawn(tmp_path / "rt.dcm", [NINE], [NINE])

    def failing(region, grid, path):
        if region.number == 2:
            raise IndexError("a fault of ours")
        return voxels_inside(region, grid, path)

    monkeypatch.setattr(rtstruct, "voxels_inside", failing)
    assert refused(path, ()) == "unreadable"


def test_no_voxel_of_a_region_that_is_left_out_remains(tmp_path):
    """The first slice of ORGAN 2 is sound, on the second two contours cross."""
    above = square(1.5, 5.5, 2.5, 9, 3), square(3.5, 8.5, 2.5, 9, 3)
    path = drawn(tmp_path / "rt.dcm", [NINE], [square(5.5, 8.5, 2.5, 9), *above])
    mask, reasons = read_with_reasons(path, ())
    assert reasons == ["roi-left-out"]
    assert [label.name for label in mask.labels] == ["ORGAN 1"]
    assert set(np.unique(mask.array)) == {0, *mask.labels[0].values}


# --- frames of reference -----------------------------------------------------------------


@pytest.fixture
def series(tmp_path):
    """A scan on a grid like `PAPER`, its frame of reference and its series."""
    scan = a_scan(tmp_path, "axial")
    header = pydicom.dcmread(scan.source.files[0], stop_before_pixels=True)
    return scan, str(header.FrameOfReferenceUID), str(header.SeriesInstanceUID)


def middle(scan):
    """A contour around the voxel in the middle of slice 2, in mm LPS."""
    x, y, z = scan.grid.world((3, 4, 2)) * (-1, -1, 1)
    return square(x - 0.3, x + 0.3, y - 0.3, y + 0.3, z)


def with_frames(path, *frames):
    """Lists frames of reference, each with the series drawn on, as (frame, series)."""
    ds = pydicom.dcmread(path)
    ds.ReferencedFrameOfReferenceSequence = []
    for frame, series in frames:
        item, study, one = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
        item.FrameOfReferenceUID, one.SeriesInstanceUID = frame, series
        study.RTReferencedSeriesSequence = [one]
        item.RTReferencedStudySequence = [study]
        ds.ReferencedFrameOfReferenceSequence.append(item)
    ds.save_as(path)
    return path


def test_a_second_frame_that_no_region_uses_does_not_matter(series, tmp_path):
    scan, frame, uid = series
    path = drawn(tmp_path / "series" / "rt.dcm", [middle(scan)], frames=[frame])
    with_frames(path, ("1.2.3.9", "1.2.3.10"), (frame, uid))
    for reference in (scan, None):  # None: the series of the ROI's frame is in the folder
        mask, reasons = read_with_reasons(path, ONE, reference)
        assert np.argwhere(mask.array).tolist() == [[3, 4, 2]]
        assert reasons == []


def test_a_region_of_another_frame_is_refused_by_name_and_otherwise_left_out(series, tmp_path):
    scan, frame, _ = series
    path = drawn(tmp_path / "rt.dcm", [middle(scan)], [middle(scan)], frames=["1.2.3.9", frame])
    assert refused(path, ONE, scan) == refused(path, TWO, scan) == "frame-of-reference"
    assert read_with_reasons(path, LABELS[1:2], scan)[1] == []
    mask, reasons = read_with_reasons(path, (), scan)
    assert [label.name for label in mask.labels] == ["ORGAN 2"]
    assert reasons == ["roi-left-out"]
    with collect_notices() as notices:
        rtstruct.read(path, (), scan)
    assert "left out 1 ROI(s): ROI 1" in notices[0].text
    assert "frame of reference" in notices[0].text


def test_regions_of_two_frames_need_a_scan_that_has_one(series, tmp_path):
    scan, frame, _ = series
    path = drawn(tmp_path / "rt.dcm", [middle(scan)], [middle(scan)], frames=["1.2.3.9", frame])
    copy = Volume(scan.array, scan.grid, Source())
    assert refused(path, (), copy) == refused(path, TWO, scan.grid) == "frame-of-reference"
    assert np.count_nonzero(read_with_reasons(path, LABELS[1:2], copy)[0].array) == 1


def test_a_region_without_a_frame_has_the_only_one_listed(series, tmp_path):
    scan, frame, uid = series
    path = drawn(tmp_path / "rt.dcm", [middle(scan)])
    assert np.count_nonzero(read_with_reasons(path, ONE, scan)[0].array) == 1
    assert np.count_nonzero(read_with_reasons(with_frames(path, (frame, uid)), ONE, scan)[0].array) == 1
    assert refused(with_frames(path, ("1.2.3.9", "1.2.3.10")), ONE, scan) == "frame-of-reference"


def test_two_series_of_one_frame_need_a_choice(series, tmp_path):
    scan, frame, uid = series
    for number, file in enumerate(scan.source.files):
        ds = pydicom.dcmread(file)
        ds.SeriesInstanceUID, ds.SOPInstanceUID = "1.2.3.10", f"1.2.3.10.{number}"
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.save_as(file.with_name(f"again{number}.dcm"))
    path = drawn(tmp_path / "series" / "rt.dcm", [middle(scan)], frames=[frame])
    with_frames(path, (frame, uid), (frame, "1.2.3.10"))
    with pytest.raises(UsageError, match="several of its series"):
        rtstruct.read(path, ONE)
