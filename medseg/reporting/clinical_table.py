"""A table of patients or cases from elsewhere, whose columns divide a report into groups and visits."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import UsageError
from medseg.system.csv_cells import from_cell

MOST_GROUPS = 8
_KEYS = ("case", "id", "patient")


@dataclass(frozen=True)
class ClinicalTable:
    """Rows by case or by patient.

    Attributes:
        path: The file.
        by_case: Whether rows are of cases; otherwise of patients.
        columns: Names of the columns.
        rows: Cells by case or patient, and by column.
    """

    path: Path
    by_case: bool
    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, str]]

    def cell(self, case: str, patient: str, column: str) -> str:
        """A cell of a case; empty if the table does not have it."""
        return self.rows.get(case if self.by_case else patient, {}).get(column, "")

    def require(self, column: str) -> str:
        """The name of a column that the table has.

        Raises:
            UsageError: it has no such column (``clinical-table``).
        """
        if column not in self.columns:
            raise _refused(
                f"there is no column {column!r}", self.path, f"its columns are {', '.join(self.columns)}"
            )
        return column


def read_clinical(path: str | Path) -> ClinicalTable:
    """The table in a CSV file, separated by commas, semicolons or tabs, UTF-8.

    Rows are of cases if there is a column ``case`` or ``id`` (as in a manifest), else of patients if there
    is a column ``patient``.

    Args:
        path: The file.

    Raises:
        UsageError: it cannot be read, has neither column, or has two rows for one case or patient
            (``clinical-table``).
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise _refused(f"cannot be read: {error.strerror or error}", path, "give a CSV file") from None
    except UnicodeDecodeError as error:
        raise _refused(f"not UTF-8 at byte {error.start}", path, "save it as UTF-8") from None
    delimiter = max(",;\t", key=text.lstrip().split("\n", 1)[0].count)
    table = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns = tuple(name.strip() for name in table.fieldnames or ())
    key = next((name for name in _KEYS if name in columns), "")
    if not key:
        raise _refused(
            f"there is no column case, id or patient, but {', '.join(columns) or 'nothing'}",
            path,
            "name the column that holds the cases or the patients of results.csv so",
        )
    rows: dict[str, dict[str, str]] = {}
    for line in table:
        cells = {
            name.strip(): from_cell((cell or "").strip())
            for name, cell in line.items()
            if name is not None and not isinstance(cell, list)
        }
        if not cells[key]:
            continue
        if cells[key] in rows:
            raise _refused(
                f"two rows for the {'patient' if key == 'patient' else 'case'} {cells[key]!r}",
                path,
                "keep one, or give one row per case, with a column case"
                if key == "patient"
                else "keep one of them",
            )
        rows[cells[key]] = cells
    return ClinicalTable(path, key != "patient", columns, rows)


def _refused(problem: str, path: Path, remedy: str) -> UsageError:
    return UsageError(problem, where=path, remedy=remedy, reason="clinical-table")
