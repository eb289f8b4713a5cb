"""Tables for people and papers: Markdown, LaTeX and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import pandas as pd

# Beyond what pandas escapes: <, > and ≤ are other characters, or none, in LaTeX's usual fonts.
_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "–": "--",
        "<": r"$<$",
        ">": r"$>$",
        "≤": r"$\le$",
    }
)


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]], notes: str) -> str:
    """A Markdown table, its first column left and the others right aligned, and notes below it."""
    lines = [_row(heads), "|---|" + "---:|" * (len(heads) - 1)]
    return "\n".join([*lines, *map(_row, rows), "", notes, ""])


def latex(heads: Sequence[str], rows: Sequence[Sequence[str]], notes: str) -> str:
    """A LaTeX ``tabular`` for the package booktabs, with the notes as a comment for its caption."""
    table = pd.DataFrame(rows, columns=list(heads)).style.hide(axis="index")
    table = table.format(escaped).format_index(escaped, axis="columns")
    return f"% {notes}\n" + table.to_latex(hrules=True, column_format="l" + "r" * (len(heads) - 1))


def numbers(values: Sequence[float], pattern: str, between: str = "") -> str:
    """Numbers in one cell; a dash in the place of nan, and one alone where all are nan.

    Args:
        values: One or more.
        pattern: How each is written, such as ``.3f``.
        between: What stands between them, such as `` ± ``.
    """
    if all(map(math.isnan, values)):
        return "–"
    return between.join("–" if math.isnan(value) else format(value, pattern) for value in values)


def as_json(table: pd.DataFrame) -> str:
    """A list of objects, one a row; nan and infinity are null, which JSON has no word for."""
    # Not DataFrame.to_json: it writes 15 decimals, of which 4 are left of a p value of 1e-12.
    records = [{str(k): _plain(v) for k, v in row.items()} for row in table.to_dict("records")]
    return json.dumps(records, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def escaped(text: object) -> str:
    """The text as LaTeX prints it."""
    return str(text).translate(_LATEX)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _plain(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
