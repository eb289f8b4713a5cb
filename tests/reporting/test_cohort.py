"""The lungs of many cases in a report: groups with intervals, and two visits of a patient."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.browser import page

from medseg import reporting
from medseg.errors import UsageError
from medseg.reporting.clinical_table import read_clinical
from medseg.reporting.cohort import CohortOptions, cohort_of
from medseg.reporting.content import gather
from medseg.visualization import thumbnails

LAA, HU = "both lungs laa950 percent", "both lungs mean hu"


def record(percent: float, counts: list[int]) -> dict[str, object]:
    """What a batch keeps of measured lungs, without a picture."""
    parts = ("upper_third_by_volume", "middle_third_by_volume", "lower_third_by_volume")
    bars = dict.fromkeys((*parts, "ventral_half", "dorsal_half", "core", "rind"), percent)
    histogram = {"low": -1000.0, "width": 100.0, "counts": counts}
    return {
        "image": "",
        "methods": "Masks were made <by> m.",
        "below_hu": -950.0,
        "histograms": {"both_lungs": histogram},
        "bars": {"right_lung": bars, "left_lung": dict.fromkeys(bars, percent + 1)},
    }


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """Twelve cases of eight patients, p0 to p3 twice; LAA-950 is the patient's number or 2 more."""
    folder = tmp_path_factory.mktemp("cohort")
    rows, lines, clinic = [], [], []
    for number in range(12):
        patient, visit = number % 8, number // 8
        row = {"case": f"c{number:02d}", "patient": f"p{patient}", "study": f"2026-0{visit + 1}-01"}
        row |= {"model": "m", "status": "done", "reason": "", "message": "", "mask": "", "warnings": ""}
        row |= {"both_lungs_laa950_percent": patient + 2 * visit, "both_lungs_mean_hu": -800 - patient}
        rows.append(row | {"both_lungs_ml": 5000, "measure_flags": "lung-thick-slices" if number < 3 else ""})
        lines.append(thumbnails.line(row["case"], "m", "", (), record(float(patient), [1 + patient, 3])))
        clinic.append({"patient": f"p{patient}", "copd": "yes" if patient % 2 else "no", "age": 50 + number})
    failed = dict.fromkeys(rows[0], "") | {"case": "c99", "model": "m", "status": "failed", "reason": "r"}
    pd.DataFrame([*rows, failed]).to_csv(folder / "results.csv", index=False)
    (folder / "thumbnails.jsonl").write_text("".join(lines))
    pd.DataFrame(clinic[:7]).to_csv(folder / "clinic.csv", index=False, sep=";")
    return folder


def cohort(folder, **options):
    return cohort_of(gather(folder).rows, CohortOptions(**options))


def test_without_a_table_all_cases_are_one_group(batch):
    found = cohort(batch)
    assert (found.cases, found.patients, found.by) == (12, 8, "")
    assert list(found.estimates[LAA]) == ["all cases"]
    # (0 + ... + 7 + 2 + 3 + 4 + 5) / 12 = 42 / 12
    assert found.estimates[LAA]["all cases"].mean == pytest.approx(3.5)
    assert found.flags == {"lung-thick-slices": 3}


def test_groups_have_means_and_intervals_over_patients(batch):
    found = cohort(batch, clinical=batch / "clinic.csv", group="copd")
    assert found.by == "column copd of clinic.csv"
    assert list(found.estimates[LAA]) == ["no", "yes", "unknown"]
    no, yes, unknown = found.estimates[LAA].values()
    # p0, p2, p4, p6, and p0 and p2 again: (0 + 2 + 4 + 6 + 2 + 4) / 6; p1, p3, p5 likewise; p7 has no row.
    assert no.mean == pytest.approx(3.0)
    assert yes.mean == pytest.approx((1 + 3 + 5 + 3 + 5) / 5)
    assert (unknown.values, found.unmatched) == ((7.0,), ("c07",))
    assert all(map(math.isnan, unknown.interval))
    low, high = no.interval
    assert 0 <= low < 3.0 < high
    assert set(no.patients) == {"p0", "p2", "p4", "p6"}


def test_an_interval_of_one_scan_per_patient_is_at_least_students(batch, tmp_path):
    table = pd.DataFrame({"case": [f"c{n:02d}" for n in range(8)], "group": "first"})
    table.to_csv(tmp_path / "cases.csv", index=False)
    each = cohort(batch, clinical=tmp_path / "cases.csv").estimates[HU]["first"]
    values = np.arange(-807.0, -799.0)
    assert sorted(each.values) == values.tolist()
    low, high = stats.t.interval(0.95, 7, values.mean(), stats.sem(values))
    assert each.interval[0] <= low + 1e-9
    assert each.interval[1] >= high - 1e-9


def test_two_visits_of_a_patient_are_a_pair(batch):
    found = cohort(batch)
    change = found.changes[LAA]
    assert found.visits == "study"
    assert change.patients == ("p0", "p1", "p2", "p3")
    assert change.first == (0.0, 1.0, 2.0, 3.0)
    assert change.last == (2.0, 3.0, 4.0, 5.0)
    assert change.mean == 2.0
    # Four differences of one sign: 2 of the 16 choices of signs are as extreme.
    assert change.p == pytest.approx(2 / 16)
    assert found.changes[HU].p == 1.0
    assert change.p_holm == pytest.approx(3 * 2 / 16)  # three measures


def test_visits_are_a_column_of_the_table_in_their_order(batch, tmp_path):
    # Numbers are sorted by size: 9 is before 10. p0 has c00 at 10 and c08 at 9.
    cases = pd.DataFrame({"id": ["c00", "c08", "c01", "c09"], "date": [10, 9, 1, 1]})
    cases.to_csv(tmp_path / "cases.csv", index=False)
    change = cohort(batch, clinical=tmp_path / "cases.csv").changes[LAA]
    assert (change.patients, change.first, change.last) == (("p0",), (2.0,), (0.0,))


def test_every_case_counts_the_same_in_histograms_and_regions(batch):
    found = cohort(batch)
    shares = [(1 + n % 8) / (4 + n % 8) for n in range(12)]
    assert found.histograms["all cases"]["counts"] == pytest.approx([np.mean(shares), 1 - np.mean(shares)])
    value, interval = found.regions["left_lung"]["core"]
    percents = [n % 8 for n in range(12)]
    assert value == pytest.approx(np.mean(percents) + 1)
    assert interval[0] < value < interval[1]


def test_the_report_has_the_section_with_units(batch):
    text = reporting.report(batch, clinical=batch / "clinic.csv", group="copd").read_text()
    section = text.partition('id="cohort"')[2].partition("Cases, worst first")[0]
    for shown in ("column copd of clinic.csv", "below -950 HU, %", "mean, HU", "volume, ml", "p, Holm"):
        assert shown in section, shown
    assert "Without a row in the clinical table: c07." in section
    assert "lung-thick-slices (3)" in section
    assert "unknown" in section
    assert "Masks were made &lt;by&gt; m.</pre>" in section
    # Three measures by group and paired, the mean histogram and the regions.
    assert section.count("<svg") == 3 + 3 + 2
    assert "no mean 3 (95 % CI" in section
    assert "mean change +2 in 4 patients" in section


def test_reports_without_measures_have_no_section(batch, tmp_path):
    table = pd.read_csv(batch / "results.csv")
    plain = table[[name for name in table if not name.startswith(("both", "measure"))]]
    plain.to_csv(tmp_path / "results.csv", index=False)
    assert 'id="cohort"' not in reporting.report(tmp_path).read_text()


def test_cells_of_the_table_are_text(batch, tmp_path):
    evil = "<script>alert(1)</script>"
    pd.DataFrame({"patient": ["p0", "p1"], "group": [evil, "b"]}).to_csv(tmp_path / "a.csv", index=False)
    text = reporting.report(batch, clinical=tmp_path / "a.csv").read_text()
    assert evil not in text
    assert "&lt;script&gt;" in text


@pytest.mark.parametrize(
    ("text", "group", "problem"),
    [
        ("name,group\na,1\n", None, "there is no column case, id or patient"),
        ("patient,group\np0,1\n", "copd", "there is no column 'copd'"),
        ("patient,group\np0,1\np0,2\n", None, "two rows for the patient 'p0'"),
        ("case,group\n" + "".join(f"c{n:02d},{n}\n" for n in range(12)), None, "12 different values"),
        ("", None, "there is no column case, id or patient"),
        (b"patient\n\xff\n", None, "not UTF-8"),
        (None, None, "cannot be read"),
    ],
)
def test_a_clinical_table_that_does_not_fit_is_refused(batch, tmp_path, text, group, problem):
    path = tmp_path / "table.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=problem) as refused:
        reporting.report(batch, clinical=path, group=group)
    assert refused.value.reason == "clinical-table"


def test_a_group_without_a_table_is_refused(batch):
    with pytest.raises(UsageError) as refused:
        reporting.report(batch, group="copd")
    assert refused.value.reason == "clinical-table"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_of_spreadsheets_are_read(tmp_path, delimiter):
    path = tmp_path / "a.csv"
    rows = [["Case ", "case", "copd"], ["x", "c1", "yes"], ["", "", ""]]
    path.write_text("\n".join(map(delimiter.join, rows)), encoding="utf-8-sig")
    table = read_clinical(path)
    assert (table.by_case, table.columns) == (True, ("Case", "case", "copd"))
    assert table.cell("c1", "p", "copd") == "yes"
    assert table.cell("c2", "p", "copd") == ""


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 420])
def test_the_section_can_be_read(batch, width):
    path = reporting.report(batch, clinical=batch / "clinic.csv", group="copd")
    with page(offline=True, viewport={"width": width, "height": 800}) as tab:
        tab.goto(path.as_uri())
        assert tab.locator("html").evaluate("each => each.scrollWidth <= each.clientWidth")
        texts = tab.locator(".lungs svg text")
        assert texts.count() > 50
        boxes = texts.evaluate_all("all => all.map(text => text.getBoundingClientRect().height)")
        assert min(boxes) >= 9
        ends = tab.locator(".lungs svg").evaluate_all(
            "all => all.flatMap(svg => { const frame = svg.getBoundingClientRect();"
            "return [...svg.querySelectorAll('text')].map(text => { const box = text.getBoundingClientRect();"
            "return Math.max(frame.left - box.left, box.right - frame.right); }); })"
        )
        assert max(itertools.chain(ends, [0])) <= 1  # no text is cut off
