"""The report opens from the disk, needs no network, and shows the worst cases first."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.browser import page

from medseg import reporting
from medseg.errors import UsageError
from medseg.images.volume import Mask
from medseg.phantom.thorax import LABELS, Thorax, default_grid
from medseg.reporting.content import FAR, gather, spread
from medseg.visualization import thumbnails

CASES = 14


@pytest.fixture(scope="module")
def batch(tmp_path_factory) -> Path:
    """The output folder of a batch of 14 cases: 3 failed, 5 has a huge left lung, 6 is at the border."""
    folder = tmp_path_factory.mktemp("segmented")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(CASES):
        row = {
            "case": f"case_{number:02d}",
            "patient": "",
            "model": "lung_ct",
            "status": "done",
            "reason": "",
        }
        row |= {"message": "", "mask": f"masks/{number}.nii.gz", "warnings": ""}
        row |= {"input": f"/my scans/{number}.nii.gz"}
        right = 2000 + 20 * rng.standard_normal()
        row |= {"right_lung_ml": right, "right_lung_components": 1, "right_lung_at_border": number == 6}
        row |= {"right_lung_mean": -800 + rng.standard_normal()}
        row |= {"lungs_entropy": 0.5 if number == 8 else 0.02 + 0.001 * rng.standard_normal()}
        left = right * (5 if number == 5 else 0.9 + 0.01 * rng.standard_normal())
        row |= {"left_lung_ml": left, "left_lung_components": 2 if number == 7 else 1}
        if number == 3:
            row = {**dict.fromkeys(row, ""), "case": "case_03", "model": "lung_ct", "status": "failed"}
            row |= {"reason": "unreadable", "message": "x.nii.gz: cut off <script>alert(1)</script>"}
        rows.append(row)
    rows[2]["warnings"] = "x.nii.gz: the sides look exchanged"
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    scan, truth = Thorax().scan(default_grid((6.0, 6.0, 8.0))), Thorax().truth(default_grid((6.0, 6.0, 8.0)))
    picture = thumbnails.encoded(
        thumbnails.thumbnail(scan, Mask(truth.array, truth.grid, LABELS[:2]), pixels=96)
    )
    lines = [thumbnails.line(f"case_{number:02d}", "lung_ct", picture) for number in range(CASES)]
    (folder / "thumbnails.jsonl").write_text("".join(lines) + '{"case": "cut o')
    models = [{"model": "lung_ct", "model_sha256": "ab" * 32, "engine": "torch 2"}]
    start = {"event": "start", "time": 1.0, "medseg": "0.1.0", "models": models, "options": {"dicom": None}}
    start["command"] = "medseg batch scans -o segmented"
    (folder / "journal.jsonl").write_text(json.dumps(start) + "\n")
    return folder


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory) -> Path:
    """The output folder of an evaluation: 10 cases of one label, and one that failed."""
    folder = tmp_path_factory.mktemp("evaluated")
    from medseg.evaluation.evaluator import COLUMNS
    from medseg.evaluation.summary_table import write

    rows = []
    for number in range(10):
        row = {"case": f"c{number}", "patient": f"c{number}", "group": None, "label": "lungs", "status": "ok"}
        row |= {"dice": 0.99 - 0.01 * number, "iou": 0.9, "sensitivity": 1, "precision": 1, "nsd": 1}
        row |= {"nsd_tolerance_mm": 3, "hd95_mm": 2 + number, "hd_mm": 9, "assd_mm": 1, "volume_ml": 1000.0}
        row |= {
            "truth_ml": 1010.0 + 10 * number,
            "volume_error_ml": 0,
            "volume_error_percent": 0,
            "empty": "",
        }
        row |= dict.fromkeys(("lesions", "lesions_found", "lesions_false"), 0) | {"seconds": 1, "reason": ""}
        rows.append(row)
    rows.append(
        {"case": "c99", "patient": "c99", "label": "", "status": "failed", "reason": "empty: nothing"}
    )
    write(pd.DataFrame(rows, columns=list(COLUMNS)), folder)
    return folder


def test_the_worst_cases_come_first_with_their_findings(batch):
    content = gather(batch)
    by_name = {row.case: row for row in content.rows}
    assert content.rows[0].case == "case_03"
    assert content.rows[1].case == "case_05"
    assert by_name["case_05"].findings == (
        "left lung ml is high",
        "lung left / right is high",
    )
    assert by_name["case_06"].findings == ("right lung touches the border of the scan",)
    assert by_name["case_08"].findings == ("lungs entropy is high",)
    assert by_name["case_07"].findings == ("left lung in 2 parts",)
    assert by_name["case_02"].findings == ("x.nii.gz: the sides look exchanged",)
    assert by_name["case_04"].numbers["lung left / right"] == pytest.approx(0.9, abs=0.04)
    assert ("command", "medseg batch scans -o segmented") in content.provenance


@pytest.mark.parametrize("cases", [("c0",), ("c0", "c99"), ("c0", "other")])
def test_scores_keep_the_rows_of_several_models(evaluation, tmp_path, cases):
    models = ("lung_ct", "threshold", "lung_ct_context")
    rows = [
        {
            "case": case,
            "patient": "",
            "model": model,
            "status": "done",
            "reason": "",
            "message": "",
            "mask": "",
        }
        | {"warnings": "", "lungs_ml": 1000.0 + number}
        for case in cases
        for number, model in enumerate(models)
    ]
    shutil.copytree(evaluation, tmp_path / "both")
    pd.DataFrame(rows).to_csv(tmp_path / "both" / "results.csv", index=False)
    found = {(row.case, row.model): row for row in gather(tmp_path / "both").rows}
    for case in cases:
        assert [found[case, model].numbers["lungs ml"] for model in models] == [1000, 1001, 1002]
        assert not any(name.endswith("dice") for model in models for name in found[case, model].numbers)
    assert found["c0", "evaluation"].numbers["lungs dice"] == pytest.approx(0.99)
    assert ("c99", "evaluation") in found or "c99" not in cases
    assert found["c1", ""].numbers["lungs dice"] == pytest.approx(0.98)  # only evaluated
    assert len(found) == 3 * len(cases) + 11


def test_scores_of_one_model_are_in_its_row(evaluation, tmp_path):
    shutil.copytree(evaluation, tmp_path / "both")
    row = {
        "case": "c0",
        "patient": "",
        "model": "m",
        "status": "done",
        "reason": "",
        "message": "",
        "mask": "",
    }
    pd.DataFrame([row | {"warnings": "", "lungs_ml": 7.0}]).to_csv(
        tmp_path / "both" / "results.csv", index=False
    )
    (one,) = [row for row in gather(tmp_path / "both").rows if row.case == "c0"]
    assert one.numbers["lungs dice"] == pytest.approx(0.99)
    assert len(gather(tmp_path / "both").rows) == 11


def test_outliers_are_those_of_iglewicz_and_hoaglin():
    # By hand: median 5.5, deviations 4.5 3.5 2.5 1.5 0.5 0.5 1.5 2.5 3.5 994.5, with the median 2.5.
    values = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1000]
    middle, width = spread(values)
    assert (middle, width) == (5.5, pytest.approx(1.4826 * 2.5))
    assert [v for v in values if abs(v - middle) > FAR * width] == [1000]
    assert spread(values[:7]) is None
    assert spread([3.0] * 20) is None


def test_nothing_to_report_is_refused(tmp_path):
    with pytest.raises(UsageError) as refused:
        reporting.report(tmp_path)
    assert refused.value.reason == "nothing-to-report"
    (tmp_path / "results.csv").write_text("case,status\na,done\n")
    with pytest.raises(UsageError) as refused:
        reporting.report(tmp_path)
    assert refused.value.reason == "table"


@pytest.mark.slow
def test_a_browser_sorts_filters_and_opens_cases(batch):
    path = reporting.report(batch)
    with page(offline=True) as tab:
        tab.goto(path.as_uri())
        assert [url for url in tab.asked if not url.startswith(("file:", "data:"))] == []
        names = "#cases tbody tr:not([hidden]) td:nth-child(2)"
        assert tab.locator(names).all_inner_texts()[:2] == ["case_03", "case_05"]
        assert tab.locator(".counts").inner_text().split("\n")[0] == "14 cases"
        tab.get_by_role("button", name="left lung ml").click()
        assert tab.locator(names).all_inner_texts()[-1] == "case_03"  # unknown values are last
        tab.get_by_role("button", name="left lung ml").press("Enter")
        assert tab.locator(names).first.inner_text() == "case_05"
        assert tab.locator("th[aria-sort=descending]").inner_text().startswith("left lung ml")
        tab.locator("#kind").select_option("failed")
        assert tab.locator(names).all_inner_texts() == ["case_03"]
        assert tab.locator("#count").inner_text() == "1 of 14 shown"
        tab.locator("#kind").select_option("all")
        tab.get_by_label("Search").fill("case_06")
        assert tab.locator(names).all_inner_texts() == ["case_06"]
        tab.get_by_label("Search").fill("")
        first = tab.locator(names).first.inner_text()
        tab.locator(names).first.get_by_role("button").press("Enter")
        assert tab.locator("dialog h2").inner_text() == first
        assert (
            tab.locator("dialog img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 50
        )
        shown = tab.locator("dialog code").all_inner_texts()
        assert shown == ["/my scans/5.nii.gz", f"medseg view '/my scans/5.nii.gz' {batch / 'masks/5.nii.gz'}"]
        tab.keyboard.press("ArrowDown")
        assert tab.locator("dialog h2").inner_text() != first
        tab.keyboard.press("Escape")
        assert not tab.locator("dialog").is_visible()
        assert tab.evaluate("document.querySelectorAll('script').length") == 2  # the one in a message is text


@pytest.mark.slow
def test_the_summary_needs_no_javascript(batch):
    path = reporting.report(batch)
    with page(java_script_enabled=False, offline=True) as tab:
        tab.goto(path.as_uri())
        assert "14 cases" in tab.locator(".counts").inner_text()
        assert "cut off" in tab.locator("main").inner_text()
        assert tab.locator("#cases tbody tr").count() == CASES
        assert not tab.locator(".filters").is_visible()
        assert tab.locator("svg").count() >= 3


def test_an_evaluation_has_its_metrics_and_charts(evaluation):
    text = reporting.report(evaluation).read_text()
    content = gather(evaluation)
    assert content.rows[0].case == "c99"
    assert content.rows[1].case == "c9"  # the lowest Dice of the others
    label, cases, mean, *_ = content.summary[1]
    assert (label, cases, mean) == ("lungs", "10", "0.945")
    # Differences -10, -20 ... -100: their mean by hand.
    assert "lungs: bias -55.0 ml" in text
    assert text.count("<polygon") == 1


def test_a_thousand_cases_stay_small(batch, tmp_path):
    """At most 60 MB, with pictures of 15 kB each: larger than real ones of 176 pixels."""
    folder = tmp_path / "many"
    shutil.copytree(batch, folder)
    rows = list(csv.DictReader((batch / "results.csv").open()))
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**rows[n % CASES], "case": f"c{n:04d}"} for n in range(1000))
    lines = [thumbnails.line(f"c{n:04d}", "lung_ct", thumbnails.encoded(bytes(15_000))) for n in range(1000)]
    (folder / "thumbnails.jsonl").write_text("".join(lines))
    assert reporting.report(folder).stat().st_size < 60e6
