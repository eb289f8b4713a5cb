"""Checking data: each finding by a set that has this fault and no other."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from support.commands import invoke
from support.markdown import table_rows
from support.processes import command_code, heavy_imports
from support.worlds import phantoms, tiny

import medseg
from medseg.datasets import validation as checking
from medseg.datasets.manifest import Case, Manifest
from medseg.datasets.validation import (
    REGISTRY,
    Entry,
    Facts,
    Finding,
    check,
    compare,
    examine,
    measure,
    refuse,
    subject_of,
)
from medseg.datasets.validation.case_stats import Place
from medseg.errors import InputRefused
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask, Volume
from medseg.io import write_dicom_series
from medseg.phantom.thorax import LABELS, Thorax, default_grid, orientations, rotated

ROOT = Path(__file__).parents[2]
GRID = default_grid((8.0, 9.0, 12.0))
# Every value of the phantom's truth has a label, so that nothing is unknown.
RECIPE = tiny(
    labels=[
        {"name": "right_lung", "values": [1, 3], "side": "right"},
        {"name": "left_lung", "values": [2, 4], "side": "left"},
        {"name": "middle", "values": [5, 6, 7]},
    ]
)
MR = tiny(
    modality="MR",
    labels=[{"name": "all", "values": [1, 2, 3, 4, 5, 6, 7]}],
    prepare={"intensity": {"kind": "percentile", "low": 0, "high": 99}},
)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four patients, drawn once: that takes most of the time."""
    folder = tmp_path_factory.mktemp("drawn")
    phantoms(folder, "train", "train", "train", "train")
    return folder


@pytest.fixture
def make(drawn: Path, tmp_path: Path) -> Callable[..., list[Case]]:
    """Makes one patient a split, in files of the test's own."""

    def copied(*splits: str) -> list[Case]:
        out = []
        for number, split in enumerate(splits):
            names = (f"{number}.nii.gz", f"{number}_truth.nii.gz")
            image, label = (Path(shutil.copy(drawn / name, tmp_path)) for name in names)
            out.append(Case(id=f"case_{number}", images=(image,), label=label, split=split))  # type: ignore[arg-type]  # a split
        return out

    return copied


@pytest.fixture
def cases(make: Callable[..., list[Case]]) -> list[Case]:
    """Two training cases and one to validate on, without a fault."""
    return make("train", "train", "val")


def changed(case: Case, how: Callable[[np.ndarray], np.ndarray], *, what: str = "image", dtype=None) -> Case:
    """The case with the voxels of its image or label changed; in the same file."""
    path = case.images[0] if what == "image" else case.label
    image = nib.load(path)
    array = how(np.asarray(image.dataobj))
    nib.save(nib.Nifti1Image(array.astype(dtype or array.dtype), image.affine), path)
    return case


def moved(path: Path | None, affine: Callable[[np.ndarray], np.ndarray]) -> None:
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine(image.affine.copy())), path)


def found(cases: list[Case], recipe=RECIPE) -> list[tuple[str | None, str]]:
    return [(each.case, each.code) for each in check(cases, recipe).findings]


def only(cases: list[Case], code: str, recipe=RECIPE) -> Finding:
    """The one finding of a set that has one."""
    findings = check(cases, recipe).findings
    assert [each.code for each in findings] == [code]
    assert findings[0].problem
    assert findings[0].remedy
    return findings[0]


def with_(case: Case, **changes: object) -> Case:
    return case.model_copy(update=changes)


# ---- what is right -----------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [RECIPE, None])
def test_sound_cases_have_no_finding(cases, recipe):
    report = check(cases, recipe)
    assert report.findings == ()
    assert report.cases == 3


def test_the_table_counts_the_voxels_of_every_value(cases):
    report = check(cases, RECIPE)
    arrays = [np.asarray(nib.load(case.label).dataobj) for case in cases]
    for row in report.values:
        assert row.voxels == sum(int((array == row.value).sum()) for array in arrays)
        assert row.cases == sum(bool((array == row.value).any()) for array in arrays)
    assert {row.value: row.name for row in report.values if row.value in (0, 1, 3, 5)} == {
        0: "", 1: "right_lung", 3: "right_lung", 5: "middle",
    }  # fmt: skip


def test_oblique_scans_and_every_order_of_axes_are_sound(tmp_path):
    """The label is stored in another order than the scan: that is the same place."""
    made = []
    for number, codes in enumerate(("RAS", "LPI", "SRA", "IAL")):
        patient, grid = Thorax.random(number), rotated(default_grid((12.0, 13.0, 17.0)), (11, -17, 23))
        image = patient.scan(grid).save(tmp_path / f"{number}.nii.gz")
        label = patient.truth(grid).oriented(codes).save(tmp_path / f"{number}_l.nrrd")
        made.append(Case(id=f"{number}", images=(image,), label=label, split="val" if number else "train"))
    assert found(made) == []


# ---- reading -----------------------------------------------------------------------------------


def test_missing_files_are_told_for_image_and_label(cases):
    cases[0].images[0].unlink()
    assert cases[2].label is not None
    cases[2].label.unlink()
    assert found(cases) == [("case_0", "missing-file"), ("case_2", "missing-file")]
    first = check(cases).findings[0]
    assert str(cases[0].images[0]) in first.problem
    assert (first.severity, first.refusal) == ("error", "not-found")


def test_a_damaged_scan_is_told_with_the_readers_reason(cases):
    path = cases[1].images[0]
    path.write_bytes(path.read_bytes()[:-500])
    finding = only(cases, "image-unreadable")
    assert (finding.case, finding.severity, finding.refusal) == ("case_1", "error", "unreadable")
    assert "truncated" in finding.problem


def test_a_damaged_label_is_told(cases):
    cases[1].label.write_bytes(b"")
    finding = only(cases, "label-unreadable")
    assert finding.refusal == "empty"


def test_whatever_a_reader_raises_never_stops_the_others(cases, monkeypatch, caplog):
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
    ("how", "told"), [(lambda a: a + 0.5 * (a == 1), "fraction"), (lambda a: a.astype(np.int16) - 1, "-1..")]
)
def test_labels_that_are_no_labels_are_told(cases, how, told):
    changed(cases[0], how, what="label")
    assert told in only(cases, "label-values").problem


def test_what_a_reader_repairs_or_passes_over_is_told(make, tmp_path):
    (case,) = make("train")
    plain = tmp_path / "plain.nii"
    nib.save(nib.load(case.images[0]), plain)
    plain.write_bytes(plain.read_bytes() + b"\0" * 7)
    finding = examine(with_(case, images=(plain,))).findings[0]
    assert (finding.code, finding.severity) == ("reader-warning", "warning")
    assert "7 bytes" in finding.problem


def test_another_number_of_channels_than_the_recipes_is_told(cases):
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


def test_an_mr_series_for_a_ct_recipe_is_told(tmp_path):
    (tmp_path / "s").mkdir()
    series = write_dicom_series(Thorax().scan(GRID, modality="MR"), tmp_path / "s", modality="MR")
    case = Case(id="a", images=(series,), label=Thorax().truth(GRID).save(tmp_path / "l.nii"), split="train")
    codes = [each.code for each in examine(case, RECIPE).findings if each.severity == "error"]
    assert codes == ["modality"]
    assert examine(case, MR).findings == ()
    assert examine(case).findings == ()


# ---- geometry ----------------------------------------------------------------------------------


def test_a_label_beside_its_scan_is_told_in_mm(cases):
    def along_y(affine: np.ndarray) -> np.ndarray:
        affine[1, 3] += 3.5
        return affine

    moved(cases[0].label, along_y)
    finding = only(cases, "label-grid")
    assert (finding.case, finding.severity) == ("case_0", "error")
    assert "3.5 mm apart" in finding.problem


def test_rounding_of_a_header_is_no_mismatch(cases):
    def rounded(affine: np.ndarray) -> np.ndarray:
        affine[:3, 3] += 0.005  # 0.005 * sqrt(3) = 0.0087 mm, below the 0.01 of reading
        return affine

    moved(cases[0].label, rounded)
    assert found(cases) == []


def test_a_label_of_another_shape_or_direction_is_told(cases):
    changed(cases[0], lambda array: array[:-1], what="label")
    moved(cases[1].label, lambda affine: affine @ np.diag([-1, 1, 1, 1]))
    first, second = check(cases, RECIPE).findings
    assert (first.code, second.code) == ("label-grid", "label-grid")
    assert "the shapes differ" in first.problem
    assert "mm apart" in second.problem


def test_channels_on_two_grids_are_told(cases):
    (a, b, c) = (case.images[0] for case in cases)
    grid = Grid(GRID.shape, GRID.affine + np.eye(4, k=3) * 2.0)  # 2 mm to the right
    other = medseg.write(Volume(medseg.read(b).array, grid), b.with_name("moved.nii.gz"))
    two = tiny(channels=["a", "b"], labels=[x.model_dump(mode="json") for x in RECIPE.labels])
    case = with_(cases[0], images=(a, other))
    assert [each.code for each in examine(case, two).findings] == ["channel-grid"]
    assert "channel 2" in examine(case).findings[0].problem
    assert "2 mm apart" in examine(case).findings[0].problem
    assert examine(with_(cases[0], images=(a, c)), two).findings == ()


# ---- labels ------------------------------------------------------------------------------------


def test_cases_without_label_may_only_be_tested(cases):
    bare = [with_(cases[0], label=None), cases[1], with_(cases[2], label=None)]
    assert found(bare) == [("case_0", "no-label"), ("case_2", "no-label")]
    assert found([*cases, with_(cases[0], id="t", label=None, split=None, images=cases[0].images)]) == [
        ("t", "duplicate")
    ]


def test_an_empty_label_map_is_told(cases):
    changed(cases[0], np.zeros_like, what="label")
    for recipe in (RECIPE, None):
        finding = only(cases, "label-empty", recipe)
        assert (finding.case, finding.severity) == ("case_0", "warning")


def test_a_label_map_of_unknown_voxels_alone_is_empty(cases):
    changed(cases[0], lambda array: np.full_like(array, 9), what="label")
    ignoring = RECIPE.model_copy(update={"ignore_value": 9})
    assert only(cases, "label-empty", ignoring).case == "case_0"


def test_a_label_that_is_missing_in_one_case_is_told(cases):
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


def test_only_annotated_labels_are_looked_for(cases):
    def without_left(array: np.ndarray) -> np.ndarray:
        return np.where(np.isin(array, (2, 4)), 0, array)

    changed(cases[0], without_left, what="label")
    partly = with_(cases[0], annotated=("right_lung", "middle"))
    assert found([partly, *cases[1:]]) == []
    changed(cases[1], without_left, what="label")
    codes = found([partly, with_(cases[1], annotated=("right_lung",)), cases[2]])
    assert codes == [(None, "label-never")]
    changed(cases[0], np.zeros_like, what="label")
    # Of an empty map nothing is said where none of the recipe's labels was looked for.
    other = examine(with_(cases[0], annotated=("liver",)), RECIPE)
    assert [each.code for each in other.findings] == ["annotated-name"]


def test_names_of_annotated_that_no_label_has_are_told(cases):
    typo = with_(cases[0], annotated=("right_lung", "left lung", "middle"))
    finding = only([typo, *cases[1:]], "annotated-name")
    assert "left lung" in finding.problem
    assert check([typo, *cases[1:]]).findings == ()


def test_values_without_a_label_are_told_and_counted(cases):
    def strange(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array[0, 0, :3], array[0, 1, 0] = 77, 300 % 256
        return array

    changed(cases[0], strange, what="label")
    finding = only(cases, "unknown-values")
    assert (finding.case, finding.severity) == ("case_0", "warning")
    assert "4 voxel(s) of 44, 77" in finding.problem
    assert found(cases, None) == []
    ignoring = RECIPE.model_copy(update={"ignore_value": 77})
    assert "1 voxel(s) of 44" in only(cases, "unknown-values", ignoring).problem


def test_long_lists_of_values_are_cut(cases):
    def many(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array[0, 0, :13] = np.arange(100, 113)
        return array

    changed(cases[0], many, what="label")
    assert "109 and 3 more" in only(cases, "unknown-values").problem


# ---- intensities -------------------------------------------------------------------------------


def test_an_image_of_one_value_is_told(cases):
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


def test_the_same_scan_as_two_channels_is_told(cases):
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
def test_ct_that_is_not_in_hu_any_more_is_told(cases, how, dtype):
    changed(cases[0], how, dtype=dtype)
    finding = only(cases, "hu-windowed")
    assert (finding.case, finding.severity) == ("case_0", "error")
    assert found(cases, None) == []  # nobody says that it is CT


def test_a_recipe_that_looks_at_0_to_80_takes_scans_cut_to_that(cases):
    for case in cases:
        changed(case, lambda array: array.clip(0, 80))
    brain = RECIPE.model_dump(mode="json")
    brain["prepare"]["intensity"] = {"kind": "window", "low_hu": 0, "high_hu": 80}
    assert found(cases, type(RECIPE).checked(brain)) == []
    assert {code for _, code in found(cases)} == {"hu-windowed"}


@pytest.mark.parametrize("shift", [1000, 1024])
def test_ct_stored_without_its_intercept_is_told(cases, shift):
    changed(cases[0], lambda array: array + shift)
    finding = only(cases, "hu-shifted")
    assert (finding.case, finding.severity) == ("case_0", "error")


def test_a_shift_is_seen_in_a_scan_with_a_round_field_of_view(cases):
    def padded(array: np.ndarray) -> np.ndarray:
        x, y, _ = np.indices(array.shape)
        outside = (x / array.shape[0] - 0.5) ** 2 + (y / array.shape[1] - 0.5) ** 2 > 0.25
        return np.where(outside, -2048, array)

    changed(cases[0], padded)
    assert found(cases) == []  # padding is no fault
    changed(cases[0], lambda array: array + 1024)
    assert only(cases, "hu-shifted").case == "case_0"


def test_ct_of_dense_bone_is_not_taken_for_shifted(cases):
    """A tenth of cortical bone among fat and muscle, as in a cut-out of the skull base."""
    rng = np.random.default_rng(0)

    def skull(array: np.ndarray) -> np.ndarray:
        tissue = rng.choice([-100, 50, 1000], p=[0.3, 0.6, 0.1], size=array.shape)
        return (tissue + rng.normal(0, 20, array.shape)).astype(np.int16)

    changed(cases[0], skull)
    finding = only(cases, "hu-no-air")
    assert (finding.case, finding.severity) == ("case_0", "warning")


def test_air_that_is_not_at_minus_1000_is_told(cases):
    changed(cases[0], lambda array: array - 200)
    assert "-12" in only(cases, "hu-no-air").problem  # -1200, and noise of 20


def test_a_rescale_applied_twice_is_told(cases):
    changed(cases[0], lambda array: array - 1024)
    codes = [code for _, code in found(cases)]
    assert "hu-no-tissue" in codes
    assert set(codes) <= {"hu-no-tissue", "hu-no-air"}


def test_mr_may_have_any_unit(make):
    cases = make("train", "val")
    for case in cases:
        changed(case, window(-1000, 400, 1), dtype=np.float32)
    assert found(cases, MR) == []


def test_dicom_says_itself_that_it_is_ct(tmp_path):
    scan = Thorax().scan(GRID)
    (tmp_path / "s").mkdir()
    series = write_dicom_series(Volume(scan.array + np.int16(1024), GRID), tmp_path / "s")
    case = Case(id="a", images=(series,))
    assert [each.code for each in examine(case).findings] == ["hu-shifted"]


# ---- the set -----------------------------------------------------------------------------------


def test_a_scan_stored_in_another_order_than_most_is_told(make):
    cases = make("train", "train", "train", "val")
    for path in (*cases[1].images, cases[1].label):
        image = nib.load(path)
        nib.save(image.as_reoriented([[0, -1], [1, 1], [2, 1]]), path)
    finding = only(cases, "orientation-outlier")
    assert (finding.case, finding.severity) == ("case_1", "warning")
    assert "stored as LAS, 3 of 4 cases as RAS" in finding.problem
    assert found(cases[:2]) == [(None, "no-validation-case")]  # of two none is the outlier


def test_voxels_unlike_those_of_the_others_are_told(make):
    cases = make("train", "train", "val")
    for path in (*cases[0].images, cases[0].label):
        image = nib.load(path)
        medseg.write(
            Volume(np.asarray(image.dataobj)[:, :, ::4], Grid.from_spacing((49, 34, 7), (8, 9, 48))), path
        )
    finding = only(cases, "spacing-outlier")
    assert (finding.case, finding.severity) == ("case_0", "warning")
    assert "48 mm along S-I, usually 12" in finding.problem


def test_a_scan_of_another_size_is_told(make):
    cases = make("train", "train", "val")
    for path in (*cases[0].images, cases[0].label):
        image = nib.load(path)
        cut = np.asarray(image.dataobj)[:, :, 12:20]
        nib.save(nib.Nifti1Image(cut, image.affine), path)
    finding = only(cases, "size-outlier")
    # 8 of 28 slices of 12 mm.
    assert "96 mm along S-I, usually 336" in finding.problem


def test_the_same_voxels_in_another_format_and_order_are_a_duplicate(cases, tmp_path):
    scan = medseg.read(cases[0].images[0])
    as_float = Volume(scan.array.astype(np.float32), scan.grid).oriented("SLP")
    copy = with_(cases[1], images=(as_float.save(tmp_path / "copy.nrrd"),), label=cases[0].label)
    finding = next(f for f in check([cases[0], copy, cases[2]], RECIPE).findings if f.code == "duplicate")
    assert (finding.case, finding.severity) == ("case_1", "warning")
    assert "case_0" in finding.problem


def test_a_duplicate_in_another_split_is_an_error(cases):
    copy = with_(cases[2], images=cases[0].images, label=cases[0].label)
    finding = only([*cases[:2], copy], "duplicate-across-splits")
    assert (finding.case, finding.severity) == ("case_2", "error")
    assert "case_0 in split train, here val" in finding.problem
    # Of several equal ones the one in another split is named, not the one without a split.
    nobodys = with_(cases[0], id="n", split=None)
    codes = found([nobodys, cases[0], cases[1], copy])
    assert codes == [("case_2", "duplicate-across-splits"), ("case_0", "duplicate")]


def test_a_patient_in_two_splits_is_told(cases):
    shared = [with_(case, patient="p") for case in cases]
    finding = only(shared, "patient-in-two-splits")
    assert (finding.case, finding.severity) == ("case_2", "error")
    assert "'p' is in split val, and with case case_0 in split train" in finding.problem


def series(folder: Path, number: int, split: str, **elements: str) -> Case:
    scan = Thorax.random(number).scan(default_grid((16.0, 18.0, 40.0)), seed=number)
    place = folder / f"series{number}"
    place.mkdir()
    for path in sorted(write_dicom_series(scan, place).iterdir()):
        header = pydicom.dcmread(path)
        for name, value in elements.items():
            setattr(header, name, value)
        header.save_as(path)
    return Case(id=f"c{number}", images=(place,), split=split)  # type: ignore[arg-type]  # a split


def test_a_dicom_study_in_two_splits_is_told_without_naming_it(tmp_path):
    same = {"StudyInstanceUID": "1.2.3.4", "PatientID": "SECRET1"}
    made = [series(tmp_path, 0, "train", **same), series(tmp_path, 1, "val", **(same | {"PatientID": "X"}))]
    made = [with_(case, split="test") if case.split == "val" else case for case in made]
    report = check(made)
    findings = [each for each in report.findings if each.severity == "error"]
    assert [(each.case, each.code) for each in findings if each.code != "no-label"] == [
        ("c1", "study-in-two-splits")
    ]
    assert "1.2.3.4" not in str(report)
    assert "SECRET1" not in json.dumps(report.to_json())
    one = [with_(case, patient="p") for case in made]
    assert [e.code for e in check(one).findings if "splits" in e.code] == ["patient-in-two-splits"]


def test_a_dicom_patient_in_two_splits_is_told_without_naming_him(tmp_path):
    made = [
        series(tmp_path, n, split, PatientID="SECRET1") for n, split in enumerate(("train", "test", "test"))
    ]
    made.append(series(tmp_path, 3, "test", PatientID=" "))
    report = check(made)
    findings = [each for each in report.findings if each.code == "dicom-patient-in-two-splits"]
    assert [(each.case, each.severity) for each in findings] == [("c1", "warning")]  # once a patient
    assert "SECRET1" not in str(report)


def test_subjects_are_looked_for_where_there_are_files(tmp_path):
    assert subject_of(Case(id="a", images=(tmp_path / "gone",))) == (None, None)
    assert subject_of(Case(id="a", images=(tmp_path,))) == (None, None)
    (tmp_path / "a.txt").write_text("not DICOM")
    (tmp_path / "b.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\x02\0\0\0UL\x04\0\0\0")  # cut short
    assert subject_of(Case(id="a", images=(tmp_path,))) == (None, None)
    case = series(tmp_path, 0, "test", PatientID="P", StudyInstanceUID="1.2")
    one_file = with_(case, images=(sorted(case.images[0].iterdir())[0],))
    assert None not in subject_of(case)
    assert subject_of(case) == subject_of(one_file)


def test_without_training_cases_nothing_can_be_trained(cases):
    held = [with_(case, split="val") for case in cases]
    finding = only(held, "no-training-case")
    assert (finding.case, finding.severity) == (None, "error")
    assert only(held, "no-training-case", None).severity == "warning"


def test_without_validation_cases_training_is_blind(cases):
    finding = only([with_(case, split="train") for case in cases], "no-validation-case")
    assert (finding.case, finding.severity) == (None, "warning")


# ---- DICOM labels ------------------------------------------------------------------------------


def test_segments_have_names_without_a_recipe(tmp_path):
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


# ---- facts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("codes", orientations()[::7])
def test_the_digest_is_that_of_the_voxels_in_every_order_of_axes(codes):
    scan = Thorax().scan(default_grid((16.0, 18.0, 30.0)))
    turned = Volume(np.asarray(scan.oriented(codes).array, np.float32), scan.grid.oriented(codes))
    (plain,), (other,) = measure([scan], None).channels, measure([turned], None).channels
    assert plain.digest == other.digest
    assert plain.hu == other.hu
    mirrored = measure([Volume(scan.array[::-1], scan.grid)], None).channels[0]
    assert mirrored.digest != plain.digest


def test_zero_has_no_sign():
    grid = Grid.from_spacing((1, 1, 2))
    plus, minus = (measure([Volume(np.array([[[x, 1.0]]], np.float32), grid)], None) for x in (0.0, -0.0))
    assert plus == minus


def test_measures_agree_with_numpys(monkeypatch):
    monkeypatch.setattr(checking.case_stats, "_AT_ONCE", 700)  # several slabs and pieces
    rng = np.random.default_rng(3)
    array = rng.normal(-300, 700, (20, 17, 31)).astype(np.float32)
    array[0] = -2000
    labels = rng.integers(0, 300, array.shape).astype(np.uint16)
    grid = Grid.from_spacing(array.shape)
    facts = measure([Volume(array, grid)], Mask(labels, grid, ()))
    (channel,) = facts.channels
    assert (channel.minimum, channel.maximum) == (array.min(), array.max())
    kept = np.rint(array[np.rint(array) >= -1500])
    assert channel.hu.low == np.percentile(kept, 1, method="inverted_cdf")
    for share, low, high in (("soft", -200, 300), ("none", -900, -100), ("dense", 850, 1250)):
        assert getattr(channel.hu, share) == pytest.approx(((kept >= low) & (kept <= high)).mean())
    values, counts = np.unique(labels, return_counts=True)
    assert facts.values == tuple(zip(values.tolist(), counts.tolist(), strict=True))
    assert facts.voxels((5, 7)) == int(np.isin(labels, (5, 7)).sum())


def test_a_scan_of_padding_alone_is_measured():
    array = np.array([[[-3000, -2000]]], np.int16)
    (channel,) = measure([Volume(array, Grid.from_spacing((1, 1, 2)))], None).channels
    assert (channel.hu.soft, channel.hu.dense) == (0, 0)


def test_facts_survive_a_file(cases):
    examined = examine(cases[0], RECIPE)
    again = Facts.model_validate_json(examined.facts.model_dump_json())
    assert again == examined.facts
    assert again.channels[0].place.grid == examined.volumes[0].grid
    assert examined.truth is not None
    assert again.truth == Place.of(examined.truth.grid)
    # The case's name and the labels' names are no part of them: they are found again by content.
    assert "case_0" not in again.model_dump_json()
    assert "lung" not in again.model_dump_json()


def test_kept_facts_say_what_reading_again_says(cases):
    """What training does: the facts come from its cache, and only the judging is done anew."""
    changed(cases[0], lambda array: array + 1024)
    copy = with_(cases[2], images=cases[1].images, label=cases[1].label)
    everything = [*cases[:2], copy]
    kept = [Facts.model_validate_json(examine(c, RECIPE).facts.model_dump_json()) for c in everything]
    alone = [
        f
        for case, facts in zip(everything, kept, strict=True)
        for f in checking.apply_case_rules(case, facts, RECIPE)
    ]
    together = compare([Entry(c, f) for c, f in zip(everything, kept, strict=True)], RECIPE)
    assert set(check(everything, RECIPE).findings) == {*alone, *together}


# ---- the report --------------------------------------------------------------------------------


def test_errors_come_first_in_the_order_of_the_manifest(make):
    cases = make("val", "val", "val")
    cases[2].images[0].unlink()
    changed(cases[0], np.zeros_like, what="label")
    cases[1].images[0].unlink()
    assert found(cases) == [
        ("case_1", "missing-file"),
        ("case_2", "missing-file"),
        (None, "no-training-case"),
        ("case_0", "label-empty"),
    ]
    assert check(cases, RECIPE) == check(cases, RECIPE)


def test_a_split_alone_is_opened(cases):
    cases[2].images[0].unlink()
    seen: list[tuple[int, int]] = []
    report = check(cases, RECIPE, split="train", progress=lambda *numbers: seen.append(numbers))
    assert (report.cases, report.findings, seen) == (2, (), [(1, 2), (2, 2)])
    shared = [with_(case, patient="p") for case in cases]
    assert [f.code for f in check(shared, split="train").findings] == ["patient-in-two-splits"]


def test_what_a_file_says_is_one_line_without_control_characters():
    told = checking.findings.finding("image-unreadable", "a\nb\x1b[31m  c", "x")
    assert told.problem == "a b\\x1b[31m c"
    assert str(told).startswith("x: image-unreadable: a b")
    assert str(checking.findings.finding("no-validation-case", "y", None)).startswith("all cases: ")


def test_errors_are_refused_and_warnings_are_not(cases):
    changed(cases[0], np.zeros_like, what="label")
    refuse(check(cases, RECIPE).findings)
    cases[0].images[0].unlink()
    cases[1].images[0].unlink()
    with pytest.raises(InputRefused, match="missing-file") as caught:
        refuse(check(cases, RECIPE).findings)
    assert caught.value.reason == "data-errors"
    assert caught.value.where == "case_0"
    assert "and 1 more" in caught.value.problem
    assert "medseg check" in str(caught.value.remedy)
    with pytest.raises(InputRefused) as caught:
        refuse([checking.findings.finding("no-training-case", "none", None)])
    assert caught.value.where == "manifest"


# ---- the command -------------------------------------------------------------------------------


@pytest.fixture
def manifest(cases: list[Case], tmp_path: Path) -> Path:
    return Manifest("world", tuple(cases), tmp_path).write(tmp_path / "cases.csv")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.yaml())
    return path


def test_the_command_says_that_all_is_well(manifest, recipe):
    out, err = invoke("check", manifest, "--recipe", recipe)
    assert out.splitlines()[-1] == "3 cases: 0 errors, 0 warnings"
    assert re.search(r"^value 1 \(right_lung\): \d+ voxels in 3 of 3 cases$", out, re.M)
    assert "opened 3 cases" in err
    assert "error" not in err


def test_the_command_lists_errors_first_and_exits_with_1(manifest, cases, recipe):
    changed(cases[0], np.zeros_like, what="label")
    cases[1].images[0].unlink()
    out, _ = invoke("check", manifest, "--recipe", recipe, code=1)
    lines = out.splitlines()
    assert lines[0].startswith("error    case_1: missing-file: ")
    assert lines[1].startswith("warning  case_0: label-empty: ")
    assert lines[-1] == "3 cases: 1 error, 1 warning"


def test_warnings_alone_are_no_failure(manifest, cases):
    changed(cases[0], np.zeros_like, what="label")
    assert "warning  case_0" in invoke("check", manifest)[0]


def test_json_is_one_object(manifest, cases, recipe):
    cases[1].images[0].unlink()
    report = json.loads(invoke("check", manifest, "--recipe", recipe, "--json", code=1)[0])
    assert (report["cases"], report["errors"], report["warnings"]) == (3, 1, 0)
    (finding,) = report["findings"]
    assert set(finding) == {"case", "severity", "code", "problem", "remedy", "refusal"}
    assert finding["case"] == "case_1"
    assert report["values"][1]["name"] == "right_lung"


def test_a_leak_in_the_manifest_is_a_finding_and_the_scans_are_opened_all_the_same(cases, tmp_path):
    lines = ["id,patient,image,label,split"]
    lines += [f"{case.id},p,{case.images[0]},{case.label},{case.split}" for case in cases]
    path = tmp_path / "leak.csv"
    path.write_text("\n".join(lines))
    out, err = invoke("check", path, code=1)
    assert "error    case_2: patient-in-two-splits" in out
    assert "opened 3 cases" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["gone.csv"], "cannot be read"),
        (["{m}", "--recipe", "nope"], "no such recipe"),
        (["{m}", "--split", "test"], "no case has split 'test'"),
    ],
)
def test_what_cannot_be_asked_exits_with_2(manifest, arguments, told):
    assert told in invoke("check", *(text.replace("{m}", str(manifest)) for text in arguments), code=2)[1]


def test_checking_needs_no_torch(manifest, tmp_path):
    assert heavy_imports(command_code("check", str(manifest)), cwd=tmp_path) == []


def test_files_may_lie_elsewhere(manifest, cases, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert "missing-file" in invoke("check", manifest, "--data-root", elsewhere, code=1)[0]
    for case in cases:
        for path in (*case.images, case.label):
            path.rename(elsewhere / path.name)
    assert "0 errors" in invoke("check", manifest, "--data-root", elsewhere)[0]


# ---- docs and real data ------------------------------------------------------------------------


def test_the_page_explains_every_finding_and_names_its_test():
    page = table_rows((ROOT / "docs" / "checks.md").read_text(encoding="utf-8"))
    described = {row[0].strip("`"): row for row in page}
    assert list(described) == list(REGISTRY)
    assert len(page) == len(REGISTRY)
    here = set(globals())
    for code, (_, severity, what, remedy, test) in described.items():
        assert severity.split(" ")[0] == REGISTRY[code].severity, code
        assert what, code
        assert remedy, code
        assert test.strip("`") in here, code


@pytest.mark.parametrize(
    ("name", "recipe"), [("lctsc_lungs", "lung_ct_3d"), ("hippocampus", "hippocampus_mr_3d")]
)
def test_real_data_has_no_finding(shared_data, name, recipe):
    from medseg.recipe import Recipe

    cases = Manifest.read(ROOT / "data_manifests" / f"{name}.yaml", root=shared_data).cases
    assert check(cases[:30], Recipe.read(recipe), split="train").findings == ()


def test_phantom_values_are_all_in_the_recipe():
    """Guards the tests above: a new structure of the phantom would be an unknown value in each."""
    known = {value for label in RECIPE.labels for value in label.values}
    assert {value for label in LABELS for value in label.values} == known
