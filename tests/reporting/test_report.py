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
from medseg.errors import ResourceError, UsageError
from medseg.images.volume import Mask
from medseg.phantom.thorax import LABELS, Thorax, default_grid
from medseg.reporting.content import FAR, gather, spread
from medseg.reporting.quantities import Quantity, quantity_of
from medseg.visualization import thumbnails
from medseg.visualization.case_slices import case_slices

CASES = 14
NAMES = "#cases tbody tr:not([hidden]) td:nth-child(2)"


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
    rows[2]["warnings"] = "x.nii.gz: right and left may be exchanged"
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    scan, truth = Thorax().scan(default_grid((6.0, 6.0, 8.0))), Thorax().truth(default_grid((6.0, 6.0, 8.0)))
    picture = thumbnails.encoded(
        thumbnails.thumbnail(scan, Mask(truth.array, truth.grid, LABELS[:2]), pixels=96)
    )
    slices = case_slices(scan, Mask(truth.array, truth.grid, LABELS[:2]))
    lines = [thumbnails.line(f"case_{number:02d}", "lung_ct", picture, slices) for number in range(CASES)]
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
        "left lung volume is high",
        "lung left / right is high",
    )
    assert by_name["case_06"].findings == ("right lung touches the border of the scan",)
    assert by_name["case_08"].findings == ("lungs entropy is high",)
    assert by_name["case_07"].findings == ("left lung in 2 parts",)
    assert by_name["case_02"].findings == ("x.nii.gz: right and left may be exchanged",)
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
        names = NAMES
        assert tab.locator(names).all_inner_texts()[:2] == ["case_03", "case_05"]
        assert tab.locator(".counts").inner_text().split("\n")[0] == "14 cases"
        tab.get_by_role("button", name="left lung volume, ml").click()
        assert tab.locator(names).all_inner_texts()[-1] == "case_03"  # unknown values are last
        tab.get_by_role("button", name="left lung volume, ml").press("Enter")
        assert tab.locator(names).first.inner_text() == "case_05"
        assert tab.locator("th[aria-sort=descending]").inner_text().startswith("volume, ml")
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
            tab.locator("dialog img.planes").evaluate(
                "image => image.decode().then(() => image.naturalWidth)"
            )
            > 50
        )
        shown = tab.locator("dialog code").all_inner_texts()
        assert shown == [f"medseg view '/my scans/5.nii.gz' {batch / 'masks/5.nii.gz'}", "/my scans/5.nii.gz"]
        tab.keyboard.press("ArrowRight")
        assert tab.locator("dialog h2").inner_text() != first
        tab.keyboard.press("Escape")
        assert not tab.locator("dialog").is_visible()
        assert tab.evaluate("document.querySelectorAll('script').length") == 2  # the one in a message is text


def test_a_quantity_has_a_label_and_a_unit():
    assert quantity_of("left lung ml") == Quantity("left lung", "volume", "ml")
    assert quantity_of("left lung airless ml") == Quantity("left lung", "airless volume", "ml")
    assert quantity_of("lungs hd95 mm").title == "lungs HD95, mm"
    assert quantity_of("liver mean") == Quantity("liver", "mean", "HU")
    assert quantity_of("liver mean", hounsfield=False) == Quantity("liver", "mean", "")
    assert quantity_of("both lungs mean hu") == Quantity("both lungs", "mean", "HU")
    assert quantity_of("anything else") == Quantity("", "anything else", "")


@pytest.mark.parametrize(("modality", "unit"), [("CT", "HU"), ("MR", "")])
def test_only_intensities_of_ct_are_hounsfield_units(batch, tmp_path, modality, unit):
    folder = tmp_path / "of"
    shutil.copytree(batch, folder)
    with (folder / "journal.jsonl").open("a") as file:
        file.write(json.dumps({"event": "case", "case": 'a"modality": "PT"', "modality": modality}) + "\n")
    assert gather(folder).modalities == {modality}
    details = _details(reporting.report(folder))
    (mean,) = [each for each in details["1"]["numbers"] if each[:2] == ["right lung", "mean"]]
    assert mean[3] == unit


def _details(path: Path) -> dict:
    text = path.read_text().partition('id="details">')[2].partition("</script>")[0]
    return json.loads(text)


def test_charts_name_their_units(batch):
    text = reporting.report(batch).read_text()
    for name, unit in (("left lung volume", "ml"), ("right lung mean", "HU"), ("lungs entropy", "bit")):
        chart = text.partition(f'aria-label="{name}: ')[2].partition("</svg>")[0]
        assert f">{unit}</text>" in chart
        assert ">cases</text>" in chart


@pytest.mark.slow
def test_a_case_opens_as_slices_with_the_first_reason_and_numbers_by_label(batch):
    path = reporting.report(batch)
    with page(offline=True, viewport={"width": 1280, "height": 900}) as tab:
        tab.goto(path.as_uri())
        tab.locator(NAMES).nth(1).get_by_role("button").click()
        assert tab.locator("dialog h2").inner_text() == "case_05"
        assert tab.locator("#at").inner_text() == "2 of 14"
        assert tab.locator(".reasons li").first.inner_text() == "left lung volume is high"
        tiles = tab.locator("#montage img")
        assert tiles.count() == 12
        widths = tiles.evaluate_all("all => all.map(each => [each.clientWidth, each.naturalWidth])")
        assert min(shown for shown, _ in widths) >= 270
        assert min(whole for _, whole in widths) >= 300
        right = tab.locator("#numbers table", has_text="right lung").first
        assert right.locator("caption").inner_text() == "right lung"
        assert right.locator("tr", has_text="volume").locator("td.number").inner_text().endswith(" ml")
        assert right.locator("tr", has_text="mean").locator("td.number").inner_text().endswith(" HU")
        # Case 05 has the largest left lung of 13: its mark is at the right end of the strip, 4 + 112.
        left = tab.locator("#numbers table", has_text="left lung").first.locator("tr", has_text="volume")
        assert left.locator(".strip").get_attribute("title") == "12 of 12 other cases are lower"
        assert left.locator("circle").get_attribute("cx") == "116.0"
        assert left.locator("path").get_attribute("d").count("M") == 13
        assert tab.url.endswith("#case=case_05")
        tiles.nth(3).click()
        where = tab.locator("#where")
        third = where.inner_text()
        assert third.startswith("slice ")
        tab.locator("#single img").hover()
        for act in (lambda: tab.mouse.wheel(0, 100), lambda: tab.keyboard.press("PageDown")):
            before = where.inner_text()
            act()
            tab.wait_for_function("was => document.getElementById('where').textContent !== was", arg=before)
        tab.keyboard.press("ArrowUp")
        tab.keyboard.press("PageUp")
        assert where.inner_text() == third
        tab.get_by_role("button", name="All slices").click()
        assert tab.locator("#montage").is_visible()
        tab.get_by_role("button", name="Previous").click()
        assert tab.locator("dialog h2").inner_text() == "case_03"
        assert tab.get_by_role("button", name="Previous").is_disabled()
        assert not tab.locator(".copy").is_visible()  # it has no mask
        tab.get_by_role("button", name="Next").click()
        tab.get_by_role("button", name="Copy").click()
        assert tab.locator("#copy").inner_text() in ("Copied", "Press Ctrl-C")
        assert tab.evaluate("getSelection().toString()") == tab.locator("#command").inner_text()
        tab.goto(path.as_uri() + "#case=case_07")
        tab.reload()
        assert tab.locator("dialog h2").inner_text() == "case_07"  # a link opens its case
        tab.keyboard.press("Escape")
        tab.wait_for_function("location.hash === ''")
        for link in tab.locator("nav a").all():
            assert tab.locator(link.get_attribute("href")).is_visible()


def test_a_case_opens_in_a_frame_without_an_address(batch):
    """As in JupyterLab, which shows a page in a frame that may run scripts and nothing else."""
    text = reporting.report(batch).read_text()
    with page(offline=True) as tab:
        tab.set_content('<iframe sandbox="allow-scripts" width="1000" height="700"></iframe>')
        tab.evaluate("text => document.querySelector('iframe').srcdoc = text", text)
        frame = tab.frame_locator("iframe")
        frame.locator(NAMES).nth(1).get_by_role("button").click()
        assert frame.locator("dialog h2").inner_text() == "case_05"
        assert frame.locator("dialog").is_visible()
        tab.keyboard.press("Escape")
        frame.locator("dialog").wait_for(state="hidden")
        frame.locator(NAMES).nth(2).get_by_role("button").click()
        assert frame.locator("dialog").is_visible()


def test_a_number_has_its_place_among_the_cases_of_its_model(tmp_path):
    rows = [
        {"case": f"c{number}", "patient": "", "model": model, "status": "done", "reason": "", "message": ""}
        | {"mask": "", "warnings": "", "lungs_ml": factor * (100.0 + number)}
        for number in range(4)
        for model, factor in (("small", 1), ("large", 10))
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "results.csv", index=False)
    path = reporting.report(tmp_path)
    with page(offline=True) as tab:
        for model in ("small", "large"):
            tab.goto("about:blank")
            tab.goto(f"{path.as_uri()}#case=c3%20{model}")
            strip = tab.locator("#numbers .strip").first
            assert strip.get_attribute("title") == "3 of 3 other cases are lower"  # c3 is the largest of four
            assert strip.locator("circle").get_attribute("cx") == "116.0"


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 420])
def test_the_page_and_a_case_fit_the_width(batch, width):
    path = reporting.report(batch)
    with page(offline=True, viewport={"width": width, "height": 800}) as tab:
        tab.goto(path.as_uri())
        fits = "each => each.scrollWidth <= each.clientWidth"
        assert tab.locator("html").evaluate(fits)
        assert tab.locator(NAMES).nth(1).is_visible()
        tab.locator(NAMES).nth(1).get_by_role("button").click()
        tab.locator("dialog").wait_for()
        assert tab.locator("dialog").evaluate(fits)
        tab.locator("#montage button").first.click()
        assert tab.locator("dialog").evaluate(fits)
        box = tab.locator("#single img").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 420])
def test_rows_do_not_move_when_their_pictures_appear(batch, width):
    path = reporting.report(batch)
    with page(offline=True, viewport={"width": width, "height": 400}) as tab:
        tab.goto(path.as_uri())
        last = tab.locator("#cases img.small").last
        assert last.get_attribute("src") is None  # far below the window
        before = last.evaluate("each => each.getBoundingClientRect().height")
        last.scroll_into_view_if_needed()
        tab.wait_for_function("each => each.naturalHeight > 0", arg=last.element_handle())
        assert last.evaluate("each => each.getBoundingClientRect().height") == before
        ratio = last.evaluate(
            "each => each.clientWidth / each.clientHeight * each.naturalHeight / each.naturalWidth"
        )
        assert ratio == pytest.approx(1, abs=0.02)  # not distorted


def test_a_picture_that_is_none_gets_no_size(tmp_path):
    for damaged in ("", "no base 64", "UklGRg==", "UklGRiQAAABXRUJQVlA4IBgAAAA="):
        assert thumbnails.size(damaged) is None


def test_the_place_of_the_page_is_checked_first(batch, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    monkeypatch.setattr("medseg.reporting.page.gather", lambda folder: pytest.fail("worked before the check"))
    with pytest.raises(ResourceError, match="no permission to write") as refused:
        reporting.report(batch)
    assert refused.value.reason == "disk"


def test_progress_counts_cases(batch):
    seen = []
    reporting.report(batch, progress=lambda done, total, facts="": seen.append((done, total)))
    assert seen == [(number, CASES) for number in range(1, CASES + 1)]


def test_slices_of_the_worst_cases_are_in_the_page_up_to_a_size(batch, monkeypatch):
    one = sum(len(each["image"]) for each in _details(reporting.report(batch))["1"]["slices"])
    monkeypatch.setattr("medseg.reporting.page.SLICES_MB", 2.5 * one / 1e6)
    details = _details(reporting.report(batch))
    assert [number for number in details if "slices" in details[number]] == ["0", "1", "2"]
    assert all("image" in detail for detail in details.values())


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
