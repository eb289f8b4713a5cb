"""The tables of docs/safety.md, docs/refusals.md and docs/reported_faults.md agree with the source."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest
from support.markdown import table_rows
from support.refusals import Use, notice_reasons, uses

import medseg

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
PAGES = ("safety.md", "refusals.md", "reported_faults.md")


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def table(name: str, heading: str) -> list[list[str]]:
    """The rows of the tables below a heading of a page, up to the next heading."""
    (section,) = re.findall(rf"^#+ {heading}$(.*?)(?=^#|\Z)", page(name), re.MULTILINE | re.DOTALL)
    return table_rows(section)


def functions(path: Path) -> set[str]:
    return {n.name for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef)}


@pytest.mark.parametrize("name", PAGES)
def test_every_test_that_is_named_exists(name):
    named = NAMED.findall(page(name))
    missing = {
        f"{file}::{test}"
        for file, test in named
        if not (ROOT / file).is_file() or test not in functions(ROOT / file)
    }
    assert named
    assert sorted(missing) == []


def test_every_hazard_has_its_guard_and_tests():
    for hazard, guard, tests in table_rows(page("safety.md")):
        assert hazard.startswith("**"), hazard
        assert guard, hazard
        assert NAMED.findall(tests), hazard


def test_source_and_table_have_the_same_reason_codes():
    described = [row[0].strip("`") for row in table("refusals.md", "Every reason code")]
    assert sorted(described) == sorted(set(described)), "a code is there twice"
    given = {use.reason for use in uses() if use.reason is not None}
    assert sorted(given - set(described)) == [], "codes without a row in docs/refusals.md"
    assert sorted(set(described) - given) == [], "rows in docs/refusals.md without a code"


def test_the_table_has_exit_codes_meanings_remedies_and_tests():
    codes: dict[str, set[int]] = {}
    for use in uses():
        if use.reason is not None and use.exit_code is not None:
            codes.setdefault(use.reason, set()).add(use.exit_code)
    for code, exits, meaning, remedy, tests in table("refusals.md", "Every reason code"):
        assert {int(number) for number in re.findall(r"\d+", exits)} == codes[code.strip("`")], code
        assert meaning, code
        assert remedy, code
        assert NAMED.search(tests), f"{code}: name a test that guards it"


def test_source_and_table_have_the_same_reasons_of_notices():
    described = [row[0].strip("`") for row in table("refusals.md", "Notices")]
    assert described == sorted(notice_reasons())
    for reason, meaning, remedy, tests in table("refusals.md", "Notices"):
        assert meaning, reason
        assert remedy, reason
        assert NAMED.search(tests), f"{reason}: name a test that guards it"


def test_every_error_has_a_reason_code():
    assert [use.where for use in uses() if use.reason is None] == []


def test_codes_are_short_words():
    for use in uses():
        assert use.reason is None or re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", use.reason), use


def test_the_search_finds_every_way_of_passing_a_reason_code():
    found = {use.reason for use in uses()}
    # A keyword, a prefix of a helper, a choice between two, and an answer of the worker process.
    assert {"model-pickle", "manifest-csv", "recipe-unreadable", "too-large"} <= found
    assert Use("model-not-found", 2, "x").exit_code == next(
        use.exit_code for use in uses() if use.reason == "model-not-found"
    )


def test_links_of_guides_lead_somewhere_on_a_code_host_too():
    lost = [
        f"{path.relative_to(ROOT)}: {link}"
        for path in sorted((ROOT / "docs").rglob("*.md"))
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
        if not link.startswith(("http://", "https://")) and not (path.parent / link).exists()
    ]
    assert lost == []


def test_the_reference_lists_every_public_name_and_has_a_page_for_each():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    listed = re.findall(r"^\| \[`(\w+)`\]\(python/(\w+)\.md\)", reference.python(), re.MULTILINE)
    assert sorted(listed) == [(name, name) for name in sorted(medseg.__all__)]
    assert all(f"{medseg._HOME[name]}.{name}" in reference.page_of(name) for name in medseg.__all__)
