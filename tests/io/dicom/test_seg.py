import builtins
import json
import warnings

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.codedict import codes
from pydicom.uid import RLELossless
from skimage.color import rgb2lab
from support.dicom_masks import (
    DIRECTIONS,
    GHOST,
    LABELS,
    LEFT,
    NODULE,
    RIGHT,
    a_foreign,
    a_mask,
    a_scan,
    an_enhanced_scan,
    edited,
    errors_of_dciodvfy,
)

from medseg import io
from medseg.errors import InputRefused, InputWarning, ResourceError, UsageError
from medseg.images.label import Label
from medseg.images.palette import rgb
from medseg.images.volume import Mask, Source, Volume
from medseg.io import output_checks
from medseg.io.dicom import coded_terms, rtstruct, seg, source_series
from medseg.io.dicom.segments import Segment
from medseg.visualization.viewer.scene import scene


@pytest.fixture
def scan(tmp_path):
    return a_scan(tmp_path)


def written(mask, tmp_path, name="mask.dcm"):
    path = tmp_path / name
    seg.write(mask, path)
    return path


def by_highdicom(path, scan: Volume) -> np.ndarray:
    """Booleans (segments, X, Y, Z) as highdicom reads them, found by the slices they refer to."""
    seg = highdicom.seg.segread(path)
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in scan.source.files]
    if "NumberOfFrames" in headers[0]:
        stored = seg.get_pixels_by_source_frame(
            headers[0].SOPInstanceUID,
            list(range(1, headers[0].NumberOfFrames + 1)),
            assert_missing_frames_are_empty=True,
        )[::-1]
    else:
        stored = seg.get_pixels_by_source_instance(
            [ds.SOPInstanceUID for ds in headers], assert_missing_frames_are_empty=True
        )
    return stored.astype(bool).transpose(3, 2, 1, 0)


def refusal(kind, reason, call, *args, **options):
    with pytest.raises(kind) as caught:
        call(*args, **options)
    assert caught.value.reason == reason
    assert caught.value.remedy
    return caught.value


# --- round trips -------------------------------------------------------------------------


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_highdicom_reads_the_same_voxels(tmp_path, direction, modality):
    scan = a_scan(tmp_path, direction, modality=modality)
    mask = a_mask(scan)
    decoded = by_highdicom(written(mask, tmp_path), scan)
    assert np.array_equal(decoded, [np.isin(mask.array, label.values) for label in LABELS])


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_it_is_read_back_on_the_scans_grid(tmp_path, direction):
    scan = a_scan(tmp_path, direction)
    mask = a_mask(scan)
    for reference in (scan, scan.grid, mask):
        back = seg.read(written(mask, tmp_path), LABELS, reference)
        assert back.grid == scan.grid
        assert np.array_equal(back.array, mask.array)
        assert back.labels == LABELS


def test_a_multi_frame_scan(tmp_path):
    scan = an_enhanced_scan(tmp_path)
    mask = a_mask(scan)
    path = written(mask, tmp_path)
    assert np.array_equal(by_highdicom(path, scan), [np.isin(mask.array, x.values) for x in LABELS])
    assert np.array_equal(seg.read(path, LABELS, scan).array, mask.array)


def test_a_mask_with_its_axes_moved_and_a_reference_of_other_axes(scan, tmp_path):
    mask = a_mask(scan)
    path = written(mask.oriented("RAS"), tmp_path)
    moved = seg.read(path, LABELS, scan.oriented("PIR").grid)
    assert moved.grid == scan.grid.oriented("PIR")
    assert np.array_equal(moved.array, mask.oriented("PIR").array)


def test_without_a_reference_the_grid_holds_the_stored_slices(scan, tmp_path):
    # The first slice is empty and not stored: 4 of 5 slices, from the second on.
    mask = a_mask(scan, (LEFT,), (0, 2))
    back = seg.read(written(mask, tmp_path), (LEFT,))
    assert back.grid.shape == (*scan.grid.shape[:2], 4)
    assert np.allclose(back.grid.world((0, 0, 0)), scan.grid.world((0, 0, 1)), atol=1e-6)
    assert np.allclose(back.affine[:3, :3], scan.affine[:3, :3], atol=1e-6)
    assert np.array_equal(back.array, mask.array[:, :, 1:])
    assert io.read_mask(tmp_path / "mask.dcm", (LEFT,)).grid == back.grid


def test_gaps_between_stored_slices_are_empty_slices(scan, tmp_path):
    numbers = np.zeros(scan.grid.shape, np.uint8)
    numbers[1, 2, 0] = numbers[3, 4, 3] = 2
    back = seg.read(written(Mask(numbers, scan.grid, (LEFT,), scan.source), tmp_path), (LEFT,))
    assert np.array_equal(back.array, numbers[:, :, :4])


@pytest.mark.parametrize("values", [(0,), (0, 2)])
def test_empty_masks_and_labels_without_voxels(scan, tmp_path, values):
    mask = a_mask(scan, (LEFT, GHOST), values)
    path = written(mask, tmp_path)
    back = seg.read(path, (LEFT, GHOST), scan)
    assert np.array_equal(back.array, mask.array)
    assert back.volumes_ml()["ghost"] == 0
    assert [item.SegmentLabel for item in pydicom.dcmread(path).SegmentSequence] == ["left_lung", "ghost"]
    assert errors_of_dciodvfy(path) == []


def test_slices_a_little_off_even_spacing_keep_their_own_positions(tmp_path):
    scan = a_scan(tmp_path, "axial")
    third = scan.source.files[2]
    edited(third, lambda ds: ds.ImagePositionPatient.__setitem__(2, ds.ImagePositionPatient[2] + 0.04))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        scan = io.read(tmp_path / "series")
    mask = a_mask(scan)
    assert np.array_equal(seg.read(written(mask, tmp_path), LABELS, scan).array, mask.array)


# --- what is written ---------------------------------------------------------------------


def test_values_are_segment_numbers_where_they_can_be(scan, tmp_path):
    path = written(a_mask(scan, (GHOST, NODULE, LEFT, Label(name="one", values=(1,)))), tmp_path)
    assert [(s.number, s.name) for s in seg.list_segments(path)] == [
        (1, "one"), (2, "left_lung"), (3, "right_nodule"), (4, "ghost")
    ]  # fmt: skip
    far = Label(name="far", values=(700,))
    mask = a_mask(scan, (far, LEFT), (0, 2))
    path = written(Mask(np.where(mask.array, 700, 0), mask.grid, (far, LEFT), scan.source), tmp_path)
    assert seg.list_segments(path) == (
        Segment(1, "far", 700),
        Segment(2, "left_lung", 2),
    )
    back = seg.read(path, (), scan)  # without labels: names and values of the file
    assert {label.name: label.value for label in back.labels} == {"far": 700, "left_lung": 2}
    assert set(np.unique(back.array)) == {0, 700}


def test_values_without_a_label_are_kept(scan, tmp_path):
    mask = a_mask(scan, (LEFT,), (0, 2, 9))
    back = seg.read(written(mask, tmp_path), (), scan)
    assert np.array_equal(back.array, mask.array)
    assert [label.name for label in back.labels] == ["left_lung", "value 9"]
    empty = Mask(mask.array * 0, scan.grid, (), scan.source)
    refusal(UsageError, "labels", seg.write, empty, tmp_path / "no.dcm")


def test_it_refers_to_its_scan_and_keeps_patient_and_study(scan, tmp_path):
    for file in scan.source.files:
        edited(file, lambda ds: ds.update({"PatientName": "Müller^Ä", "SpecificCharacterSet": "ISO_IR 100",
            "StudyDate": "20200102", "PatientSex": "O", "PatientAge": "044Y", "SeriesDate": "20200103",
            "SeriesTime": "0405", "InstitutionName": "secret", "StationName": "secret"}))  # fmt: skip
    ds = pydicom.dcmread(written(a_mask(scan), tmp_path))
    sources = [pydicom.dcmread(file) for file in scan.source.files]
    for name in ("PatientID", "PatientSex", "PatientAge", "StudyInstanceUID", "StudyDate"):
        assert ds[name].value == sources[0][name].value
    assert str(ds.PatientName) == "Müller^Ä"
    assert ds.FrameOfReferenceUID == sources[0].FrameOfReferenceUID
    (series,) = ds.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == sources[0].SeriesInstanceUID != ds.SeriesInstanceUID
    uids = {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence}
    assert uids == {source.SOPInstanceUID for source in sources}
    by_uid = {source.SOPInstanceUID: source for source in sources}
    for frame in ds.PerFrameFunctionalGroupsSequence:
        image = frame.DerivationImageSequence[0].SourceImageSequence[0]
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        assert position == by_uid[image.ReferencedSOPInstanceUID].ImagePositionPatient
    assert (ds.ContentDate, ds.ContentTime) == ("20200103", "0405")
    assert "InstanceCreationDate" not in ds
    assert "secret" not in str(ds)
    assert str(tmp_path) not in str(ds)
    assert errors_of_dciodvfy(tmp_path / "mask.dcm") == []


def test_equal_masks_give_equal_bytes_and_others_other_uids(scan, tmp_path):
    one, same = written(a_mask(scan), tmp_path, "1.dcm"), written(a_mask(scan), tmp_path, "2.dcm")
    other = written(a_mask(scan, seed=2), tmp_path, "3.dcm")
    assert one.read_bytes() == same.read_bytes()
    assert pydicom.dcmread(one).SOPInstanceUID != pydicom.dcmread(other).SOPInstanceUID
    assert pydicom.dcmread(one).SeriesInstanceUID != pydicom.dcmread(other).SeriesInstanceUID


def test_coded_terms_and_algorithm(scan, tmp_path):
    right, _, nodule, ghost = pydicom.dcmread(written(a_mask(scan), tmp_path)).SegmentSequence
    assert right.SegmentAlgorithmType == "AUTOMATIC"
    assert right.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "medseg"
    kind = right.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodeMeaning) == ("39607008", "Lung")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == "24028007"
    assert right.SegmentedPropertyCategoryCodeSequence[0].CodeValue == codes.CID7150.AnatomicalStructure.value
    assert nodule.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Nodule"
    assert ghost.SegmentedPropertyTypeCodeSequence[0].CodeValue == "85756007"
    assert "SegmentedPropertyTypeModifierCodeSequence" not in ghost.SegmentedPropertyTypeCodeSequence[0]


@pytest.mark.parametrize("name", ["first", "aorta", "lung_upper_lobe_left"])
def test_a_class_has_one_colour_in_seg_rtstruct_and_viewer(scan, tmp_path, name):
    """The SEG's colour is CIELab (PS3.3 C.10.7.1.1), of daylight D65 as viewers take it; scikit-image's."""
    labels = (Label(name=name, values=(1,)), Label(name="other", values=(30,)))
    array = np.zeros(scan.grid.shape, np.uint8)
    array[1:4, 2:6, 1:3], array[5:8, 2:6, 1:3] = 1, 30
    mask = Mask(array, scan.grid, labels, scan.source)
    (layer,) = json.loads(scene(scan, [("mask", mask)]).files["scene.json"])["masks"]
    shown = [each["colour"] for each in layer["labels"]]
    rtstruct.write(mask, tmp_path / "rt.dcm")
    items = pydicom.dcmread(tmp_path / "rt.dcm").ROIContourSequence
    assert [tuple(item.ROIDisplayColor) for item in items] == [rgb(colour) for colour in shown]
    for item, colour in zip(pydicom.dcmread(written(mask, tmp_path)).SegmentSequence, shown, strict=True):
        lightness, a, b = np.array(item.RecommendedDisplayCIELabValue) / 65535
        found = [100 * lightness, 255 * a - 128, 255 * b - 128]
        np.testing.assert_allclose(found, rgb2lab(np.array(rgb(colour)) / 255), atol=0.3)


def test_every_term_is_the_standards():
    # pydicom's tables are made from PS3.16 itself; one code may have several meanings there.
    listed = {(code, entry[0]) for codes_ in concepts["SCT"].values() for code, entry in codes_.items()}
    terms_used = {term for pair in coded_terms.TABLE.values() for term in pair}
    terms_used |= {
        coded_terms.TISSUE,
        coded_terms.BOTH_SIDES,
        *coded_terms.SIDES.values(),
        *coded_terms.PARTS.values(),
    }
    for term in terms_used:
        meanings = {meaning.split(" (")[0] for code, meaning in listed if code == term.value}
        assert term.meaning in meanings, (term, meanings)
    assert coded_terms.ARTIFICIAL_INTELLIGENCE.value == codes.CID7162.ArtificialIntelligence.value
    categories = {codes.CID7150.AnatomicalStructure.value, codes.CID7150.Tissue.value}
    categories.add(codes.CID7150.MorphologicallyAbnormalStructure.value)
    assert {category.value for category, _ in coded_terms.TABLE.values()} | {
        coded_terms.TISSUE.value
    } == categories


@pytest.mark.parametrize(
    ("label", "kind", "side"),
    [
        (Label(name="Left Lung", values=(1,)), "Lung", "Left"),
        (Label(name="lungs", values=(1,)), "Lung", "Right and left"),
        (Label(name="lung", values=(1,), side="right"), "Lung", "Right"),
        (Label(name="left_ventricle", values=(1,)), "Tissue", None),  # a ventricle is not a left anything
        (Label(name="thing", values=(1,), side="left"), "Tissue", "Left"),
    ],
)
def test_meaning_of_a_label(label, kind, side):
    found = coded_terms.meaning(label)
    assert found.type.meaning == kind
    assert [term.meaning for term in found.modifiers] == ([side] if side else [])


@pytest.mark.parametrize("kind", ["CT", "MR"])
def test_dciodvfy_finds_no_error(tmp_path, kind):
    scan = a_scan(tmp_path, modality=kind)
    assert errors_of_dciodvfy(written(a_mask(scan), tmp_path)) == []
    assert errors_of_dciodvfy(scan.source.files[0]) == []


def test_a_real_scan(shared_data, tmp_path):
    scan = io.read(shared_data / "dicom" / "mr_t1post_22slices")
    numbers = (scan.array > np.quantile(scan.array, 0.9)).astype(np.uint8)
    mask = Mask(numbers, scan.grid, (Label(name="brain", values=(1,)),), scan.source)
    path = written(mask, tmp_path)
    assert errors_of_dciodvfy(path) == []
    assert np.array_equal(by_highdicom(path, scan)[0], numbers == 1)
    assert np.array_equal(seg.read(path, mask.labels, scan).array, numbers)


# --- refusals when writing ---------------------------------------------------------------


def test_a_mask_without_dicom_source_is_refused(scan, tmp_path):
    mask = a_mask(scan)
    for source in (Source(), Source(tmp_path, "nifti"), Source(tmp_path, "dicom")):
        plain = Mask(mask.array, mask.grid, LABELS, source)
        refusal(UsageError, "no-dicom-source", seg.write, plain, tmp_path / "x.dcm")


def test_a_mask_that_lies_elsewhere_is_refused(scan, tmp_path):
    smaller = Mask(
        np.zeros((2, 2, 2), np.uint8), type(scan.grid)((2, 2, 2), scan.affine), LABELS, scan.source
    )
    refusal(InputRefused, "grid-mismatch", seg.write, smaller, tmp_path / "x.dcm")


@pytest.mark.parametrize("tag", ["StudyInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID"])
def test_a_scan_without_identifiers_is_refused(scan, tmp_path, tag):
    for file in scan.source.files:
        edited(file, lambda ds: setattr(ds, tag, ""))
    refusal(InputRefused, "source-incomplete", seg.write, a_mask(scan), tmp_path / "x.dcm")


def test_a_deleted_scan_is_refused(scan, tmp_path):
    scan.source.files[1].unlink()
    refusal(InputRefused, "not-found", seg.write, a_mask(scan), tmp_path / "x.dcm")


def test_sources_that_highdicom_cannot_refer_to_are_refused(scan, tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise ValueError("the patient's name")

    monkeypatch.setattr(highdicom.seg, "Segmentation", refuse)
    error = refusal(InputRefused, "source-incomplete", seg.write, a_mask(scan), tmp_path / "x.dcm")
    assert "patient" not in str(error)


@pytest.mark.parametrize("name", ["a\\b", "x" * 65, "a\nb"])
def test_names_that_dicom_cannot_hold_are_refused(scan, tmp_path, name):
    mask = a_mask(scan, (Label(name=name, values=(1,)),), (0, 1))
    refusal(UsageError, "label-name", seg.write, mask, tmp_path / "x.dcm")


def test_without_highdicom_the_extra_is_named(scan, tmp_path, monkeypatch):
    monkeypatch.setattr(output_checks, "find_spec", lambda name: None)
    error = refusal(ResourceError, "missing-extra", seg.write, a_mask(scan), tmp_path / "x.dcm")
    assert "medseg[dicom]" in str(error)


def test_reading_needs_no_highdicom(scan, tmp_path, monkeypatch):
    path = written(a_mask(scan), tmp_path)
    real = builtins.__import__

    def without(name, *args, **options):
        assert not name.startswith("highdicom")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    seg.read(path, LABELS, scan)


# --- other people's files ----------------------------------------------------------------


def frames(scan, values=(0, 1, 2), seed=3):
    return np.random.default_rng(seed).choice(values, scan.grid.shape[::-1]).astype(np.uint8)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_segments_are_found_by_name(scan, tmp_path, kind):
    pixels = frames(scan)
    path = a_foreign(scan, tmp_path, pixels, kind)
    truth = pixels.transpose(2, 1, 0)
    back = seg.read(path, (LEFT,), scan)  # "Left Lung" and left_lung are one name; Liver is left out
    assert np.array_equal(back.array, np.where(truth == 1, 2, 0))
    everything = seg.read(path, (), scan)
    assert np.array_equal(everything.array, truth)
    assert [label.name for label in everything.labels] == ["Left Lung", "Liver"]


def test_rle_compressed_label_maps_are_read(scan, tmp_path):
    pixels = frames(scan)
    path = a_foreign(scan, tmp_path, pixels, "LABELMAP")
    # GDCM's encoder, which pydicom prefers, aborts the process on so small a frame.
    edited(path, lambda ds: ds.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False))
    assert np.array_equal(seg.read(path, (), scan).array, pixels.transpose(2, 1, 0))


def test_labels_without_a_segment(scan, tmp_path):
    path = a_foreign(scan, tmp_path, frames(scan))
    liver = Label(name="liver", values=(5,))
    with pytest.warns(InputWarning, match="ghost"):
        back = seg.read(path, (LEFT, liver, GHOST), scan)
    assert back.volumes_ml()["ghost"] == 0
    # "Liver" may be what is meant: then an empty ghost would be wrong.
    for labels in ((LEFT, GHOST), (RIGHT, GHOST)):
        refusal(InputRefused, "no-such-segment", seg.read, path, labels, scan)


def test_fractional_segmentations_are_refused(scan, tmp_path):
    path = a_foreign(scan, tmp_path, frames(scan, (0.0, 0.5, 1.0)) / 2.0, "FRACTIONAL", ("Lung",),
                     fractional_type="PROBABILITY")  # fmt: skip
    refusal(InputRefused, "fractional-segmentation", seg.read, path, (), scan)


def test_overlapping_segments_need_labels_that_explain_them(scan, tmp_path):
    pixels = np.zeros((*scan.grid.shape[::-1], 2), np.uint8)
    pixels[2, 1:5, 1:5, 0] = pixels[2, 3, 3, 1] = 1
    path = a_foreign(scan, tmp_path, pixels)
    error = refusal(InputRefused, "overlapping-segments", seg.read, path, (), scan)
    assert "1 voxel" in str(error)
    apart = (LEFT, Label(name="liver", values=(5,)))
    refusal(InputRefused, "overlapping-segments", seg.read, path, apart, scan)
    inside = (Label(name="left_lung", values=(2, 5)), Label(name="liver", values=(5,)))
    back = seg.read(path, inside, scan)
    assert back.array[3, 3, 2] == 5
    assert np.count_nonzero(back.array == 2) == 15  # 4 x 4 without the one voxel


def test_segments_of_one_name_without_labels_get_their_numbers(scan, tmp_path):
    path = a_foreign(scan, tmp_path, frames(scan), names=("x", "x"))
    assert [label.name for label in seg.read(path, (), scan).labels] == ["x 1", "x 2"]
    assert seg.list_segments(path)[1] == Segment(2, "x", 2)


@pytest.mark.parametrize("digits", [0.1, 0.01])
def test_rounded_positions_and_spacings_are_the_scans(scan, tmp_path, digits):
    """As written with one or two decimals, or with a spacing that is 0.02 mm off at the end of a row."""

    def rounded(ds):
        for frame in ds.PerFrameFunctionalGroupsSequence:
            position = frame.PlanePositionSequence[0]
            position.ImagePositionPatient = [
                f"{round(float(v) / digits) * digits:.3f}" for v in position.ImagePositionPatient
            ]
        measures = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        measures.PixelSpacing = [f"{float(v) + 0.0025:.6f}" for v in measures.PixelSpacing]

    mask = a_mask(scan)
    path = edited(written(mask, tmp_path), rounded)
    with pytest.warns(InputWarning, match="mm from the scan's, less than half a voxel"):
        assert np.array_equal(seg.read(path, LABELS, scan).array, mask.array)


def test_another_scans_segmentation_is_refused(scan, tmp_path):
    path = written(a_mask(scan), tmp_path)
    (tmp_path / "other").mkdir()
    other = a_scan(tmp_path / "other", seed=7)  # same grid, another frame of reference
    refusal(InputRefused, "frame-of-reference", seg.read, path, LABELS, other)
    shifted = scan.affine.copy()
    shifted[:3, 3] += 0.3
    moved = type(scan.grid)(scan.grid.shape, shifted)
    error = refusal(InputRefused, "grid-mismatch", seg.read, path, LABELS, moved)
    assert "a slice lies 0.52 mm from" in str(error)  # 0.3 times the root of 3
    smaller = type(scan.grid)((3, 3, 3), scan.affine)
    error = refusal(InputRefused, "grid-mismatch", seg.read, path, LABELS, smaller)
    assert "its slices have 7 x 9 pixels" in str(error)
    stretched = scan.affine.copy()
    stretched[:3, 0] *= 1.1  # 6 steps of 0.08 mm along a row
    error = refusal(
        InputRefused, "grid-mismatch", seg.read, path, LABELS, type(scan.grid)(scan.grid.shape, stretched)
    )
    assert "lie 0.48 mm off" in str(error)


def _drop_positions(ds):
    for frame in ds.PerFrameFunctionalGroupsSequence:
        del frame.PlanePositionSequence


def _move_a_frame(ds):
    ds.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0].ImagePositionPatient[0] += 1.0


def _rename_segments(ds):
    for item in ds.SegmentSequence:
        item.SegmentNumber += 10


def _unknown_kind(ds):
    ds.SegmentationType = "SURFACE"


def _cut_pixels(ds):
    ds.PixelData = ds.PixelData[:4]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_drop_positions, "no-geometry"),
        (_move_a_frame, "no-geometry"),
        (_rename_segments, "unreadable"),
        (_unknown_kind, "unreadable"),
        (_cut_pixels, "unreadable"),
    ],
)
def test_damaged_segmentations_are_refused(scan, tmp_path, damage, reason):
    path = edited(written(a_mask(scan), tmp_path), damage)
    error = refusal(InputRefused, reason, seg.read, path, ())
    assert str(path) in str(error)


def sparse(scan, tmp_path, slices, **measures):
    """A SEG of one voxel on each of these slices, with these pixel measures, and none where None."""

    def change(ds):
        item = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        for name, value in ({"SpacingBetweenSlices": None} | measures).items():
            if value is None:
                item.pop(name, None)
            else:
                setattr(item, name, value)

    numbers = np.zeros(scan.grid.shape, np.uint8)
    numbers[1, 2, list(slices)] = 2
    return edited(written(Mask(numbers, scan.grid, (LEFT,), scan.source), tmp_path), change)


@pytest.mark.parametrize("slices", [(0, 4), (0, 2, 4), (0, 3), (2,), (1, 2, 3)])
def test_without_spacing_the_thickness_is_the_step_if_gaps_are_its_multiples(scan, tmp_path, slices):
    # One voxel of 0.8 x 1.1 x 2.5 mm per slice: 0.0022 ml each.
    mask = seg.read(sparse(scan, tmp_path, slices), (LEFT,))
    assert mask.grid.spacing_mm == pytest.approx((0.8, 1.1, 2.5), abs=1e-4)
    assert mask.volumes_ml()[LEFT.name] == pytest.approx(0.0022 * len(slices), rel=1e-4)


@pytest.mark.parametrize(
    ("slices", "thickness"), [((0, 2, 4), "4"), ((0, 1), "5"), ((0, 4), None), ((2,), None), ((0, 1), "2")]
)
def test_without_a_distance_between_slices_the_scan_is_needed(scan, tmp_path, slices, thickness):
    path = sparse(scan, tmp_path, slices, SliceThickness=thickness)
    assert "--reference" in refusal(InputRefused, "no-geometry", seg.read, path, (LEFT,)).remedy
    assert seg.read(path, (LEFT,), scan).volumes_ml()[LEFT.name] == pytest.approx(0.0022 * len(slices))


# --- through the package's own functions -------------------------------------------------


def test_write_and_read_mask_know_the_format(scan, tmp_path):
    mask = a_mask(scan)
    assert io.write(mask, tmp_path / "a.dcm") == tmp_path / "a.dcm"
    io.write(mask, tmp_path / "b.dcm", format="dicom-seg")
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()
    assert np.array_equal(io.read_mask(tmp_path / "a.dcm", LABELS, scan).array, mask.array)
    assert io.is_dicom_mask(tmp_path / "a.dcm")
    assert not io.is_dicom_mask(scan.source.files[0])
    assert [s.name for s in io.list_segments(tmp_path / "a.dcm")] == [label.name for label in LABELS]
    refusal(InputRefused, "no-segments", io.list_segments, scan.source.files[0])


def test_as_a_scan_it_stays_refused_and_the_remedy_names_the_option(scan, tmp_path):
    path = written(a_mask(scan), tmp_path)
    error = refusal(InputRefused, "no-scan", io.read, path)
    assert "--as-mask" in error.remedy


@pytest.mark.parametrize(
    ("name", "format", "reason"),
    [("x.dcm", "dicom-rt", "format"), ("x.nii.gz", "dicom-seg", "format"), ("no/x.dcm", None, "no-folder")],
)
def test_wrong_outputs_are_usage_errors(scan, tmp_path, name, format, reason):
    refusal(UsageError, reason, io.write, a_mask(scan), tmp_path / name, format=format)


def test_a_scan_is_not_written_as_a_mask(scan, tmp_path):
    refusal(UsageError, "format", io.write, scan, tmp_path / "x.dcm")


def test_the_date_of_a_scan_without_any(scan):
    assert source_series.scanned(scan.source).date_time == ("19000101", "000000")
