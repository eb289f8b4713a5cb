"""Evaluation tables against numbers calculated by hand."""

from __future__ import annotations

import csv
import errno
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.commands import invoke
from support.worlds import tiny

from medseg.datasets.manifest import Case
from medseg.errors import InputRefused, UsageError
from medseg.evaluation.evaluation_files import read_evaluation
from medseg.evaluation.evaluator import COLUMNS, evaluate_cases
from medseg.evaluation.summary_table import summary, write
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask
from medseg.system.notices import collect_notices

LABELS = (Label(name="a", values=(1,)), Label(name="b", values=(2,)))
GRID = Grid.from_spacing((5, 4, 3), (10, 10, 10))  # a voxel has 1 ml


def mask(a: int, b: int) -> Mask:
    """Label a in the first ``a`` voxels of a row, b in the first ``b`` of another."""
    array = np.zeros(GRID.shape, dtype=np.uint8)
    array[:a, 0, 1], array[:b, 2, 1] = 1, 2
    return Mask(array, GRID, LABELS)


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    truths = {"one": mask(4, 2), "two": mask(4, 0), "bad": mask(1, 1)}
    for name, truth in truths.items():
        truth.save(tmp_path / f"{name}.nii.gz")
    return [
        Case(id=name, patient=f"P-{name}", images=(tmp_path / "scan.nii.gz",), group="siemens",
             label=tmp_path / f"{name}.nii.gz")
        for name in ("one", "bad", "two", "gone")
    ]  # fmt: skip


def predict(case: Case) -> Mask:
    if case.id == "bad":
        raise InputRefused("two lines\nof text", where=case.id, reason="geometry")
    return {"one": mask(2, 2), "two": mask(5, 0)}[case.id]


def test_every_case_and_label_has_a_row_and_a_failure_does_not_stop_the_others(cases: list[Case]) -> None:
    frame = evaluate_cases(cases, predict, LABELS)
    assert tuple(frame.columns) == COLUMNS
    # one: a 2 of 4 found, b exact; two: a 5 for 4, b in neither
    assert frame["case"].tolist() == ["one", "one", "bad", "two", "two", "gone"]
    assert frame["dice"].tolist()[:2] == [2 * 2 / (2 + 4), 1.0]
    assert frame["dice"].tolist()[3] == 2 * 4 / (5 + 4)
    assert math.isnan(frame["dice"].tolist()[4])
    assert frame["volume_error_ml"].tolist()[:2] == pytest.approx([-2.0, 0.0])
    assert frame["volume_error_percent"].tolist()[3] == 25.0
    assert set(frame["group"]) == {"siemens"}
    assert frame["status"].tolist() == ["ok", "ok", "failed", "ok", "ok", "failed"]
    bad, gone = (frame[frame["case"] == name].iloc[0]["reason"] for name in ("bad", "gone"))
    assert bad == "geometry: bad: two lines of text"
    assert gone.startswith("not-found: ")
    assert (frame.loc[frame["status"] == "ok", "seconds"] >= 0).all()


def test_the_truth_is_read_before_the_prediction_is_made(cases: list[Case]) -> None:
    def never(case: Case) -> Mask:
        raise AssertionError("predicted although the truth cannot be read")

    unlabelled = Case(id="x", images=(Path("x"),))
    frame = evaluate_cases([cases[3], unlabelled], never, LABELS)
    assert [reason.split(":")[0] for reason in frame["reason"]] == ["not-found", "no-label"]


def test_an_unexpected_error_fails_only_its_case(cases: list[Case], caplog: pytest.LogCaptureFixture) -> None:
    def broken(case: Case) -> Mask:
        return mask(4, 2) if case.id == "one" else [][1]

    frame = evaluate_cases(cases[:2], broken, LABELS)
    assert frame["status"].tolist() == ["ok", "ok", "failed"]
    assert frame["reason"].tolist()[2].startswith("unexpected: IndexError")
    assert "bad failed unexpectedly" in caplog.text


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk: [Errno 28] No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied"), "disk: [Errno 13] Permission denied"),
        (MemoryError(), "memory: out of memory"),
    ],
)
def test_a_lack_of_disk_or_memory_is_named_without_a_traceback(
    cases: list[Case], caplog: pytest.LogCaptureFixture, error: Exception, reason: str
) -> None:
    def predict(case: Case) -> Mask:
        raise error

    frame = evaluate_cases(cases[:1], predict, LABELS)
    assert frame["reason"].str.startswith(reason).all()
    assert not caplog.text


def test_summary_by_hand(cases: list[Case]) -> None:
    table = summary(evaluate_cases(cases, predict, LABELS))
    assert table.index.tolist() == ["a", "b", "all labels"]
    low, high = 2 / 3, 8 / 9
    a = table.loc["a"]
    assert (a["n"], a["undefined"], a["failed"]) == (2, 0, 2)
    assert a["dice_mean"] == pytest.approx((low + high) / 2)
    assert a["dice_sd"] == pytest.approx((high - low) / math.sqrt(2))  # n - 1
    assert (a["dice_min"], a["dice_max"]) == pytest.approx((low, high))
    assert a["dice_median"] == pytest.approx((low + high) / 2)
    assert a["iou_mean"] == pytest.approx((2 / 4 + 4 / 5) / 2)
    assert a["volume_error_abs_ml_mean"] == pytest.approx((2 + 1) / 2)
    b = table.loc["b"]
    assert (b["n"], b["undefined"], b["dice_mean"]) == (1, 1, 1.0)
    assert math.isnan(b["dice_sd"])
    # by case: (2/3 + 1) / 2 for one; two has a only, 8/9
    assert table.loc["all labels", "dice_mean"] == pytest.approx(((low + 1) / 2 + high) / 2)
    assert table.loc["all labels", "n"] == 2


def test_all_cases_failed(cases: list[Case], tmp_path: Path) -> None:
    frame = evaluate_cases([cases[3]], predict, LABELS)
    table = summary(frame)
    assert table.index.tolist() == ["all labels"]
    assert (table.loc["all labels", "n"], table.loc["all labels", "failed"]) == (0, 1)
    assert math.isnan(table.loc["all labels", "dice_mean"])
    text = write(frame, tmp_path)[3].read_text(encoding="utf-8")
    cells = [cell.strip() for cell in text.splitlines()[2].split("|")[1:-1]]
    assert (cells[:2], cells[-2:]) == (["all labels", "0"], ["0", "1"])
    assert set(cells[2:-2]) == {"–"}


def test_written_tables_can_be_read_back(cases: list[Case], tmp_path: Path) -> None:
    frame = evaluate_cases(cases, predict, LABELS)
    rows, table, as_json, text, tex = write(frame, tmp_path)
    back = pd.read_csv(rows)
    assert back["case"].tolist() == frame["case"].tolist()
    assert back["dice"].tolist()[0] == pytest.approx(2 / 3, abs=1e-6)
    pd.testing.assert_frame_equal(summary(back), summary(frame), rtol=1e-5)
    assert pd.read_csv(table, index_col="label").loc["a", "n"] == 2
    # Two patients: standard error 1/9, t(0.975, 1 d.f.) = 12.7: the interval is all of 0..1.
    assert "| a | 2 | 0.778 ± 0.157 | 0.000–1.000 | 0.778 (0.667–0.889) |" in text.read_text(encoding="utf-8")
    assert "a & 2 & 0.778 $\\pm$ 0.157 & 0.000--1.000 &" in tex.read_text(encoding="utf-8")
    first = json.loads(as_json.read_text(encoding="utf-8"))[0]
    assert (first["label"], first["group"], first["n"]) == ("a", "all", 2)
    with pytest.raises(UsageError):
        write(frame, tmp_path / "no folder")


def test_names_in_tables_do_not_become_formulas_and_are_read_back(cases: list[Case], tmp_path: Path) -> None:
    labels = (Label(name="=1+1", values=(1,)), Label(name="@b/c", values=(2,)))
    named = [cases[0].model_copy(update={"patient": "-p", "group": "+g"})]
    frame = evaluate_cases(named, lambda case: Mask(mask(2, 2).array, GRID, labels), labels)
    rows, table, *_ = write(frame, tmp_path)
    with rows.open(encoding="utf-8", newline="") as file:
        first = next(csv.DictReader(file))
    assert (first["label"], first["patient"], first["group"]) == ("'=1+1", "'-p", "'+g")
    assert float(first["volume_error_ml"]) < 0  # numbers are not changed
    assert "'@b/c" in table.read_text(encoding="utf-8")
    back = read_evaluation(rows)
    assert back["label"].tolist() == ["=1+1", "@b/c"]
    assert back["patient"].tolist() == ["-p", "-p"]


def test_groups_have_their_own_rows(cases: list[Case]) -> None:
    other = [case.model_copy(update={"group": "ge"}) if case.id == "two" else case for case in cases]
    table = summary(evaluate_cases(other, predict, LABELS)).reset_index()
    assert list(dict.fromkeys(table["group"])) == ["all", "ge", "siemens"]
    rows = table.set_index(["group", "label"])
    assert rows.loc[("ge", "a"), "dice_mean"] == pytest.approx(8 / 9)
    assert rows.loc[("siemens", "a"), "dice_mean"] == pytest.approx(2 / 3)
    assert (rows.loc[("siemens", "a"), "failed"], rows.loc[("ge", "a"), "failed"]) == (2, 0)


def test_missing_structures_are_counted_and_have_the_diagonal_as_distance(cases: list[Case]) -> None:
    frame = evaluate_cases(cases[:1], lambda case: mask(4, 0), LABELS)
    b = frame[frame["label"] == "b"].iloc[0]
    diagonal = math.hypot(40, 30, 20)
    assert (b["empty"], b["dice"], b["nsd"], b["sensitivity"]) == ("prediction", 0, 0, 0)
    assert math.isnan(b["precision"])
    assert b["hd95_mm"] == b["hd_mm"] == b["assd_mm"] == pytest.approx(diagonal)
    table = summary(frame)
    assert (table.loc["b", "one_empty"], table.loc["all labels", "one_empty"]) == (1, 1)
    assert table.loc["b", "hd95_mm_mean"] == pytest.approx(diagonal)


def test_lesions_are_pooled_over_cases(cases: list[Case]) -> None:
    table = summary(evaluate_cases([cases[0], cases[2]], predict, LABELS))
    # a: both true lesions found, none false; b: the one of case `one` found.
    counts = table.loc["a", ["lesions", "lesions_found", "lesions_false"]].tolist()
    assert counts == [2, 2, 0]
    assert table.loc["b", "lesion_sensitivity_pooled"] == 1
    assert table.loc["all labels", "lesions"] == 3
    assert table.loc["all labels", "false_lesions_per_case"] == 0


def test_labels_that_are_not_annotated_have_no_row(cases: list[Case]) -> None:
    partial = cases[0].model_copy(update={"annotated": ("b",)})
    assert evaluate_cases([partial], predict, LABELS)["label"].tolist() == ["b"]


def test_ignored_voxels_are_excluded_from_every_score(tmp_path: Path) -> None:
    array = mask(4, 2).array.copy()
    array[2:4, 0, 1] = 9  # half of a is unknown
    Mask(array, GRID, LABELS).save(tmp_path / "t.nii.gz")
    case = Case(id="one", images=(tmp_path / "scan.nii.gz",), label=tmp_path / "t.nii.gz")
    frame = evaluate_cases([case], lambda case: mask(3, 2), LABELS, ignore_value=9)
    a = frame.iloc[0]
    assert [a["dice"], a["volume_ml"], a["truth_ml"], a["hd_mm"]] == pytest.approx([1, 2, 2, 0])


def test_the_surface_dice_uses_the_given_tolerance(cases: list[Case]) -> None:
    strict, loose = (
        evaluate_cases(cases[:1], predict, LABELS, nsd_tolerance_mm=mm).iloc[0]["nsd"] for mm in (9, 20)
    )
    # a: 2 of 4 voxels of a row found. Around the row are four cells; an end has a corner of area c in each, a
    # step between voxels an edge of area e. Prediction 2 c + e, all at 0 mm; truth 2 c + 3 e, of which e is
    # 10 and c 20 mm away: strict (3 c + 3 e) / (4 c + 4 e).
    assert (strict, loose) == (pytest.approx(3 / 4), pytest.approx(1))
    voxels = evaluate_cases(cases[:1], predict, LABELS, nsd_tolerance_mm=9).iloc[0]
    # Of 6 border voxels the last two of the truth are 10 and 20 mm away.
    assert voxels["nsd_voxel"] == pytest.approx(4 / 6)


@pytest.mark.parametrize(
    ("spacing", "tolerance", "thick"),
    [((1, 1, 5), 3.0, True), ((1, 1, 5), 5.0, False), ((4, 4, 5), 3.0, False), ((6, 1, 1), {"a": 4.0}, True)],
)
def test_thick_slices_are_reported_once(tmp_path: Path, spacing, tolerance, thick: bool) -> None:
    truth = Mask(mask(4, 2).array, Grid.from_spacing(GRID.shape, spacing), LABELS)
    truth.save(tmp_path / "t.nii.gz")
    cases = [Case(id=name, images=(tmp_path / "s.nii.gz",), label=tmp_path / "t.nii.gz") for name in "xy"]
    with collect_notices() as notices:
        evaluate_cases(cases, lambda case: truth, LABELS, nsd_tolerance_mm=tolerance)
    assert [(notice.reason, notice.path) for notice in notices] == [("thick-slices", "x")] * thick
    assert all("2 of 2 cases" in notice.text for notice in notices)


def test_tables_of_earlier_versions_without_new_metrics_can_be_summarised(cases: list[Case]) -> None:
    frame = evaluate_cases(cases[:1], predict, LABELS)
    table = summary(frame.drop(columns=["nsd_voxel", "hd95_voxel_mm"]))
    assert table.loc["a", "dice_mean"] == summary(frame).loc["a", "dice_mean"]
    assert math.isnan(table.loc["a", "nsd_voxel_mean"])


def test_labels_may_have_their_own_tolerance(cases: list[Case], tmp_path: Path) -> None:
    frame = evaluate_cases(cases[:1], predict, LABELS, nsd_tolerance_mm={"a": 10})
    assert frame["nsd_tolerance_mm"].tolist() == [10, 3]  # b has the default
    corner, edge = math.sqrt(3) / 8, math.sqrt(2) / 2  # of a cell of 1 mm; see the test before
    assert frame["nsd"].tolist() == [pytest.approx((3 * corner + 4 * edge) / (4 * corner + 4 * edge)), 1]
    assert frame["nsd_voxel"].tolist() == [pytest.approx(5 / 6), 1]
    text = write(frame, tmp_path)[3].read_text(encoding="utf-8")
    assert "NSD: within 10 mm (a), 3 mm (b)." in text
    assert math.isnan(summary(frame).loc["all labels", "nsd_tolerance_mm"])
    same = write(evaluate_cases(cases[:1], predict, LABELS), tmp_path)[3].read_text(encoding="utf-8")
    assert "NSD: within 3 mm." in same


@pytest.mark.parametrize("bad", [-1.0, math.nan, {"a": math.inf}, {"c": 1.0}])
def test_invalid_tolerances_are_refused_before_anything_is_read(bad: float | dict[str, float]) -> None:
    with pytest.raises(UsageError, match="an NSD tolerance is") as caught:
        evaluate_cases([], predict, LABELS, nsd_tolerance_mm=bad)
    assert caught.value.reason == "tolerance"


@pytest.mark.parametrize(
    ("given", "want"),
    [(["2", "b=1.5"], "2 mm (a), 1.5 mm (b)"), (["a=1"], "1 mm (a), 3 mm (b)"), ([], "3 mm")],
)
def test_the_command_accepts_tolerances_for_all_labels_and_for_one(
    cases: list[Case], tmp_path: Path, given: list[str], want: str
) -> None:
    rows = [f"{case.id},{case.images[0]},{case.label}" for case in cases[:1]]
    (tmp_path / "cases.csv").write_text("\n".join(["id,image,label", *rows]), encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(tiny(labels=LABELS).yaml(), encoding="utf-8")
    options = [part for text in given for part in ("--nsd-tolerance-mm", text)]
    out, _ = invoke(
        "evaluate", tmp_path / "cases.csv", "--masks", tmp_path, "--recipe", tmp_path / "recipe.yaml",
        "-o", tmp_path / "out", "--split", "all", *options,
    )  # fmt: skip
    assert f"NSD: within {want}." in out


def test_the_command_refuses_invalid_tolerances(cases: list[Case], tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text(f"id,image,label\none,x,{cases[0].label}\n", encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(tiny(labels=LABELS).yaml(), encoding="utf-8")
    for text, message in (
        ("a=wide", "invalid tolerance 'a=wide'"),
        ("c=1", "for 'c', which is not a label"),
    ):
        _, err = invoke(
            "evaluate", tmp_path / "cases.csv", "--masks", tmp_path, "--recipe", tmp_path / "recipe.yaml",
            "-o", tmp_path / "out", "--split", "all", "--nsd-tolerance-mm", text, code=2,
        )  # fmt: skip
        assert message in err
