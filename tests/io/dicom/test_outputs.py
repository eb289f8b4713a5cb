"""Masks in .dcm files through the command line, manifests and training: SEG, and contours beside it."""

import gzip
import hashlib
import json

import nibabel as nib
import numpy as np
import pydicom
import pytest
from support.dicom_masks import LABELS, a_mask, a_scan, errors_of_dciodvfy

from medseg import io
from medseg.cli.app import app
from medseg.datasets.manifest import Case
from medseg.errors import InputRefused, UsageError
from medseg.evaluation import evaluator
from medseg.images.label import Label
from medseg.images.volume import Mask
from medseg.training.case_cache import content_digest


@pytest.fixture
def scan(tmp_path):
    return a_scan(tmp_path)


def run(*words) -> None:
    app([str(word) for word in words], standalone_mode=False)


def one_label(scan) -> Mask:
    array = np.zeros(scan.grid.shape, np.uint8)
    array[1:3, 0:2, 1:3] = 1
    array[0, 1, 1] = 1  # no symmetry
    return Mask(array, scan.grid, (Label(name="liver", values=(1,)),), scan.source)


@pytest.mark.parametrize("form", ["dicom-seg", "rtstruct"])
def test_convert_reads_a_file_as_a_mask_only_on_request(scan, tmp_path, form):
    mask = one_label(scan)
    path, out = mask.save(tmp_path / "m.dcm", format=form), tmp_path / "m.nii.gz"
    with pytest.raises(InputRefused, match="--as-mask") as caught:
        run("convert", path, "-o", out)
    assert caught.value.reason == "no-scan"
    run("convert", path, "-o", out, "--as-mask", "--reference", scan.source.path)
    image = nib.load(out)
    assert np.array_equal(np.asarray(image.dataobj), mask.array)
    assert np.allclose(image.affine, scan.grid.affine, atol=1e-4)
    assert json.loads((tmp_path / "m.json").read_text())["labels"] == {"liver": [1]}


@pytest.mark.filterwarnings("ignore:.*no contours in ROI 2:medseg.errors.InputWarning")
@pytest.mark.parametrize("form", ["dicom-seg", "rtstruct"])
def test_convert_gives_a_mask_its_dicom_scan(scan, tmp_path, form):
    array = one_label(scan).array
    nifti = Mask(array, scan.grid, ()).save(tmp_path / "m.nii.gz")
    words = ("convert", nifti, "-o", tmp_path / "out.dcm", "--as-mask", "--recipe", "phantom_lungs")
    run(*words, "--reference", scan.source.path, "--format", form)
    names = [segment.name for segment in io.list_segments(tmp_path / "out.dcm")]
    assert names == ["right_lung", "left_lung"]
    back = io.read_mask(tmp_path / "out.dcm", (), scan)
    assert np.array_equal(back.of("right_lung"), array == 1)
    with pytest.raises(UsageError, match="--reference"):
        run(*words)


@pytest.mark.parametrize("words", [("-o", "x.dcm"), ("-o", "x.nii.gz", "--format", "dicom-seg")])
def test_convert_writes_no_scan_as_a_mask(scan, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        run("convert", scan.source.path, *words)
    assert caught.value.reason == "usage"


def test_segment_asks_for_a_dicom_scan_before_it_begins(scan, tmp_path):
    nifti = scan.save(tmp_path / "s.nii.gz")
    with pytest.raises(UsageError) as caught:
        run("segment", nifti, "-o", tmp_path / "m.dcm", "--model", "phantom_lungs")
    assert caught.value.reason == "no-dicom-source"
    assert not (tmp_path / "m.dcm").exists()


@pytest.mark.parametrize("form", ["dicom-seg", "rtstruct"])
def test_it_can_be_the_truth_of_a_case(scan, tmp_path, form):
    mask = one_label(scan)
    truth = mask.save(tmp_path / "m.dcm", format=form)
    case = Case(id="a", images=(scan.source.path,), label=truth)
    frame = evaluator.evaluate_cases([case], lambda _: mask, mask.labels)
    assert list(frame["reason"]) == [""]
    assert list(frame["dice"]) == [1.0]
    # Other masks in the folder do not change what this one's cache is called.
    assert content_digest(truth) == hashlib.sha256(hashlib.sha256(truth.read_bytes()).digest()).hexdigest()


def test_a_series_packed_by_gzip_can_be_referred_to(scan, tmp_path):
    for path in scan.source.files:
        path.write_bytes(gzip.compress(path.read_bytes()))
    packed = io.read(scan.source.path)
    path = a_mask(packed).save(tmp_path / "m.dcm")
    assert np.array_equal(io.read_mask(path, LABELS, packed).array, a_mask(packed).array)


def test_a_frame_may_end_within_a_byte(scan, tmp_path):
    path = one_label(scan).save(tmp_path / "m.dcm")
    ds = pydicom.dcmread(path)
    assert ds.Rows * ds.Columns % 8, "else this test shows nothing"
    assert np.array_equal(io.read_mask(path, one_label(scan).labels, scan).array, one_label(scan).array)


def test_dciodvfy_has_no_complaint_about_a_real_ct(shared_data, tmp_path):
    """Someone emptied this series' identifiers; those its file meta information has are put back."""
    folder = tmp_path / "series"
    folder.mkdir()
    for number, path in enumerate(sorted((shared_data / "dicom" / "totalseg_ct_20slices").iterdir())):
        ds = pydicom.dcmread(path)
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID
        ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", "1.2.3.4"
        ds.save_as(folder / f"{number}.dcm")
    scan = io.read(folder)
    for form in ("dicom-seg", "rtstruct"):
        path = one_label(scan).save(tmp_path / f"{form}.dcm", format=form)
        assert errors_of_dciodvfy(path) == [], form


def test_a_recipe_that_divides_its_label_keeps_both_sides(scan, tmp_path):
    array = np.zeros(scan.grid.shape, np.uint8)
    array[1, 2, 1], array[2:4, 3, 2] = 1, 2
    Mask(array, scan.grid, ()).save(tmp_path / "lungs.nii.gz")
    words = ("convert", tmp_path / "lungs.nii.gz", "--as-mask", "--reference", scan.source.path)
    run(*words, "-o", tmp_path / "lungs.dcm", "--recipe", "lung_ct")
    names = [segment.name for segment in io.list_segments(tmp_path / "lungs.dcm")]
    assert names == ["right_lung", "left_lung"]
    back = io.read_mask(tmp_path / "lungs.dcm", (), scan)
    assert np.array_equal(back.array, array)
