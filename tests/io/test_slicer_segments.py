"""Segmentations of 3D Slicer: the header says what the values mean."""

import gzip

import numpy as np
import pytest

from medseg import io
from medseg.errors import InputRefused, InputWarning
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask, Volume
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
    with pytest.warns(InputWarning, match="resampled to the scan's grid"):
        made = convert_mask(path, tmp_path / "n.nii.gz", scan=other, resample=True)
    # Slices of 5 mm from 15 to 40 mm; those of 4 mm at 16, 20, 24 ... lie in slice 0, 1, 2, 2, 3, 4, 5, ...
    nearest = [int(np.floor((4 * k - 15) / 5 + 0.5 - 1e-6)) for k in range(12)]
    for k, n in enumerate(nearest):
        plane = np.zeros((9, 9), np.uint8)
        if 0 <= n < 6:
            plane[2:6, 1:6] = A[:, :, n]
        assert np.array_equal(made.array[:, :, k], plane)
