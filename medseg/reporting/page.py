"""The report as one HTML file; only sorting and filtering need JavaScript."""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from markupsafe import Markup

from medseg.images.volume_text import volume_text
from medseg.io.overwrite_guard import OverwriteGuard
from medseg.reporting import charts
from medseg.reporting.cohort import DEFAULT_COHORT, CohortOptions, cohort_of
from medseg.reporting.cohort_section import cohort_section
from medseg.reporting.content import Content, Row, gather
from medseg.reporting.lung_charts import case_charts
from medseg.reporting.quantities import Quantity, quantity_of
from medseg.system.atomic_write import check_folder, replacing
from medseg.system.html import own_file, render
from medseg.system.notices import RESEARCH
from medseg.system.progress import Advance, Shown, progress_bar
from medseg.visualization import thumbnails
from medseg.visualization.lung_record import read_lung_record
from medseg.visualization.thumbnails import read_slices

NAME = "report.html"
SLICES_MB = 40
"""Slices of the worst cases are in the page up to this size; the other cases have a command to view."""

_PACKAGE = "medseg.reporting"


def report_cases(
    folder: str | Path, *, cohort: CohortOptions = DEFAULT_COHORT, progress: Shown = False
) -> Path:
    """Writes ``report.html`` into the output folder of a batch or an evaluation, and returns its path.

    Args:
        folder: The output folder.
        cohort: How the cases of a batch with measures of the lungs are divided.
        progress: Whether to show a bar; None for only on a terminal. A function is called instead.

    Raises:
        UsageError: there is nothing to report on (``nothing-to-report``), a table is damaged (``table``), or
            the clinical table cannot be used (``clinical-table``).
        ResourceError: the disk fails (``disk``).
    """
    folder = Path(folder)
    if folder.is_dir():
        check_page(folder / NAME)
    with progress_bar("making the report", progress) as advance:
        return save(folder / NAME, _text(gather(folder), cohort, advance))


def check_page(path: Path) -> None:
    """Refuses, before any work, a page that cannot be written.

    Raises:
        UsageError: there is a page that medseg did not write (``foreign-file``).
        ResourceError: the folder does not take files (``disk``).
    """
    OverwriteGuard([]).check(path, is_own=_is_own_page)
    check_folder(path)


def save(path: Path, text: str) -> Path:
    """Writes the page and returns its path.

    Raises:
        UsageError: there is a page that medseg did not write (``foreign-file``).
        ResourceError: the disk fails (``disk``).
    """
    check_page(path)
    with replacing(path) as fresh:
        fresh.write_text(text, encoding="utf-8", newline="\n")
    return path


def render_page(template: str, title: str, **values: object) -> str:
    """A page from one of the package's ``templates``, with style and a policy that forbids loading."""
    style = own_file(_PACKAGE, "page.css")
    return render(_PACKAGE, template, title=title, research=RESEARCH, style=style, **values)


def _text(content: Content, options: CohortOptions, advance: Advance) -> str:
    hounsfield = content.modalities <= {"CT"}
    quantities = {name: quantity_of(name, hounsfield=hounsfield) for name in content.columns}
    columns = sorted(content.columns, key=_by_label(content.columns, quantities))
    details, left = {}, SLICES_MB * 1e6
    for number, row in enumerate(content.rows):
        details[str(number)] = shown = _detail(row, columns, quantities, with_slices=left > 0)
        left -= sum(len(str(each["image"])) for each in shown.get("slices", ()))
        left -= sum(map(len, shown.get("lung", {}).values()))
        advance(number + 1, len(content.rows), "cases")
    found = cohort_of(content.rows, options)
    script = own_file(_PACKAGE, "page.js")
    return render_page(
        "report.html",
        content.title,
        content=content,
        counts=_counts(content),
        failures=_failures(content),
        agreement=_agreement(content),
        distributions=_distributions(content, quantities),
        cohort=Markup(cohort_section(found) if found else ""),
        columns=columns,
        quantities=quantities,
        groups=[
            (label, len(list(names)))
            for label, names in groupby(columns, lambda name: quantities[name].label)
        ],
        several=any(row.model for row in content.rows),
        kind=_kind,
        reasons=_reasons,
        number=_number,
        details=details,
        script=script,
        script_digest=_digest(script),
    )


def _counts(content: Content) -> dict[str, int]:
    status = Counter(_kind(row) for row in content.rows)
    return {
        "cases": len(content.rows),
        "without findings": status["good"],
        "to review": status["odd"],
        "failed": status["failed"],
    }


def _failures(content: Content) -> list[tuple[int, str, str]]:
    """Number of cases, reason and an example for each reason of failure, the most frequent first."""
    failed = [row for row in content.rows if row.status == "failed"]
    found = []
    for reason, count in Counter(row.failure.split(":")[0] for row in failed).most_common():
        first = next(row for row in failed if row.failure.split(":")[0] == reason)
        found.append((count, reason, f"{first.case}: {first.failure.partition(': ')[2]}"))
    return found


def _agreement(content: Content) -> list[Markup]:
    """Charts that compare masks with the truth."""
    labels = dict.fromkeys(pair.label for pair in content.pairs)
    by_label = [[pair for pair in content.pairs if pair.label == label] for label in labels]
    return [charts.violins(content.pairs), *map(charts.bland_altman, by_label)]


def _distributions(content: Content, quantities: Mapping[str, Quantity]) -> list[Markup]:
    drawn = (
        charts.histogram(
            f"{quantity.label} {quantity.name}".strip(),
            [row.numbers[name] for row in content.rows if name in row.numbers],
            quantity.unit,
        )
        for name, quantity in quantities.items()
    )
    return [chart for chart in drawn if chart]


def _reasons(row: Row) -> list[str]:
    """Why a case is looked at, the first reason first."""
    return [row.failure] * bool(row.failure) + [*row.findings]


def _by_label(
    columns: Sequence[str], quantities: Mapping[str, Quantity]
) -> Callable[[str], tuple[bool, int]]:
    """A sort key that keeps the columns of a label together; columns of no label come last."""
    labels = list(dict.fromkeys(quantities[name].label for name in columns))
    return lambda name: (not quantities[name].label, labels.index(quantities[name].label))


def _detail(
    row: Row, columns: Sequence[str], quantities: Mapping[str, Quantity], *, with_slices: bool
) -> dict[str, Any]:
    """All that is shown when a case is opened, as a JSON object."""
    # The last is the number's column in the table, where all cases have theirs.
    numbers = [
        (
            quantities[name].label,
            quantities[name].name,
            _number(row, name, quantities[name])[1],
            quantities[name].unit,
            number,
        )
        for number, name in enumerate(columns)
        if name in row.numbers
    ]
    detail: dict[str, Any] = {"reasons": _reasons(row), "numbers": numbers}
    if row.picture:
        detail |= {"image": row.picture, "size": thumbnails.size(row.picture)}
    if not with_slices or row.slices is None:
        return detail
    slices, lung = read_slices(row.slices), read_lung_record(row.slices)
    detail |= {"slices": slices} if slices else {}
    if lung:
        caption = f"below {lung['below_hu']:g} HU in colour, one coronal plane"
        detail["lung"] = {"image": lung["image"], "caption": caption, "charts": case_charts(lung)}
    return detail


def _number(row: Row, name: str, quantity: Quantity) -> tuple[str, str]:
    """A number as a sort key and as text; ``nan`` and an empty text if unknown."""
    value = row.numbers.get(name, math.nan)
    if quantity.unit == "ml" and math.isfinite(value):
        return f"{value:.6g}", volume_text(value).removesuffix(" ml")
    return f"{value:.6g}", "" if math.isnan(value) else f"{value:.4g}"


def _kind(row: Row) -> str:
    return "failed" if row.status == "failed" else "odd" if row.findings else "good"


def _digest(script: str) -> str:
    """The hash of a script for the Content Security Policy (CSP Level 3, 2.3.1): no other script runs."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _is_own_page(path: Path) -> bool:
    with path.open("rb") as file:
        return b"<title>medseg: " in file.read(500)
