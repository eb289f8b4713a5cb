"""The report as one HTML file; only sorting and filtering need JavaScript."""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter
from pathlib import Path

from markupsafe import Markup

from medseg.io.overwrite_guard import OverwriteGuard
from medseg.reporting import charts
from medseg.reporting.content import Content, Row, gather
from medseg.system.atomic_write import replacing
from medseg.system.html import own_file, render
from medseg.system.notices import RESEARCH

NAME = "report.html"
_PACKAGE = "medseg.reporting"


def report_cases(folder: str | Path) -> Path:
    """Writes ``report.html`` into the output folder of a batch or an evaluation, and returns its path.

    Raises:
        UsageError: there is nothing to report on (``nothing-to-report``), or a table is damaged (``table``).
        ResourceError: the disk fails (``disk``).
    """
    folder = Path(folder)
    return save(folder / NAME, _text(gather(folder)))


def save(path: Path, text: str) -> Path:
    """Writes the page and returns its path.

    Raises:
        UsageError: there is a page that medseg did not write (``foreign-file``).
        ResourceError: the disk fails (``disk``).
    """
    OverwriteGuard([]).check(path, is_own=_is_own_page)
    with replacing(path) as fresh:
        fresh.write_text(text, encoding="utf-8", newline="\n")
    return path


def render_page(template: str, title: str, **values: object) -> str:
    """A page from one of the package's ``templates``, with style and a policy that forbids loading."""
    style = own_file(_PACKAGE, "page.css")
    return render(_PACKAGE, template, title=title, research=RESEARCH, style=style, **values)


def _text(content: Content) -> str:
    script = own_file(_PACKAGE, "page.js")
    return render_page(
        "report.html",
        content.title,
        content=content,
        counts=_counts(content),
        failures=_failures(content),
        agreement=_agreement(content),
        distributions=_distributions(content),
        several=any(row.model for row in content.rows),
        kind=_kind,
        findings=_findings,
        number=_number,
        pictures={str(number): row.picture for number, row in enumerate(content.rows) if row.picture},
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


def _distributions(content: Content) -> list[Markup]:
    drawn = (
        charts.histogram(name, [row.numbers[name] for row in content.rows if name in row.numbers])
        for name in content.columns
    )
    return [chart for chart in drawn if chart]


def _findings(row: Row) -> str:
    return "; ".join([row.failure] * bool(row.failure) + [*row.findings])


def _number(row: Row, name: str) -> tuple[str, str]:
    """A number as a sort key and as text; ``nan`` and an empty text if unknown."""
    value = row.numbers.get(name, math.nan)
    return f"{value:.6g}", "" if math.isnan(value) else f"{value:.4g}"


def _kind(row: Row) -> str:
    return "failed" if row.status == "failed" else "odd" if row.findings else "good"


def _digest(script: str) -> str:
    """The hash of a script for the Content Security Policy (CSP Level 3, 2.3.1): no other script runs."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _is_own_page(path: Path) -> bool:
    with path.open("rb") as file:
        return b"<title>medseg: " in file.read(500)
