"""The page: all parts in one file, with everything but sorting and filtering there without JavaScript."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from html import escape
from importlib import resources
from pathlib import Path

from medseg.io.sidecar import RESEARCH
from medseg.reporting import charts
from medseg.reporting.content import Content, Row, gather
from medseg.system.atomic_write import replacing

NAME = "report.html"
# Nothing may be loaded from anywhere, and pictures come from the page itself.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def report(folder: str | Path) -> Path:
    """Writes ``report.html`` into the output folder of ``medseg batch`` or ``medseg evaluate``.

    Raises:
        UsageError: there is nothing to report on (``nothing-to-report``), or a table is damaged (``table``).
        ResourceError: the disk refuses (``disk``).
    """
    folder = Path(folder)
    text = "".join(_parts(gather(folder)))
    with replacing(folder / NAME) as fresh:
        fresh.write_text(text, encoding="utf-8", newline="\n")
    return folder / NAME


def head(title: str) -> str:
    """The beginning of a page up to its body, with the style and the policy that forbids all loading."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><style>{_resource("page.css")}</style></head><body>'
    )


def _parts(content: Content) -> Iterator[str]:
    title = f"medseg: {escape(content.title)}"
    yield head(title)
    yield f'<header><h1>{title}</h1><p class="research">{RESEARCH}</p></header><main>'
    yield from _counts(content)
    yield from _failures(content)
    yield from _metrics(content)
    yield from _distributions(content)
    yield from _cases(content)
    yield from _provenance(content)
    yield "</main>"
    yield '<dialog id="case" aria-label="One case"><form method="dialog"><button>Close</button></form>'
    yield '<h2></h2><img alt=""><dl></dl></dialog>'
    pictures = {str(number): row.picture for number, row in enumerate(content.rows) if row.picture}
    # No < in base 64: nothing in it can end the element.
    yield f'<script type="application/json" id="pictures">{json.dumps(pictures)}</script>'
    yield f"<script>{_resource('page.js')}</script></body></html>\n"


def _counts(content: Content) -> Iterator[str]:
    status = Counter(_kind(row) for row in content.rows)
    named = {
        "cases": len(content.rows),
        "without a sign": status["good"],
        "to be looked at": status["odd"],
        "failed": status["failed"],
    }
    items = (f"<li><b>{count}</b> {name}</li>" for name, count in named.items())
    yield f'<ul class="counts">{"".join(items)}</ul>'


def _failures(content: Content) -> Iterator[str]:
    failed = [row for row in content.rows if row.status == "failed"]
    if not failed:
        return
    yield "<h2>Failures</h2><table><thead><tr><th>cases<th>reason<th>such as</tr></thead><tbody>"
    reasons = Counter(row.told.split(":")[0] for row in failed)
    for reason, count in reasons.most_common():
        first = next(row for row in failed if row.told.split(":")[0] == reason)
        told = f"{first.case}: {first.told.partition(': ')[2]}"
        yield f"<tr><td>{count}<td>{escape(reason)}<td>{escape(told)}</tr>"
    yield "</tbody></table>"


def _metrics(content: Content) -> Iterator[str]:
    if not content.summary:
        return
    heads, *rows = content.summary
    yield "<h2>Against the truth</h2><div class=scroll><table><thead><tr>"
    yield "".join(f"<th>{escape(head)}" for head in heads) + "</tr></thead><tbody>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) + "</tr>"
    yield "</tbody></table></div><p>95 % CI: bootstrap of the mean over patients.</p><div class=charts>"
    yield charts.violins(content.pairs)
    for label in dict.fromkeys(pair.label for pair in content.pairs):
        yield charts.bland_altman([pair for pair in content.pairs if pair.label == label])
    yield "</div>"


def _distributions(content: Content) -> Iterator[str]:
    drawn = [
        charts.histogram(name, [row.numbers[name] for row in content.rows if name in row.numbers])
        for name in content.columns
    ]
    if any(drawn):
        yield "<h2>Distributions</h2><p>Dots below an axis: farther than 3.5 robust standard deviations from "
        yield f"the median (from 8 cases on).</p><div class=charts>{''.join(drawn)}</div>"


def _cases(content: Content) -> Iterator[str]:
    yield "<h2>Cases, the worst first</h2>"
    yield '<div class="filters js"><label>Search <input id="text" type="search"></label><label>Show '
    yield '<select id="kind"><option value="all">all</option><option value="odd">to be looked at</option>'
    yield '<option value="failed">failed</option><option value="good">without a sign</option>'
    yield "</select></label>"
    yield '<span id="count" role="status"></span></div>'
    several = any(row.model for row in content.rows)
    heads = ["", "case", *(["model"] if several else []), "status", "signs", *content.columns]
    yield '<div class=scroll><table id="cases"><thead><tr>'
    for head in heads:
        kind = ' class="number"' if head in content.columns else ""
        yield f"<th{kind}>" + (f"<button>{escape(head)}</button>" if head else "")
    yield "</tr></thead><tbody>"
    for number, row in enumerate(content.rows):
        yield f'<tr data-n="{number}" data-case="{escape(row.case)}" data-kind="{_kind(row)}">'
        yield f'<td class="picture"><td><button>{escape(row.case)}</button>'
        yield f"<td>{escape(row.model)}" if several else ""
        signs = "; ".join([row.told] * bool(row.told) + row.signs)
        yield f'<td class="{row.status}">{row.status}<td class="signs">{escape(signs)}'
        for name in content.columns:
            value = row.numbers.get(name, math.nan)
            yield f'<td class="number" data-v="{value:.6g}">' + ("" if math.isnan(value) else f"{value:.4g}")
        yield "</tr>"
    yield "</tbody></table></div>"


def _provenance(content: Content) -> Iterator[str]:
    if content.provenance:
        yield "<h2>How it was made</h2><dl>"
        yield "".join(f"<dt>{escape(name)}<dd>{escape(value)}" for name, value in content.provenance)
        yield "</dl>"


def _kind(row: Row) -> str:
    return "failed" if row.status == "failed" else "odd" if row.signs else "good"


def _resource(name: str) -> str:
    return resources.files("medseg.reporting").joinpath(name).read_text(encoding="utf-8")
