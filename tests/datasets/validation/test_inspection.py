"""Reading the files of a case: what cannot be read or does not fit is a finding."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from support.check_cases import GRID, MR, RECIPE, changed, found, only, series, with_
from support.worlds import tiny

import medseg
from medseg.datasets import validation as checking
from medseg.datasets.manifest import Case
from medseg.datasets.validation import (
    check,
    examine,
)
from medseg.images.label import Label
from medseg.images.volume import Mask
from medseg.io import write_dicom_series
from medseg.phantom.thorax import Thorax


def test_missing_images_and_labels_are_reported(cases):
    cases[0].images[0].unlink()
    assert cases[2].label is not None
    cases[2].label.unlink()
    assert found(cases) == [("case_0", "missing-file"), ("case_2", "missing-file")]
    first = check(cases).findings[0]
    assert str(cases[0].images[0]) in first.problem
    assert (first.severity, first.refusal) == ("error", "not-found")


def test_a_damaged_scan_is_reported_with_the_readers_reason(cases):
    path = cases[1].images[0]
    path.write_bytes(path.read_bytes()[:-500])
    finding = only(cases, "image-unreadable")
    assert (finding.case, finding.severity, finding.refusal) == ("case_1", "error", "unreadable")
    assert "truncated" in finding.problem


def test_a_damaged_label_is_reported(cases):
    cases[1].label.write_bytes(b"")
    finding = only(cases, "label-unreadable")
    assert finding.refusal == "empty"


def test_an_unexpected_error_does_not_stop_the_other_cases(cases, monkeypatch, caplog):
    honest = checking.inspection.read

    def crashing(path):
        if path == cases[0].images[0]:
            raise ZeroDivisionError("division\nby zero")
        return honest(path)

    monkeypatch.setattr(checking.inspection, "read", crashing)
    finding = only(cases, "image-unreadable")
    assert (finding.case, finding.refusal) == ("case_0", "unexpected")
    assert "ZeroDivisionError: division by zero" in finding.problem
    assert "case_0" in caplog.text


@pytest.mark.parametrize("what", ["image", "label"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_not_finite_are_counted(cases, what, value):
    def hole(array: np.ndarray) -> np.ndarray:
        out = array.astype(np.float32)
        out[:2, 0, 0] = value
        return out

    changed(cases[0], hole, what=what)
    finding = only(cases, "not-finite")
    assert "2 of" in finding.problem
    assert "--nonfinite" not in finding.remedy  # an option of other commands


@pytest.mark.parametrize(
    ("how", "message"),
    [(lambda a: a + 0.5 * (a == 1), "not whole numbers"), (lambda a: a.astype(np.int16) - 1, "-1..")],
)
def test_invalid_label_values_are_reported(cases, how, message):
    changed(cases[0], how, what="label")
    assert message in only(cases, "label-values").problem


def test_notices_of_a_reader_are_reported(make, tmp_path):
    (case,) = make("train")
    plain = tmp_path / "plain.nii"
    nib.save(nib.load(case.images[0]), plain)
    plain.write_bytes(plain.read_bytes() + b"\0" * 7)
    finding = examine(with_(case, images=(plain,))).findings[0]
    assert (finding.code, finding.severity) == ("reader-warning", "warning")
    assert "7 bytes" in finding.problem


def test_a_wrong_number_of_channels_is_reported(cases):
    both_ = with_(cases[0], images=(*cases[0].images, *cases[1].images))
    codes = found([both_, *cases[1:]])
    assert ("case_0", "channel-count") in codes
    two = tiny(channels=["a", "b"], labels=[x.model_dump(mode="json") for x in RECIPE.labels])
    assert found(cases[:1], two)[0] == ("case_0", "image-unreadable")  # one 3D file cannot hold two


def test_a_4d_file_holds_all_channels(make):
    (case,) = make("train")
    image = nib.load(case.images[0])
    array = np.asarray(image.dataobj)
    nib.save(nib.Nifti1Image(np.stack([array, array[::-1]], -1), image.affine), case.images[0])
    two = tiny(channels=["a", "b"], labels=[x.model_dump(mode="json") for x in RECIPE.labels])
    examined = examine(case, two)
    assert examined.findings == ()
    assert len(examined.volumes) == 2


def test_an_mr_series_for_a_ct_recipe_is_reported(tmp_path):
    (tmp_path / "s").mkdir()
    series = write_dicom_series(Thorax().scan(GRID, modality="MR"), tmp_path / "s", modality="MR")
    case = Case(id="a", images=(series,), label=Thorax().truth(GRID).save(tmp_path / "l.nii"), split="train")
    codes = [each.code for each in examine(case, RECIPE).findings if each.severity == "error"]
    assert codes == ["modality"]
    assert examine(case, MR).findings == ()
    assert examine(case).findings == ()


def test_segments_have_their_names_without_a_recipe(tmp_path):
    pytest.importorskip("highdicom")
    case = series(tmp_path, 0, "train")
    scan = medseg.read(case.images[0])
    truth = Thorax.random(0).truth(scan.grid)
    lungs = np.where(np.isin(truth.array, (1, 3)), 1, np.where(np.isin(truth.array, (2, 4)), 2, 0))
    labels = (Label(name="right lung", values=(1,)), Label(name="left lung", values=(2,)))
    path = Mask(lungs.astype(np.uint8), scan.grid, labels, scan.source).save(tmp_path / "seg.dcm")
    report = check([with_(case, label=path)])
    assert {row.value: row.name for row in report.values} == {0: "", 1: "right lung", 2: "left lung"}
    assert [row.voxels for row in report.values[1:]] == [int((lungs == v).sum()) for v in (1, 2)]


def test_overlapping_segments_are_an_error_only_with_a_recipe(tmp_path):
    pytest.importorskip("highdicom")
    case = series(tmp_path, 0, "train")
    scan = medseg.read(case.images[0])
    # Voxels of 3 are in both segments, and neither lies inside the other.
    labels = (Label(name="right_lung", values=(1, 3)), Label(name="left_lung", values=(2, 3)))
    values = np.random.default_rng(0).integers(0, 4, scan.grid.shape).astype(np.uint8)
    path = Mask(values, scan.grid, labels, scan.source).save(tmp_path / "seg.dcm")
    for recipe, severity in ((None, "warning"), (tiny(), "error")):
        finding = examine(with_(case, label=path), recipe).findings[0]
        assert (finding.code, finding.severity) == ("label-unreadable", severity)
        assert finding.refusal == "overlapping-segments"
