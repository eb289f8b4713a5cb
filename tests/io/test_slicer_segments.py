"""Segmentations of 3D Slicer: the header says what the values mean."""

import gzip

import numpy as np
import pydicom
import pytest
from support.dicom_masks import a_scan, errors_of_dciodvfy

from medseg import io
from medseg.errors import InputRefused, InputWarning
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask, Volume
from medseg.io import scan_info
from medseg.io.conversion import convert_mask

LEFT, RIGHT = Label(name="left_lung", values=(2,)), Label(name="right_lung", values=(1,))
A = np.zeros((4, 5, 6), np.uint8)
A[:2, 1, 1] = 1
A[1:3, 1, 2:5] = 2


def a_file(path, array, *segments: tuple[str, int, int], last: str = ""):
    """A .seg.nrrd of voxels of 1 x 2 x 5 mm; (layers, X, Y, Z) if the array has four axes."""
    layered = array.ndim == 4
    sizes, none, kind = " ".join(map(str, array.shape)), "none " * layered, "list " * layered
    lines = [
        "NRRD0004",
        "type: unsigned char",
        f"dimension: {array.ndim}",
        "space: left-posterior-superior",
        f"sizes: {sizes}",
        f"space directions: {none}(1,0,0) (0,2,0) (0,0,5)",
        f"kinds: {kind}domain domain domain",
        "encoding: gzip",
        "space origin: (0,0,0)",
    ]
    for n, (name, value, layer) in enumerate(segments):
        lines += [f"Segment{n}_ID:=Segment_{n + 1}", f"Segment{n}_LabelValue:={value}"]
        lines += [f"Segment{n}_Layer:={layer}", f"Segment{n}_Name:={name}"]
    text = "\n".join([*lines, *([last] if last else [])]) + "\n\n"
    path.write_bytes(text.encode() + gzip.compress(array.tobytes(order="F")))
    return path


def test_segments_are_found_by_name_whatever_their_values(tmp_path):
    # 2 voxels are left and 6 right, of 0.01 ml; the labels have the values in reverse.
    path = a_file(tmp_path / "s.seg.nrrd", A, ("left_lung", 1, 0), ("right_lung", 2, 0))
    mask = io.read_mask(path, (RIGHT, LEFT))
    assert mask.volumes_ml() == pytest.approx({"right_lung": 0.06, "left_lung": 0.02})
    assert np.array_equal(mask.array == 2, A == 1)
    own = io.read_mask(path, ())
    assert np.array_equal(own.array, A)
    assert {label.name: label.values for label in own.labels} == {"left_lung": (1,), "right_lung": (2,)}
    assert [(s.name, s.value) for s in io.list_segments(path)] == [("left_lung", 1), ("right_lung", 2)]


def test_one_mask_scored_against_itself_with_other_values_is_the_same(tmp_path):
    one = io.read_mask(
        a_file(tmp_path / "a.seg.nrrd", A, ("left_lung", 1, 0), ("right_lung", 2, 0)), (RIGHT, LEFT)
    )
    turned = np.array([0, 2, 1], np.uint8)[A]
    other = a_file(tmp_path / "b.seg.nrrd", turned, ("right lung", 1, 0), ("Left Lung", 2, 0))
    assert np.array_equal(io.read_mask(other, (RIGHT, LEFT)).array, one.array)


def test_layers_hold_segments_that_overlap(tmp_path):
    lung, lesion = A > 0, A == 2
    layers = np.stack([lung, lesion]).astype(np.uint8)
    path = a_file(tmp_path / "s.seg.nrrd", layers, ("lung", 1, 0), ("lesion", 1, 1))
    mask = io.read_mask(path, (Label(name="lung", values=(1, 2)), Label(name="lesion", values=(2,))))
    assert np.array_equal(mask.array, lung.astype(np.uint8) + lesion)
    with pytest.raises(InputRefused) as refused:
        io.read_mask(path, ())  # a label map cannot hold both
    assert refused.value.reason == "overlapping-segments"
    apart = np.stack([A == 1, A == 2]).astype(np.uint8)
    mask = io.read_mask(a_file(tmp_path / "t.seg.nrrd", apart, ("a", 1, 0), ("b", 1, 1)), ())
    assert np.array_equal(mask.array, A)


def test_the_layers_and_segments_of_a_file_are_described(tmp_path):
    # 48 of 2 x 120 voxels are 1: those of layer 0 are 2 + 6 = 8, of layer 1 a block of 2 x 4 x 5 = 40.
    block = np.zeros_like(A)
    block[:2, :4, :5] = 1
    layers = np.stack([A > 0, block]).astype(np.uint8)
    path = a_file(tmp_path / "s.seg.nrrd", layers, ("lung", 1, 0), ("block", 1, 1))
    facts = scan_info.info(path)
    assert (facts["format"], facts["shape"], facts["layers"]) == ("nrrd", [4, 5, 6], 2)
    assert facts["segments"] == 2
    assert (facts["spacing_mm"], facts["orientation"], facts["dtype"]) == ([1, 2, 5], "LPS", "uint8")
    assert (facts["minimum"], facts["maximum"], facts["mean"]) == (0, 1, 48 / 240)
    one = scan_info.info(a_file(tmp_path / "t.seg.nrrd", A, ("a", 1, 0), ("b", 2, 0)))
    assert (one["shape"], one["maximum"], one["layers"], one["segments"]) == ([4, 5, 6], 2, 1, 2)
    assert "segments" not in scan_info.info(a_file(tmp_path / "u.nrrd", A))


def test_layers_are_no_scan_but_a_mask(tmp_path):
    path = a_file(tmp_path / "s.seg.nrrd", np.stack([A, A]), ("a", 1, 0), ("b", 1, 1))
    with pytest.raises(InputRefused) as refused:
        io.read(path)
    assert refused.value.reason == "several-channels"
    assert "--as-mask" in str(refused.value)


@pytest.mark.parametrize(
    ("segments", "reason"),
    [
        ([("left_lung", 1, 0)], "unreadable"),
        ([("left_lung", 1, 0), ("right_lung", 2, 1)], "unreadable"),
        ([("left_lung", 1, 0), ("other", 2, 0)], "no-such-segment"),
    ],
)
def test_headers_that_do_not_fit_are_refused(tmp_path, segments, reason):
    path = a_file(tmp_path / "s.seg.nrrd", A, *segments)
    with pytest.raises(InputRefused) as refused:
        io.read_mask(path, () if reason == "unreadable" else (RIGHT, LEFT))
    assert refused.value.reason == reason
    assert refused.value.where == str(path)


def test_a_damaged_value_is_refused(tmp_path):
    path = a_file(tmp_path / "s.seg.nrrd", A, ("a", 1, 0), last="Segment0_LabelValue:=one")
    with pytest.raises(InputRefused) as refused:
        io.read_mask(path, ())
    assert refused.value.reason == "unreadable"


def test_an_nrrd_without_segments_is_a_plain_label_map(tmp_path):
    path = a_file(tmp_path / "s.nrrd", A)
    assert np.array_equal(io.read_mask(path, (RIGHT, LEFT)).array, A)
    with pytest.raises(InputRefused) as refused:
        io.list_segments(path)
    assert refused.value.reason == "no-segments"


def test_one_layer_of_a_scan_is_the_scan(tmp_path):
    assert np.array_equal(io.read(a_file(tmp_path / "s.nrrd", A[None])).array, A)


def test_converting_keeps_the_names(tmp_path):
    path = a_file(tmp_path / "s.seg.nrrd", A, ("left_lung", 1, 0), ("right_lung", 2, 0))
    convert_mask(path, tmp_path / "m.nii.gz")
    assert '"left_lung": [\n      1\n    ]' in (tmp_path / "m.json").read_text()


@pytest.mark.parametrize("name", ["s.seg.nrrd", "s.nrrd", "s.nii.gz", "s.mha"])
def test_converting_a_cropped_mask_puts_it_on_its_scan(tmp_path, name):
    # The mask's voxel (0, 0, 0) is the scan's (2, 1, 3): LPS, 1 x 2 x 5 mm.
    affine = np.diag([-1.0, -2.0, 5.0, 1.0])
    scan = Volume(np.zeros((9, 9, 12), np.int16), Grid((9, 9, 12), affine))
    affine[:3, 3] = scan.grid.world((2, 1, 3))
    if name == "s.seg.nrrd":
        path = a_file(tmp_path / name, A, ("a", 1, 0), ("b", 2, 0))
        path.write_bytes(path.read_bytes().replace(b"origin: (0,0,0)", b"origin: (2,2,15)"))
    else:
        path = Mask(A, Grid(A.shape, affine), ()).save(tmp_path / name)
    with pytest.warns(InputWarning, match="4 x 5 x 6 voxels of the scan's 9 x 9 x 12"):
        convert_mask(path, tmp_path / "m.nii.gz", scan=scan)
    back = io.read_mask(tmp_path / "m.nii.gz", ())
    expected = np.zeros(scan.grid.shape, np.uint8)
    expected[2:6, 1:6, 3:9] = A
    assert back.grid.same_as(scan.grid)
    assert np.array_equal(back.array, expected)
    other = Volume(scan.array, Grid(scan.grid.shape, np.diag([-1.0, -2.0, 4.0, 1.0])))
    with pytest.raises(InputRefused) as refused:
        convert_mask(path, tmp_path / "n.nii.gz", scan=other)
    assert refused.value.reason == "grid-mismatch"
    assert "--resample" in str(refused.value)
    with pytest.warns(InputWarning, match="resampled to the scan's grid"):
        made = convert_mask(path, tmp_path / "n.nii.gz", scan=other, resample=True)
    # Slices of 5 mm from 15 to 40 mm; those of 4 mm at 16, 20, 24 ... lie in slice 0, 1, 2, 2, 3, 4, 5, ...
    nearest = [int(np.floor((4 * k - 15) / 5 + 0.5 - 1e-6)) for k in range(12)]
    for k, n in enumerate(nearest):
        plane = np.zeros((9, 9), np.uint8)
        if 0 <= n < 6:
            plane[2:6, 1:6] = A[:, :, n]
        assert np.array_equal(made.array[:, :, k], plane)


# --- coded terms -------------------------------------------------------------------------

LIST = "TerminologyEntry:Segmentation category and type - 3D Slicer General Anatomy list"
NODULE = "SCT^49755003^Morphologically Abnormal Structure~SCT^27925004^Nodule"
IN_LEFT_LUNG = "Anatomic codes - DICOM master list~SCT^39607008^Lung~SCT^7771000^Left"
NOWHERE = "Anatomic codes - DICOM master list~^^~^^|"
TISSUE = "SCT^85756007^Tissue~SCT^85756007^Tissue"
OWN = "99LAB^1234567890123456789^Vessel of interest"  # longer than a CodeValue


def tagged(scan, path, *tags: str):
    """A .seg.nrrd on the grid of a DICOM scan, whose segments finding and right_lung have these tags."""
    array = np.zeros(scan.grid.shape, np.uint8)
    array[1, 2, 1], array[2:4, 3, 2] = 1, 2
    Mask(array, scan.grid, ()).save(path)
    head, voxels = path.read_bytes().split(b"\n\n", 1)
    for n, (name, text) in enumerate(zip(("finding", "right_lung"), tags, strict=True)):
        head += f"\nSegment{n}_Name:={name}\nSegment{n}_LabelValue:={n + 1}\nSegment{n}_Tags:={text}".encode()
    path.write_bytes(head + b"\n\n" + voxels)
    return path


def terms(item, sequence):
    return [
        (t.CodingSchemeDesignator, t.get("CodeValue") or t.get("LongCodeValue"), t.CodeMeaning)
        for t in item.get(sequence, [])
    ]


def test_terms_are_carried_into_a_dicom_seg_and_from_there_into_the_next(tmp_path):
    scan = a_scan(tmp_path)
    finding = f"Segmentation.Status:inprogress|{LIST}~{NODULE}~SCT^24028007^Right~{IN_LEFT_LUNG}|"
    own = f"{LIST}~SCT^85756007^Tissue~{OWN}~^^~{NOWHERE}"
    path = tagged(scan, tmp_path / "s.seg.nrrd", finding, own)
    convert_mask(path, tmp_path / "one.dcm", scan=scan)
    convert_mask(tmp_path / "one.dcm", tmp_path / "two.dcm", scan=scan)
    for name in ("one.dcm", "two.dcm"):
        first, second = pydicom.dcmread(tmp_path / name).SegmentSequence
        assert (first.SegmentLabel, second.SegmentLabel) == ("finding", "right_lung")
        abnormal = ("SCT", "49755003", "Morphologically Abnormal Structure")
        assert terms(first, "SegmentedPropertyCategoryCodeSequence") == [abnormal]
        assert terms(first, "SegmentedPropertyTypeCodeSequence") == [("SCT", "27925004", "Nodule")]
        kind, region = first.SegmentedPropertyTypeCodeSequence[0], first.AnatomicRegionSequence[0]
        assert terms(kind, "SegmentedPropertyTypeModifierCodeSequence") == [("SCT", "24028007", "Right")]
        assert terms(first, "AnatomicRegionSequence") == [("SCT", "39607008", "Lung")]
        assert terms(region, "AnatomicRegionModifierSequence") == [("SCT", "7771000", "Left")]
        vessel = ("99LAB", "1234567890123456789", "Vessel of interest")
        assert terms(second, "SegmentedPropertyTypeCodeSequence") == [vessel]
        assert "AnatomicRegionSequence" not in second
        assert errors_of_dciodvfy(tmp_path / name) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"{LIST}~{TISSUE}~^^~{NOWHERE}",  # what Slicer writes where no term was chosen
        f"{LIST}~SRT^T-D0050^Tissue~SRT^T-D0050^Tissue~^^~{NOWHERE}",
        f"{LIST} ",
        f"{LIST}~SCT^39607008^~SCT^^Lung~^^~{NOWHERE}",
        f"{LIST}~{TISSUE.split('~')[0]}~SCT^1^{'x' * 65}~^^~{NOWHERE}",
        "Segmentation.Status:inprogress",
    ],
)
def test_without_a_term_the_name_is_coded(tmp_path, text):
    scan = a_scan(tmp_path)
    convert_mask(tagged(scan, tmp_path / "s.seg.nrrd", text, text), tmp_path / "m.dcm", scan=scan)
    finding, lung = pydicom.dcmread(tmp_path / "m.dcm").SegmentSequence
    assert terms(finding, "SegmentedPropertyTypeCodeSequence") == [("SCT", "85756007", "Tissue")]
    kind = lung.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeMeaning, kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning) == (
        "Lung",
        "Right",
    )


def test_terms_are_kept_for_labels_of_a_recipe_and_change_neither_values_nor_names(tmp_path):
    scan = a_scan(tmp_path)
    text = f"{LIST}~{NODULE}~^^~{IN_LEFT_LUNG}"
    path = tagged(scan, tmp_path / "s.seg.nrrd", text, "")
    labels = (Label(name="finding", values=(7,)), Label(name="right_lung", values=(3,), side="right"))
    mask = convert_mask(path, tmp_path / "m.dcm", scan=scan, labels=labels)
    assert mask.volumes_ml() == io.read_mask(tmp_path / "m.dcm", labels, scan).volumes_ml()
    assert [label.model_dump() for label in mask.labels] == [label.model_dump() for label in labels]
    segment = pydicom.dcmread(tmp_path / "m.dcm").SegmentSequence[0]
    assert terms(segment, "SegmentedPropertyTypeCodeSequence") == [("SCT", "27925004", "Nodule")]
