"""Tables in Markdown, LaTeX and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Formatter

import pandas as pd

from medseg.system.csv_cells import to_cell

# More than pandas escapes: the default fonts of LaTeX lack <, > and ≤ or print other characters.
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
    """A Markdown table with notes below; the first column is aligned left, the others right."""
    lines = [_row(heads), "|---|" + "---:|" * (len(heads) - 1)]
    return "\n".join([*lines, *map(_row, rows), "", notes, ""])


def latex(heads: Sequence[str], rows: Sequence[Sequence[str]], notes: str) -> str:
    """A LaTeX ``tabular`` that uses the package booktabs, with the notes as a comment."""
    table = pd.DataFrame(rows, columns=list(heads)).style.hide(axis="index")
    table = table.format(escaped).format_index(escaped, axis="columns")
    return f"% {notes}\n" + table.to_latex(hrules=True, column_format="l" + "r" * (len(heads) - 1))


def numbers(values: Sequence[float], pattern: str, between: str = "") -> str:
    """The text of a cell with one or more numbers: nan is a dash, and a single dash if all are nan.

    Args:
        values: The numbers.
        pattern: Format specification of each number, such as ``.3f``.
        between: Separator, such as `` ± ``.
    """
    if all(map(math.isnan, values)):
        return "–"
    return between.join("–" if math.isnan(value) else format(value, pattern) for value in values)


def filled(template: str, values: Mapping[str, float], pattern: str) -> str:
    """The text of a cell with several numbers: nan is a dash, and a single dash if all are nan.

    Args:
        template: Text with the names of numbers in braces, such as ``{mean} ± {sd}``.
        values: The numbers by name; those that the template does not name are ignored.
        pattern: Format specification of each number, such as ``.3f``.
    """
    named = {name for _, name, _, _ in Formatter().parse(template) if name}
    if all(math.isnan(values[name]) for name in named):
        return "–"
    return template.format(**{name: numbers((values[name],), pattern) for name in named})


def as_csv(table: pd.DataFrame, *, index: bool = False) -> str:
    """CSV with six significant digits, in which a spreadsheet finds no formulas."""
    plain = (table.reset_index() if index else table).apply(
        lambda column: column if pd.api.types.is_numeric_dtype(column) else column.map(to_cell)
    )
    text: str = plain.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    return text


def as_json(table: pd.DataFrame) -> str:
    """A JSON list with one object per row; nan and infinity, which JSON lacks, become null."""
    # Not DataFrame.to_json: with its 15 decimals only 4 digits of a p value of 1e-12 remain.
    records = [{str(k): _plain(v) for k, v in row.items()} for row in table.to_dict("records")]
    return json.dumps(records, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def escaped(text: object) -> str:
    """The text with LaTeX's special characters escaped."""
    return str(text).translate(_LATEX)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _plain(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def begins_with(path: Path, columns: Sequence[str]) -> bool:
    """Whether a file is a CSV table whose first columns have these names."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.readline().rstrip("\n").split(",")[: len(columns)] == list(columns)
    except (OSError, ValueError):
        return False
