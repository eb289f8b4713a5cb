"""Rules for one case: each finding by a case that has this fault and no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.check_cases import GRID, MR, RECIPE, changed, found, only, with_
from support.worlds import tiny

import medseg
from medseg.datasets.manifest import Case
from medseg.datasets.validation import (
    check,
    examine,
)
from medseg.images.grid import Grid
from medseg.images.volume import Volume
from medseg.io import write_dicom_series
from medseg.phantom.thorax import Thorax


def moved(path: Path | None, affine: Callable[[np.ndarray], np.ndarray]) -> None:
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine(image.affine.copy())), path)


def test_a_label_off_its_scan_is_reported_in_mm(cases):
    def along_y(affine: np.ndarray) -> np.ndarray:
        affine[1, 3] += 3.5
        return affine

    moved(cases[0].label, along_y)
    finding = only(cases, "label-grid")
    assert (finding.case, finding.severity) == ("case_0", "error")
    assert "3.5 mm apart" in finding.problem


def test_rounding_of_a_header_is_not_a_mismatch(cases):
    def rounded(affine: np.ndarray) -> np.ndarray:
        affine[:3, 3] += 0.005  # 0.005 * sqrt(3) = 0.0087 mm, below the 0.01 of reading
        return affine

    moved(cases[0].label, rounded)
    assert found(cases) == []


def test_a_label_of_another_shape_or_direction_is_reported(cases):
    # One plane more than the scan has, and it is labelled: no part of the scan.
    changed(cases[0], lambda array: np.pad(array, ((0, 1), (0, 0), (0, 0)), constant_values=1), what="label")
    moved(cases[1].label, lambda affine: affine @ np.diag([-1, 1, 1, 1]))
    first, second = check(cases, RECIPE).findings
    assert (first.code, second.code) == ("label-grid", "label-grid")
    assert "the shapes differ" in first.problem
    assert "mm apart" in second.problem


def test_a_cropped_label_is_padded_with_a_warning(cases):
    """A label without its last planes, and the box around a structure with its own origin."""
    changed(cases[0], lambda array: array[:, :, :-2], what="label")
    image = nib.load(cases[1].label)
    first = image.affine.copy()
    first[:3, 3] = image.affine[:3] @ (3, 2, 1, 1)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[3:-1, 2:, 1:], first), cases[1].label)
    report = check(cases, RECIPE)
    assert {(one.case, one.code, one.severity) for one in report.findings} == {
        ("case_0", "reader-warning", "warning"),
        ("case_1", "reader-warning", "warning"),
    }
    assert all("taken as background" in one.problem for one in report.findings)


def test_channels_on_two_grids_are_reported(cases):
    (a, b, c) = (case.images[0] for case in cases)
    grid = Grid(GRID.shape, GRID.affine + np.eye(4, k=3) * 2.0)  # 2 mm to the right
    other = medseg.write(Volume(medseg.read(b).array, grid), b.with_name("moved.nii.gz"))
    two = tiny(channels=["a", "b"], labels=[x.model_dump(mode="json") for x in RECIPE.labels])
    case = with_(cases[0], images=(a, other))
    assert [each.code for each in examine(case, two).findings] == ["channel-grid"]
    assert "channel 2" in examine(case).findings[0].problem
    assert "2 mm apart" in examine(case).findings[0].problem
    assert examine(with_(cases[0], images=(a, c)), two).findings == ()


@pytest.mark.parametrize(
    ("off_mm", "codes"),
    [(0.005, []), (0.3, ["reader-warning"]), (0.45, ["reader-warning"]), (0.55, ["channel-grid"])],
)
def test_channels_with_rounded_headers_are_read_with_a_warning(cases, off_mm, codes):
    a, c = (cases[number].images[0] for number in (0, 2))
    scan = medseg.read(c)
    grid = Grid(scan.grid.shape, scan.grid.affine + np.eye(4, k=3) * off_mm)
    other = medseg.write(Volume(scan.array, grid), c.with_name("rounded.nii.gz"))
    two = tiny(channels=["a", "b"], labels=[x.model_dump(mode="json") for x in RECIPE.labels])
    examined = examine(with_(cases[0], images=(a, other)), two)
    assert [each.code for each in examined.findings] == codes
    if codes == ["reader-warning"]:
        assert f"{off_mm} mm" in examined.findings[0].problem
        assert examined.volumes[1].grid == examined.volumes[0].grid


def test_a_rounded_channel_is_no_error_beside_one_on_another_grid(cases):
    a, c = (cases[number].images[0] for number in (0, 2))
    scan = medseg.read(c)
    places = []
    for off_mm in (0.3, 2.0):
        grid = Grid(scan.grid.shape, scan.grid.affine + np.eye(4, k=3) * off_mm)
        places.append(medseg.write(Volume(scan.array + 1, grid), c.with_name(f"{off_mm}.nii.gz")))
    three = tiny(channels=["a", "b", "c"], labels=[x.model_dump(mode="json") for x in RECIPE.labels])
    findings = examine(with_(cases[0], images=(a, *places)), three).findings
    (error,) = [each for each in findings if each.severity == "error"]
    assert (error.code, error.problem[:9]) == ("channel-grid", "channel 3")


def test_cases_without_a_label_are_allowed_in_test_only(cases):
    bare = [with_(cases[0], label=None), cases[1], with_(cases[2], label=None)]
    assert found(bare) == [("case_0", "no-label"), ("case_2", "no-label")]
    assert found([*cases, with_(cases[0], id="t", label=None, split=None, images=cases[0].images)]) == [
        ("t", "duplicate")
    ]


def test_an_empty_label_map_is_reported(cases):
    changed(cases[0], np.zeros_like, what="label")
    for recipe in (RECIPE, None):
        finding = only(cases, "label-empty", recipe)
        assert (finding.case, finding.severity) == ("case_0", "warning")


def test_a_label_map_of_unknown_voxels_alone_is_empty(cases):
    changed(cases[0], lambda array: np.full_like(array, 9), what="label")
    ignoring = RECIPE.model_copy(update={"ignore_value": 9})
    assert only(cases, "label-empty", ignoring).case == "case_0"


def test_a_label_that_is_missing_in_one_case_is_reported(cases):
    changed(cases[0], lambda array: np.where(np.isin(array, (2, 4)), 0, array), what="label")
    finding = only(cases, "label-absent")
    assert (finding.case, finding.severity) == ("case_0", "warning")
    assert "left_lung" in finding.problem
    assert "right_lung" not in finding.problem


def test_a_label_that_is_missing_in_all_training_cases_is_an_error(cases):
    for case in cases[:2]:
        changed(case, lambda array: np.where(np.isin(array, (2, 4)), 0, array), what="label")
    finding = check(cases, RECIPE).findings[0]
    assert (finding.case, finding.severity, finding.code) == (None, "error", "label-never")
    assert "left_lung (values 2, 4)" in finding.problem
    assert "2 training cases" in finding.problem


def test_only_annotated_labels_are_expected(cases):
    def without_left(array: np.ndarray) -> np.ndarray:
        return np.where(np.isin(array, (2, 4)), 0, array)

    changed(cases[0], without_left, what="label")
    partly = with_(cases[0], annotated=("right_lung", "middle"))
    assert found([partly, *cases[1:]]) == []
    changed(cases[1], without_left, what="label")
    codes = found([partly, with_(cases[1], annotated=("right_lung",)), cases[2]])
    assert codes == [(None, "label-never")]
    changed(cases[0], np.zeros_like, what="label")
    # No finding about an empty map if the case is annotated for none of the recipe's labels.
    other = examine(with_(cases[0], annotated=("liver",)), RECIPE)
    assert [each.code for each in other.findings] == ["annotated-name"]


def test_annotated_names_of_no_label_are_reported(cases):
    typo = with_(cases[0], annotated=("right_lung", "left lung", "middle"))
    finding = only([typo, *cases[1:]], "annotated-name")
    assert "left lung" in finding.problem
    assert check([typo, *cases[1:]]).findings == ()


def test_values_without_a_label_are_reported_and_counted(cases):
    def strange(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array[0, 0, :3], array[0, 1, 0] = 77, 300 % 256
        return array

    changed(cases[0], strange, what="label")
    finding = only(cases, "unknown-values")
    assert (finding.case, finding.severity) == ("case_0", "warning")
    assert "4 voxel(s) have values that belong to no label (44, 77)" in finding.problem
    assert found(cases, None) == []
    ignoring = RECIPE.model_copy(update={"ignore_value": 77})
    problem = only(cases, "unknown-values", ignoring).problem
    assert "1 voxel(s) have values that belong to no label (44)" in problem


def test_long_lists_of_values_are_cut(cases):
    def many(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array[0, 0, :13] = np.arange(100, 113)
        return array

    changed(cases[0], many, what="label")
    assert "109 and 3 more" in only(cases, "unknown-values").problem


def test_an_image_of_one_value_is_reported(cases):
    changed(cases[0], lambda array: np.full_like(array, -1024))
    changed(cases[1], lambda array: np.full_like(array, -1024))
    assert found(cases) == [("case_0", "constant-image"), ("case_1", "constant-image")]  # no duplicates
    assert "-1024" in check(cases).findings[0].problem


def test_one_channel_of_one_value_is_a_warning(cases):
    changed(cases[1], np.zeros_like)
    case = with_(cases[0], images=(*cases[0].images, *cases[1].images))
    (finding,) = examine(case).findings
    assert (finding.code, finding.severity) == ("constant-channel", "warning")
    assert "channel 2" in finding.problem


def test_the_same_scan_as_two_channels_is_reported(cases):
    case = with_(cases[0], images=cases[0].images * 2)
    (finding,) = examine(case).findings
    assert (finding.code, finding.severity) == ("same-channels", "warning")


def window(low: float, high: float, top: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: (array.astype(np.float32).clip(low, high) - low) / (high - low) * top


@pytest.mark.parametrize(
    ("how", "dtype"),
    [
        (window(-1000, 400, 255), np.uint8),
        (window(-1000, 400, 1), np.float32),
        (lambda array: (array - array.mean()) / array.std(), np.float32),
    ],
)
def test_ct_that_is_no_longer_in_hu_is_reported(cases, how, dtype):
    changed(cases[0], how, dtype=dtype)
    finding = only(cases, "hu-windowed")
    assert (finding.case, finding.severity) == ("case_0", "error")
    assert found(cases, None) == []  # nobody says that it is CT


def test_a_recipe_with_window_0_to_80_accepts_scans_clipped_to_it(cases):
    for case in cases:
        changed(case, lambda array: array.clip(0, 80))
    brain = RECIPE.model_dump(mode="json")
    brain["prepare"]["intensity"] = {"kind": "window", "low_hu": 0, "high_hu": 80}
    assert found(cases, type(RECIPE).checked(brain)) == []
    assert {code for _, code in found(cases)} == {"hu-windowed"}


@pytest.mark.parametrize("shift", [1000, 1024])
def test_ct_stored_without_its_intercept_is_reported(cases, shift):
    changed(cases[0], lambda array: array + shift)
    finding = only(cases, "hu-shifted")
    assert (finding.case, finding.severity) == ("case_0", "error")


def test_a_shift_is_detected_in_a_scan_with_a_round_field_of_view(cases):
    def padded(array: np.ndarray) -> np.ndarray:
        x, y, _ = np.indices(array.shape)
        outside = (x / array.shape[0] - 0.5) ** 2 + (y / array.shape[1] - 0.5) ** 2 > 0.25
        return np.where(outside, -2048, array)

    changed(cases[0], padded)
    assert found(cases) == []  # padding is not a fault
    changed(cases[0], lambda array: array + 1024)
    assert only(cases, "hu-shifted").case == "case_0"


def test_ct_of_dense_bone_does_not_count_as_shifted(cases):
    """A tenth of cortical bone among fat and muscle, as in a cut-out of the skull base."""
    rng = np.random.default_rng(0)

    def skull(array: np.ndarray) -> np.ndarray:
        tissue = rng.choice([-100, 50, 1000], p=[0.3, 0.6, 0.1], size=array.shape)
        return (tissue + rng.normal(0, 20, array.shape)).astype(np.int16)

    changed(cases[0], skull)
    finding = only(cases, "hu-no-air")
    assert (finding.case, finding.severity) == ("case_0", "warning")


def test_air_that_is_not_at_minus_1000_is_reported(cases):
    changed(cases[0], lambda array: array - 200)
    assert "-12" in only(cases, "hu-no-air").problem  # -1200, and noise of 20


def test_a_rescale_applied_twice_is_reported(cases):
    changed(cases[0], lambda array: array - 1024)
    codes = [code for _, code in found(cases)]
    assert "hu-no-tissue" in codes
    assert set(codes) <= {"hu-no-tissue", "hu-no-air"}


def test_mr_may_have_any_unit(make):
    cases = make("train", "val")
    for case in cases:
        changed(case, window(-1000, 400, 1), dtype=np.float32)
    assert found(cases, MR) == []


def test_dicom_headers_identify_ct_without_a_recipe(tmp_path):
    scan = Thorax().scan(GRID)
    (tmp_path / "s").mkdir()
    series = write_dicom_series(Volume(scan.array + np.int16(1024), GRID), tmp_path / "s")
    case = Case(id="a", images=(series,))
    assert [each.code for each in examine(case).findings] == ["hu-shifted"]
