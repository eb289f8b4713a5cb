"""Charts of measured lungs: what they show, their units, and that records of others are data."""

import base64
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.browser import page

from medseg import reporting
from medseg.images.palette import VERMILLION, rgb
from medseg.images.volume import Mask, Volume
from medseg.measurement.measure_picture import lung_figure
from medseg.measurement.scan_measurement import measure
from medseg.phantom.thorax import LABELS, Thorax, default_grid
from medseg.reporting.lung_charts import case_charts, hu_histogram
from medseg.reporting.plot_frame import round_up
from medseg.visualization import thumbnails
from medseg.visualization.lung_record import is_lung_record, lung_record, read_lung_record

GRID = default_grid((6.0, 7.0, 8.0), "LPS")
TRUTH = Thorax().truth(GRID)
LUNGS = Mask(TRUTH.array, GRID, LABELS[:2])


@pytest.fixture(scope="module")
def record():
    """Of a patient whose right lung is below -950 HU, and whose left lung is not."""
    array = np.maximum(Thorax().scan(GRID).array, -900)
    array[np.isin(TRUTH.array, (1, 3))] = -980
    scan = Volume(array, GRID)
    return lung_record(lung_figure(measure(scan, LUNGS), scan, LUNGS))


@pytest.fixture(scope="module")
def batch(tmp_path_factory, record):
    """The output folder of a batch of two measured cases."""
    folder = tmp_path_factory.mktemp("measured")
    row = {"patient": "", "model": "m", "status": "done", "reason": "", "message": "", "mask": ""}
    rows = [row | {"case": f"c{n}", "warnings": "", "both_lungs_laa950_percent": 5.0 + n} for n in range(2)]
    pd.DataFrame(rows).to_csv(folder / "results.csv", index=False)
    lines = [thumbnails.line(f"c{n}", "m", "", (), record) for n in range(2)]
    (folder / "thumbnails.jsonl").write_text("".join(lines))
    return folder


def test_the_picture_of_a_record_has_the_right_lung_in_colour_on_the_left(record):
    picture = Image.open(io.BytesIO(base64.b64decode(record["image"]))).convert("RGB")
    assert max(picture.size) == 448
    red = (np.abs(np.asarray(picture).astype(int) - rgb(VERMILLION)).max(axis=2) < 40).any(axis=0)
    assert 20 < np.flatnonzero(red).max() < 0.55 * picture.width


def test_charts_have_units_thresholds_and_the_values_of_the_record(record):
    charts = case_charts(record)
    for text in ("HU", "% of voxels per 10 HU", "% below -950 HU", "-950", "-910", "-856", "-600", "-250"):
        assert f">{text}</text>" in charts
    assert "right lung upper third by volume: 100 %" in charts
    assert "left lung rind: 0 %" in charts
    assert "right lung most voxels at -975 HU" in charts
    left = np.maximum(Thorax().scan(GRID).array, -900)[np.isin(TRUTH.array, (2, 4))]
    counts, edges = np.histogram(left, np.arange(-1050, 160, 10))
    assert f"left lung most voxels at {edges[counts.argmax()] + 5} HU" in charts
    assert charts.count("<figure>") == 2
    assert charts.count(">right lung</text>") == charts.count(">left lung</text>") == 2


def test_a_bin_is_drawn_at_its_share():
    # 1 of 4 voxels in the bin from -1000 to -900 HU: 25 %, and the axis ends at 100 %.
    chart = hu_histogram("name", [("a", "#000000", "", {"low": -1000, "width": 100, "counts": [1, 3]})])
    line = re.search(r'd="M([^V"]*)" fill="none"', chart)[1]
    (x0, y0), (x1, y1) = ([float(n) for n in place.split()] for place in line.split("L"))
    # The plot is 276 wide from 52 for 1100 HU, and 124 high above 176.
    assert (x0, x1) == (pytest.approx(52 + 276 / 11, abs=0.1), pytest.approx(52 + 276 * 2 / 11, abs=0.1))
    assert (y0, y1) == (pytest.approx(176 - 31, abs=0.1), pytest.approx(176 - 93, abs=0.1))
    assert hu_histogram("name", [("a", "#000000", "", {"low": 0, "width": 1, "counts": [0]})]) == ""


@pytest.mark.parametrize(
    ("value", "end"),
    [(0, 1), (0.03, 0.05), (0.5, 0.5), (1, 1), (1.2, 2), (4.9, 5), (7, 10), (10, 10), (55, 100), (100, 100)],
)
def test_axes_end_at_a_round_number(value, end):
    assert round_up(value) == pytest.approx(end)


@pytest.mark.parametrize(
    "damage",
    [
        {"image": 3},
        {"methods": None},
        {"below_hu": "<script>"},
        {"histograms": {"right_lung": {"low": 0, "width": 0, "counts": [1]}}},
        {"histograms": {"right_lung": {"low": 0, "width": 1, "counts": ["<b>"]}}},
        {"bars": {"right_lung": {"core": 400}}},
        {"bars": {"right_lung": {"core": float("nan")}}},
        {"bars": []},
        {"more": 1},
    ],
)
def test_a_damaged_record_is_left_out(record, tmp_path, damage):
    assert is_lung_record(json.loads(json.dumps(record)))
    assert not is_lung_record({**record, **damage})
    path = tmp_path / "thumbnails.jsonl"
    path.write_text(thumbnails.line("a", "m", "", (), {**record, **damage}))
    assert read_lung_record((path, 0)) is None


def test_names_in_a_record_are_text(record):
    evil = "<script>alert(1)</script>"
    bars = {evil: {evil: 1.0}, **record["bars"]}
    histograms = {evil: record["histograms"]["right_lung"], **record["histograms"]}
    assert evil not in case_charts({**record, "bars": bars, "histograms": histograms})


def test_a_case_in_the_report_has_its_picture_and_charts(batch, record):
    text = reporting.report(batch).read_text().partition('id="details">')[2].partition("</script>")[0]
    for detail in json.loads(text).values():
        assert detail["lung"]["image"] == record["image"]
        assert detail["lung"]["caption"] == "below -950 HU in colour, one coronal plane"
        assert detail["lung"]["charts"] == case_charts(record)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 420])
def test_charts_of_a_case_can_be_read(batch, width):
    path = reporting.report(batch)
    with page(offline=True, viewport={"width": width, "height": 800}) as tab:
        tab.goto(path.as_uri())
        tab.locator("#cases tbody button").first.click()
        lung = tab.locator("#lung")
        lung.scroll_into_view_if_needed()
        assert lung.locator("figure").count() == 3
        assert lung.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 200
        assert tab.locator("dialog").evaluate("each => each.scrollWidth <= each.clientWidth")
        heights = lung.locator("svg text").evaluate_all(
            "all => all.map(t => t.getBoundingClientRect().height)"
        )
        assert min(heights) >= 9
        ends = lung.locator("svg").evaluate_all(
            "all => all.flatMap(svg => { const frame = svg.getBoundingClientRect();"
            "return [...svg.querySelectorAll('text')].map(text => { const box = text.getBoundingClientRect();"
            "return Math.max(frame.left - box.left, box.right - frame.right); }); })"
        )
        assert max(ends) <= 1  # no text is cut off
