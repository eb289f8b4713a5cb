"""A hostile folder cannot put markup or scripts into the report: everything is shown as text."""

import base64
import csv
import hashlib
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from medseg import reporting
from medseg.errors import UsageError
from medseg.reporting import charts
from medseg.reporting.content import Pair

EVIL = """"></script><script>alert(1)</script><img src=x onerror='alert(2)'>"""
COLUMNS = ("case", "model", "status", "reason", "message", "warnings", "lung_ml", f"{EVIL}_ml")


class Elements(HTMLParser):
    """Start tags with their attributes, and the text of each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        else:
            self.words.append(data)


def folder_with(place: Path, rows: list[dict[str, str]], *, image: str = "", start: object = None) -> Path:
    """An output folder of a batch with these rows, one thumbnail each, and a journal."""
    with (place / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    lines = [json.dumps({"case": row["case"], "model": row["model"], "image": image}) for row in rows]
    (place / "thumbnails.jsonl").write_text("\n".join(lines) + "\n")
    if start is not None:
        (place / "journal.jsonl").write_text(json.dumps(start) + "\n")
    return place


def assert_inert(page: Elements) -> None:
    """Asserts that no element, attribute or script of the hostile texts is in the page."""
    names = [tag for tag, _ in page.tags]
    assert len(page.scripts) == 2, "the thumbnails as JSON and the page's own script"
    assert names.count("img") == 2, "those of the dialog"
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert not any("alert" in text for text in page.scripts[1:])


@pytest.mark.parametrize("field", ["case", "model", "status", "reason", "message", "warnings"])
def test_a_cell_of_the_table_is_text(tmp_path, field):
    row = {"case": "a", "model": "m", "status": "done", "lung_ml": "3"}
    failed = {"case": "b", "model": "n", "status": "failed", "reason": "grid", "message": "why"}
    text = reporting.report(
        folder_with(tmp_path, [row | {field: EVIL}, failed | {field: EVIL + "2"}])
    ).read_text()
    page = Elements(text)
    assert_inert(page)
    shown = "".join(page.words)
    assert EVIL in shown, "the text itself is shown"


def test_a_thumbnail_is_data(tmp_path):
    rows = [{"case": "a", "model": "", "status": "done"}]
    page = Elements(reporting.report(folder_with(tmp_path, rows, image=EVIL)).read_text())
    assert_inert(page)
    assert "<" not in page.scripts[0]
    assert json.loads(page.scripts[0])["0"].get("image") in (None, EVIL)


@pytest.mark.parametrize(
    "slices",
    [
        [{"number": 1, "of": 2, "mm": 3.5, "image": EVIL}],
        [{"number": EVIL, "of": 2, "mm": 3.5, "image": ""}],
        [{"number": 1, "of": 2, "mm": 3.5, "image": "", EVIL: 1}],
        [[EVIL]],
        {EVIL: 1},
        EVIL,
    ],
)
def test_slices_are_data(tmp_path, slices):
    rows = [{"case": "a", "model": "", "status": "done"}]
    folder = folder_with(tmp_path, rows)
    (folder / "thumbnails.jsonl").write_text(
        json.dumps({"case": "a", "model": "", "image": "", "slices": slices}) + "\n"
    )
    page = Elements(reporting.report(folder).read_text())
    assert_inert(page)
    assert "<" not in page.scripts[0]
    sound = isinstance(slices, list) and slices[0] == {"number": 1, "of": 2, "mm": 3.5, "image": EVIL}
    assert json.loads(page.scripts[0])["0"].get("slices") == (slices if sound else None)


def test_the_journal_is_text(tmp_path):
    start = {"event": "start", "medseg": EVIL, "options": {EVIL: EVIL}, "command": EVIL}
    start["models"] = [{"model": EVIL, "model_sha256": EVIL, "engine": EVIL}]
    rows = [{"case": "a", "model": "", "status": "done"}]
    page = Elements(reporting.report(folder_with(tmp_path, rows, start=start)).read_text())
    assert_inert(page)
    assert EVIL in page.words


@pytest.mark.parametrize(
    "start",
    [
        {"event": "start", "medseg": "0", "options": []},
        {"event": "start", "models": [3], "options": {}},
        {"event": "start"},
    ],
)
def test_a_journal_with_other_fields_is_refused(tmp_path, start):
    rows = [{"case": "a", "model": "", "status": "done"}]
    with pytest.raises(UsageError) as refused:
        reporting.report(folder_with(tmp_path, rows, start=start))
    assert refused.value.reason == "table"


def test_the_name_of_the_folder_is_text(tmp_path):
    place = tmp_path / "<script>alert(1)<"
    place.mkdir()
    rows = [{"case": "a", "model": "", "status": "done"}]
    page = Elements(reporting.report(folder_with(place, rows)).read_text())
    assert_inert(page)
    assert any(f"medseg: {place.name}" in text for text in page.words)


def test_only_the_script_of_the_page_may_run(tmp_path):
    rows = [{"case": "a", "model": "", "status": "done"}]
    page = Elements(reporting.report(folder_with(tmp_path, rows)).read_text())
    (policy,) = (a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy.split("; ")


def test_names_in_charts_are_text():
    pairs = [Pair(f"{EVIL}{n}", EVIL, 1000.0 + n, 1010.0, 0.9 + n / 100) for n in range(3)]
    for chart in (charts.bland_altman(pairs), charts.violins(pairs), charts.histogram(EVIL, [1, 2, 3])):
        tags = Elements(chart).tags
        assert {tag for tag, _ in tags} <= {
            *("figure", "svg", "title", "text", "path", "line", "circle", "polygon", "rect")
        }
        assert tags[1][1]["aria-label"].startswith((EVIL, f"Dice: {EVIL}"))
