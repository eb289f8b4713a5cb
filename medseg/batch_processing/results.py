"""``results.csv``: the results of a batch, one row per case and model."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from medseg.inference.case_result import STAGES, CaseResult
from medseg.system.atomic_write import replacing
from medseg.system.csv_cells import to_cell

NAME = "results.csv"
_FIRST = ("case", "patient", "study", "model", "status", "reason", "message", "mask", "qc_flags", "input")
# Columns that tables of earlier versions do not have.
_ADDED = ("study", "qc_flags", "input", "both_lungs_ml", "both_lungs_airless_ml")
_BOM = "\ufeff".encode()
_LAST = ("warnings", *(f"seconds_{stage}" for stage in STAGES), "engine", "model_sha256", "input_sha256")


def write(path: Path, found: Sequence[CaseResult], *, bom: bool = False) -> Path:
    """Writes the table and returns its path; an older table is replaced as a whole.

    Columns: case, patient, study, model; ``status`` (``done`` or ``failed``), ``reason`` (a code of
    docs/refusals.md) and ``message``; ``mask``, relative to the table's folder; ``qc_flags``, the unusual
    flags of all labels in words; ``input``, the path of the scan (of several channels, separated by ``|``);
    ``both_lungs_ml`` if there are both sides; for each label its volume ``<label>_ml``, its flags of
    :data:`medseg.images.mask_quality.REGISTRY`, such as ``<label>_components``, and the ``_mean``, ``_sd``,
    ``_p5``, ``_p50`` and ``_p95`` of the intensities inside (HU for CT); for each label of the network its
    ``_entropy`` in bits; with ``--measure lung`` the measures of ``right_lung_``, ``left_lung_`` and
    ``both_lungs_``, and ``measure_flags`` (docs/measures.md); ``warnings``; seconds of each stage; engine,
    and SHA-256 of the model and of the input. Unknown values are empty.

    Args:
        path: The CSV file.
        found: Results, in the order of the rows.
        bom: Whether the file starts with a byte order mark, without which Excel reads UTF-8 as another
            encoding. A table that has one keeps it.

    Raises:
        ResourceError: the disk refuses (``disk``).
    """
    rows = [result.to_row() for result in found]
    measured = dict.fromkeys(name for row in rows for name in row if name not in (*_FIRST, *_LAST))
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, [*_FIRST, *measured, *_LAST], restval="", lineterminator="\n")
    # Names come from files and label files: no cell may be a formula.
    table.writerow({name: to_cell(name) for name in table.fieldnames})
    table.writerows({name: to_cell(value) for name, value in row.items()} for row in rows)
    encoding = "utf-8-sig" if bom or _has_bom(path) else "utf-8"
    with replacing(path) as fresh:
        fresh.write_text(text.getvalue(), encoding=encoding, newline="")
    return path


def is_unedited(path: Path, results: Iterable[CaseResult]) -> bool:
    """Whether every cell of a table was written by a batch, except for those of ``warnings``.

    Args:
        path: The table.
        results: All results that were ever recorded.
    """
    known: dict[tuple[str, str], list[dict[str, str]]] = {}
    for result in results:
        cells = {str(to_cell(name)): str(to_cell(value)) for name, value in result.to_row().items()}
        known.setdefault((cells["case"], cells["model"]), []).append(_filled(cells))
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            rows = list(table)
        columns = set(table.fieldnames or ())
        absent = {name for name in _ADDED if name not in columns}
        return {"case", "model"} <= columns and all(
            _filled(row) in [_without(cells, absent) for cells in known.get((row["case"], row["model"]), [])]
            for row in rows
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error):
        return False


def _has_bom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_BOM)) == _BOM
    except OSError:
        return False


def _without(cells: Mapping[str, str], names: set[str]) -> dict[str, str]:
    return {name: cell for name, cell in cells.items() if name not in names}


def _filled(row: Mapping[str, str]) -> dict[str, str]:
    return {name: cell for name, cell in row.items() if cell and name != "warnings"}
