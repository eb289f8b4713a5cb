from itertools import pairwise

import numpy as np
import pydicom
import pytest
from skimage.draw import polygon2mask
from support.dicom_masks import (
    DIRECTIONS,
    GHOST,
    LABELS,
    LEFT,
    SHAPE,
    a_mask,
    a_scan,
    an_enhanced_scan,
    edited,
    errors_of_dciodvfy,
)

from medseg import io
from medseg.errors import InputRefused, InputWarning, UsageError
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask, Source, Volume
from medseg.io.dicom import rtstruct
from medseg.io.dicom.contours import filled, outlines

# Most masks here have a label without voxels, for which a structure set is read with a notice.
pytestmark = pytest.mark.filterwarnings("ignore:.*no contours in ROI:medseg.errors.InputWarning")


@pytest.fixture
def scan(tmp_path):
    return a_scan(tmp_path)


def written(mask, tmp_path, name="mask.dcm"):
    path = tmp_path / name
    rtstruct.write(mask, path)
    return path


def refusal(kind, reason, call, *args):
    with pytest.raises(kind) as caught:
        call(*args)
    assert caught.value.reason == reason
    assert caught.value.remedy
    return caught.value


def by_skimage(path, scan: Volume) -> np.ndarray:
    """Booleans (ROIs, X, Y, Z): polygons filled by scikit-image, on the slices they refer to."""
    ds = pydicom.dcmread(path)
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in scan.source.files]
    place = {header.SOPInstanceUID: k for k, header in enumerate(headers)}
    columns, rows, depth = scan.grid.shape
    found = np.zeros((len(ds.ROIContourSequence), columns, rows, depth), bool)
    for n, roi in enumerate(ds.ROIContourSequence):
        for contour in roi.get("ContourSequence", []):
            image = contour.ContourImageSequence[0]
            k = place[image.ReferencedSOPInstanceUID]
            if "ReferencedFrameNumber" in image:
                k = depth - image.ReferencedFrameNumber  # frames run against the third axis
                frame = headers[0].PerFrameFunctionalGroupsSequence[image.ReferencedFrameNumber - 1]
                position, cosines = frame.PlanePositionSequence[0].ImagePositionPatient, [1, 0, 0, 0, 1, 0]
                spacing = [1.1, 0.8]
            else:
                header = headers[k]
                position, cosines = header.ImagePositionPatient, header.ImageOrientationPatient
                spacing = header.PixelSpacing
            points = np.reshape(np.array(contour.ContourData, float), (-1, 3)) - np.array(position, float)
            row, column = np.reshape(np.array(cosines, float), (2, 3))
            assert np.abs(points @ np.cross(row, column)).max() < 1e-3  # planar, on the slice
            pixels = np.column_stack([points @ row / spacing[1], points @ column / spacing[0]])
            assert len(pixels) == contour.NumberOfContourPoints
            found[n, :, :, k] ^= polygon2mask((columns, rows), pixels)
    return found


# --- outlines and filling ----------------------------------------------------------------


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.97])
def test_any_region_comes_back_from_its_outlines_and_skimage_agrees(share):
    rng = np.random.default_rng(5)
    for _ in range(40):
        shape = tuple(int(n) for n in rng.integers(1, 24, 2))
        region = rng.random(shape) < share
        polygons = outlines(region)
        ours = np.array([filled(p, shape) for p in polygons] or [np.zeros(shape, bool)])
        assert ours.sum(axis=0).max() <= 1  # apart: nobody has to know how to combine them
        assert np.array_equal(ours.any(axis=0), region)
        theirs = np.array([polygon2mask(shape, p) for p in polygons] or [np.zeros(shape, bool)])
        assert np.array_equal(theirs.any(axis=0), region)


def test_outline_of_a_pixel_and_of_a_ring():
    # One pixel at (2, 3): a diamond through the four points halfway to its neighbours.
    (diamond,) = outlines(np.pad([[True]], ((2, 2), (3, 3))))
    assert {tuple(p) for p in diamond} == {(1.5, 3), (2.5, 3), (2, 2.5), (2, 3.5)}
    ring = np.ones((5, 5), bool)
    ring[2, 2] = False
    (keyhole,) = outlines(ring)
    edges = [frozenset((tuple(a), tuple(b))) for a, b in pairwise([*keyhole, keyhole[0]])]
    (channel,) = {edge for edge in edges if edges.count(edge) == 2}  # walked in and out
    assert len({tuple(p) for p in keyhole}) == len(keyhole) - 2
    for start, end in [tuple(channel)]:
        way = np.linspace(start, end, 101)
        assert np.abs(way - np.rint(way)).max(axis=1).min() > 0.01  # clear of pixel centres


def test_straight_edges_have_no_points_between_their_ends():
    (box,) = outlines(np.ones((40, 30), bool))
    assert len(box) == 8  # four sides, four cut corners


# --- round trips -------------------------------------------------------------------------


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_it_is_read_back_and_skimage_fills_the_same_voxels(tmp_path, direction):
    scan = a_scan(tmp_path, direction)
    mask = a_mask(scan)
    path = written(mask, tmp_path)
    for reference in (scan, scan.grid, mask):
        back = rtstruct.read(path, LABELS, reference)
        assert back.grid == scan.grid
        assert np.array_equal(back.array, mask.array)  # Dice 1.000
    drawn = by_skimage(path, scan)
    assert np.array_equal(drawn, [np.isin(mask.array, label.values) for label in LABELS])


def test_a_multi_frame_scan(tmp_path):
    scan = an_enhanced_scan(tmp_path)
    mask = a_mask(scan)
    path = written(mask, tmp_path)
    assert np.array_equal(by_skimage(path, scan), [np.isin(mask.array, x.values) for x in LABELS])
    assert np.array_equal(rtstruct.read(path, LABELS, scan).array, mask.array)


@pytest.mark.parametrize("codes", ["RAS", "PIR", "SAL"])
def test_a_reference_with_other_axes(scan, tmp_path, codes):
    mask = a_mask(scan)
    path = written(mask.oriented(codes), tmp_path)
    back = rtstruct.read(path, LABELS, scan.grid.oriented(codes))
    assert np.array_equal(back.array, mask.oriented(codes).array)


def test_the_series_beside_it_is_its_reference(scan, tmp_path):
    mask = a_mask(scan)
    (tmp_path / "elsewhere").mkdir()
    path = written(mask, tmp_path / "elsewhere")
    refusal(UsageError, "no-reference", rtstruct.read, path, LABELS)
    beside = path.rename(tmp_path / "series" / "rs.dcm")
    back = rtstruct.read(beside, LABELS)
    assert back.grid == scan.grid
    assert np.array_equal(io.read_mask(beside, LABELS).array, mask.array)


def test_holes_islands_in_holes_and_full_slices(scan, tmp_path):
    numbers = np.zeros(SHAPE, np.uint8)
    numbers[:, :, 1] = 2
    numbers[1:6, 1:8, 2] = 2
    numbers[2:5, 2:7, 2] = 0
    numbers[3, 3:6, 2] = 2
    mask = Mask(numbers, scan.grid, (LEFT,), scan.source)
    path = written(mask, tmp_path)
    assert np.array_equal(by_skimage(path, scan)[0], numbers == 2)
    assert np.array_equal(rtstruct.read(path, (LEFT,), scan).array, numbers)
    assert len(pydicom.dcmread(path).ROIContourSequence[0].ContourSequence) == 3


@pytest.mark.parametrize("values", [(0,), (0, 2)])
def test_empty_masks_and_labels_without_voxels(scan, tmp_path, values):
    mask = a_mask(scan, (LEFT, GHOST), values)
    path = written(mask, tmp_path)
    assert np.array_equal(rtstruct.read(path, (LEFT, GHOST), scan).array, mask.array)
    assert "ContourSequence" not in pydicom.dcmread(path).ROIContourSequence[1]
    assert errors_of_dciodvfy(path) == []


def test_slices_a_little_off_even_spacing_keep_their_own_positions(tmp_path):
    scan = a_scan(tmp_path, "axial")
    edited(
        scan.source.files[2],
        lambda ds: ds.ImagePositionPatient.__setitem__(2, ds.ImagePositionPatient[2] + 0.08),
    )
    with pytest.warns(InputWarning, match="even"):
        scan = io.read(tmp_path / "series")
    mask = a_mask(scan)
    path = written(mask, tmp_path)
    assert np.array_equal(by_skimage(path, scan)[1], mask.array == 2)
    assert np.array_equal(rtstruct.read(path, LABELS, scan).array, mask.array)


# --- what is written ---------------------------------------------------------------------


def test_it_refers_to_its_scan_and_keeps_patient_and_study(scan, tmp_path):
    for file in scan.source.files:
        edited(file, lambda ds: ds.update({"PatientName": "Doe^Jane", "StudyDate": "20200102",
            "AccessionNumber": "A1", "InstitutionName": "secret", "SeriesDate": "20200103"}))  # fmt: skip
    ds = pydicom.dcmread(written(a_mask(scan), tmp_path))
    sources = [pydicom.dcmread(file) for file in scan.source.files]
    for name in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate", "AccessionNumber"):
        assert ds[name].value == sources[0][name].value
    (frame,) = ds.ReferencedFrameOfReferenceSequence
    (study,) = frame.RTReferencedStudySequence
    (series,) = study.RTReferencedSeriesSequence
    assert frame.FrameOfReferenceUID == sources[0].FrameOfReferenceUID
    assert study.ReferencedSOPInstanceUID == sources[0].StudyInstanceUID
    assert series.SeriesInstanceUID == sources[0].SeriesInstanceUID != ds.SeriesInstanceUID
    images = [item.ReferencedSOPInstanceUID for item in series.ContourImageSequence]
    assert images == [source.SOPInstanceUID for source in sources]
    assert (ds.StructureSetDate, ds.Modality) == ("20200103", "RTSTRUCT")
    assert "secret" not in str(ds)
    assert str(tmp_path) not in str(ds)


def test_regions_have_values_terms_and_colours(scan, tmp_path):
    ds = pydicom.dcmread(written(a_mask(scan), tmp_path))
    assert [(roi.ROINumber, roi.ROIName) for roi in ds.StructureSetROISequence] == [
        (label.value, label.name) for label in LABELS
    ]
    kind = ds.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("39607008", "SCT")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Right"
    colours = [tuple(item.ROIDisplayColor) for item in ds.ROIContourSequence]
    assert colours[:2] == [(86, 180, 233), (230, 159, 0)]  # as in pictures: sky blue, orange
    assert len(set(colours)) == len(LABELS)
    assert all(0 <= part <= 255 for colour in colours for part in colour)
    assert {roi.ROIGenerationAlgorithm for roi in ds.StructureSetROISequence} == {"AUTOMATIC"}


def test_equal_masks_give_equal_bytes_and_others_other_uids(scan, tmp_path):
    one, same = written(a_mask(scan), tmp_path, "1.dcm"), written(a_mask(scan), tmp_path, "2.dcm")
    other = written(a_mask(scan, seed=2), tmp_path, "3.dcm")
    assert one.read_bytes() == same.read_bytes()
    assert pydicom.dcmread(one).SOPInstanceUID != pydicom.dcmread(other).SOPInstanceUID


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_dciodvfy_finds_no_error(tmp_path, modality):
    scan = a_scan(tmp_path, modality=modality)
    assert errors_of_dciodvfy(written(a_mask(scan), tmp_path)) == []


def test_a_real_scan(shared_data, tmp_path):
    scan = io.read(shared_data / "dicom" / "mr_t1post_22slices")
    numbers = (scan.array > np.quantile(scan.array, 0.9)).astype(np.uint8)
    numbers[:, :, :18] = 0
    mask = Mask(numbers, scan.grid, (Label(name="brain", values=(1,)),), scan.source)
    path = written(mask, tmp_path)
    assert errors_of_dciodvfy(path) == []
    assert np.array_equal(rtstruct.read(path, mask.labels, scan).array, numbers)
    assert np.array_equal(by_skimage(path, scan)[0], numbers == 1)


def test_a_mask_without_dicom_source_is_refused(scan, tmp_path):
    plain = Mask(a_mask(scan).array, scan.grid, LABELS, Source())
    refusal(UsageError, "no-dicom-source", rtstruct.write, plain, tmp_path / "x.dcm")


# --- other people's files ----------------------------------------------------------------


def in_world(grid: Grid, points) -> list[float]:
    """ContourData of points in voxels."""
    return [float(v) for v in (grid.world(points) * (-1, -1, 1)).ravel()]


def drawn(scan, tmp_path, contours, kind="CLOSED_PLANAR"):
    """A structure set with one ROI of the given contours, each a list of voxel positions."""
    mask = Mask(np.zeros(SHAPE, np.uint8), scan.grid, (LEFT,), scan.source)

    def draw(ds):
        items = []
        for points in contours:
            item = pydicom.Dataset()
            item.ContourGeometricType, item.NumberOfContourPoints = kind, len(points)
            item.ContourData = [f"{v:.10g}" for v in in_world(scan.grid, points)]
            items.append(item)
        ds.ROIContourSequence[0].ContourSequence = items

    return edited(written(mask, tmp_path), draw)


def box(x0, x1, y0, y1, z=2.0):
    return [(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)]


@pytest.mark.parametrize("kind", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR"])
def test_nested_contours_are_holes(scan, tmp_path, kind):
    island = box(2.6, 3.4, 2.6, 3.4)
    path = drawn(scan, tmp_path, [island, box(0.5, 5.5, 0.5, 6.5), box(1.5, 4.5, 1.5, 5.5)], kind)
    truth = np.zeros(SHAPE, np.uint8)
    truth[1:6, 1:7, 2] = 2
    truth[2:5, 2:6, 2] = 0
    truth[3, 3, 2] = 2
    assert np.array_equal(rtstruct.read(path, (LEFT,), scan).array, truth)


def test_contours_that_cross_are_refused(scan, tmp_path):
    crossing = [box(0.5, 3.5, 0.5, 3.5), box(2.5, 5.5, 2.5, 5.5)]
    refusal(InputRefused, "crossing-contours", rtstruct.read, drawn(scan, tmp_path, crossing), (LEFT,), scan)
    by_xor = drawn(scan, tmp_path, crossing, "CLOSEDPLANAR_XOR")  # says itself what is meant
    assert np.count_nonzero(rtstruct.read(by_xor, (LEFT,), scan).array) == 9 + 9 - 2


@pytest.mark.parametrize("kind", ["POINT", "OPEN_PLANAR", "OPEN_NONPLANAR"])
def test_contours_without_an_inside_are_refused(scan, tmp_path, kind):
    path = drawn(scan, tmp_path, [box(1, 2, 1, 2)], kind)
    refusal(InputRefused, "open-contour", rtstruct.read, path, (LEFT,), scan)


@pytest.mark.parametrize(
    "points",
    [
        box(1, 4, 1, 4, z=2.4),  # between two slices
        [(1, 1, 2), (4, 1, 2), (4, 4, 2.6), (1, 4, 2.6)],  # not planar
        box(1, 4, 1, 4, z=6.4),  # between two slices that the scan does not have
        box(1, 700, 1, 4),  # 550 mm beyond the pixels
    ],
)
def test_contours_off_the_scan_are_refused(scan, tmp_path, points):
    path = drawn(scan, tmp_path, [box(1, 2, 1, 2), points])
    refusal(InputRefused, "contour-off-grid", rtstruct.read, path, (LEFT,), scan)


def test_rounded_positions_are_taken(scan, tmp_path):
    path = drawn(scan, tmp_path, [box(0.5, 2.5, 0.5, 3.5, z=2.04)])
    assert np.count_nonzero(rtstruct.read(path, (LEFT,), scan).array) == 6


def test_another_scans_contours_are_refused(scan, tmp_path):
    path = written(a_mask(scan), tmp_path)
    (tmp_path / "other").mkdir()
    other = a_scan(tmp_path / "other", seed=7)  # same grid, another frame of reference
    refusal(InputRefused, "frame-of-reference", rtstruct.read, path, LABELS, other)


@pytest.mark.parametrize("data", [["1", "2"], [], ["1", "2", "nan"]])
def test_damaged_contours_are_refused(scan, tmp_path, data):
    path = drawn(scan, tmp_path, [box(1, 2, 1, 2)])

    def damage(ds):
        ds.ROIContourSequence[0].ContourSequence[0].ContourData = data

    refusal(InputRefused, "unreadable", rtstruct.read, edited(path, damage), (LEFT,), scan)


def test_a_file_without_regions_is_refused(scan, tmp_path):
    path = edited(written(a_mask(scan), tmp_path), lambda ds: ds.__delitem__("StructureSetROISequence"))
    refusal(InputRefused, "unreadable", rtstruct.read, path, LABELS, scan)


def test_regions_are_found_by_name_and_other_numbers_do_not_become_values(scan, tmp_path):
    def rename(ds):
        for n, roi in enumerate(ds.StructureSetROISequence):
            roi.ROIName, roi.ROIDescription, roi.ROINumber = f"Region {n}", "", 1_000_000 + n
            ds.ROIContourSequence[n].ReferencedROINumber = 1_000_000 + n

    mask = a_mask(scan, (LEFT, GHOST), (0, 2))
    path = edited(written(mask, tmp_path), rename)
    assert [s.value for s in rtstruct.list_segments(path)] == [1, 2]
    renamed = Label(name="region-0", values=(7,))
    assert np.array_equal(rtstruct.read(path, (renamed,), scan).array, np.where(mask.array, 7, 0))
    refusal(InputRefused, "no-such-segment", rtstruct.read, path, (LEFT,), scan)


# --- through the package's own functions -------------------------------------------------


def test_write_and_read_mask_know_the_format(scan, tmp_path):
    mask = a_mask(scan)
    path = mask.save(tmp_path / "rs.dcm", format="rtstruct")
    assert np.array_equal(io.read_mask(path, LABELS, scan).array, mask.array)
    assert [s.name for s in io.list_segments(path)] == [label.name for label in LABELS]
    error = refusal(InputRefused, "no-scan", io.read, path)
    assert "--as-mask" in error.remedy
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
