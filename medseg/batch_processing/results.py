"""``results.csv``: what a batch knows of every case, a row a case and model."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from medseg.inference.case_result import STAGES, CaseResult
from medseg.system.atomic_write import replacing

NAME = "results.csv"
_FIRST = ("case", "patient", "model", "status", "reason", "message", "mask")
_LAST = ("warnings", *(f"seconds_{stage}" for stage in STAGES), "engine", "model_sha256", "input_sha256")


def write(path: Path, found: Sequence[CaseResult]) -> Path:
    """Writes the table, replacing it whole.

    Columns: case, patient, model; ``status`` (``done`` or ``failed``), ``reason`` (a code of
    docs/refusals.md) and ``message``; ``mask``, relative to its folder; for each label its volume
    ``<label>_ml``, its ``_components`` and whether it is ``_at_border`` of the scan, and of the intensities
    inside it (HU for CT) ``_mean``, ``_sd``, ``_p5``, ``_p50``, ``_p95``; for each label of the network its
    ``_entropy`` in bits; ``warnings``; seconds of each stage; what made the mask and from which bytes
    (SHA-256). What is not known is empty.

    Args:
        path: The file.
        found: In the order of the rows.

    Raises:
        ResourceError: the disk refuses (``disk``).
    """
    rows = [result.to_row() for result in found]
    measured = dict.fromkeys(name for row in rows for name in row if name not in (*_FIRST, *_LAST))
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, [*_FIRST, *measured, *_LAST], restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    with replacing(path) as fresh:
        fresh.write_text(text.getvalue(), encoding="utf-8", newline="")
    return path
