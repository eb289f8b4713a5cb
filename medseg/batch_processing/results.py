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
_FIRST = ("case", "patient", "model", "status", "reason", "message", "mask")
_LAST = ("warnings", *(f"seconds_{stage}" for stage in STAGES), "engine", "model_sha256", "input_sha256")


def write(path: Path, found: Sequence[CaseResult]) -> Path:
    """Writes the table and returns its path; an older table is replaced as a whole.

    Columns: case, patient, model; ``status`` (``done`` or ``failed``), ``reason`` (a code of
    docs/refusals.md) and ``message``; ``mask``, relative to the table's folder; for each label its volume
    ``<label>_ml``, its flags of :data:`medseg.images.mask_quality.REGISTRY`, such as ``<label>_components``,
    and the ``_mean``, ``_sd``, ``_p5``, ``_p50`` and ``_p95`` of the intensities inside (HU for CT); for each
    label of the network its ``_entropy`` in bits; with ``--measure lung`` the measures of ``right_lung_``,
    ``left_lung_`` and ``both_lungs_``, and ``measure_flags`` (docs/measures.md); ``warnings``; seconds of
    each stage; engine, and SHA-256 of the model and of the input. Unknown values are empty.

    Args:
        path: The CSV file.
        found: Results, in the order of the rows.

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
    with replacing(path) as fresh:
        fresh.write_text(text.getvalue(), encoding="utf-8", newline="")
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
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            rows = list(table)
        return {"case", "model"} <= set(table.fieldnames or ()) and all(
            _filled(row) in known.get((row["case"], row["model"]), []) for row in rows
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error):
        return False


def _filled(row: Mapping[str, str]) -> dict[str, str]:
    return {name: cell for name, cell in row.items() if cell and name != "warnings"}
