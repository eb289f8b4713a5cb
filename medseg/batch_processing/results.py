"""``results.csv``: what a batch knows of every case, a row a case and model."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from medseg.batch_processing.journal import Record
from medseg.system.atomic_write import replacing

NAME = "results.csv"
_FIRST = ("case", "patient", "model", "status", "reason", "message", "mask")
_STAGES = ("read", "prepare", "segment", "write")
_LAST = ("warnings", *(f"seconds_{stage}" for stage in _STAGES), "engine", "model_sha256", "input_sha256")


def write(path: Path, records: Sequence[Record]) -> Path:
    """Writes the table, replacing it whole.

    Columns: case, patient, model; ``status`` (``done`` or ``failed``), ``reason`` (a code of
    docs/refusals.md) and ``message``; ``mask``, relative to its folder; for each label its volume
    ``<label>_ml``, its ``_components`` and whether it is ``_at_border`` of the scan, and of the intensities
    inside it (HU for CT) ``_mean``, ``_sd``, ``_p5``, ``_p50``, ``_p95``; for each label of the network its
    ``_entropy`` in bits; ``warnings``; seconds of each stage; what made the mask and from which bytes
    (SHA-256). What is not known is empty.

    Args:
        path: The file.
        records: Of the journal, in the order of the rows.

    Raises:
        ResourceError: the disk refuses (``disk``).
    """
    rows = [_row(record) for record in records]
    measured = dict.fromkeys(name for row in rows for name in row if name not in (*_FIRST, *_LAST))
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, [*_FIRST, *measured, *_LAST], restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    with replacing(path) as fresh:
        fresh.write_text(text.getvalue(), encoding="utf-8", newline="")
    return path


def _row(record: Record) -> Record:
    row = {name: record.get(name, "") for name in (*_FIRST, "engine", "model_sha256", "input_sha256")}
    row["warnings"] = " | ".join(record.get("warnings", ()))
    row |= {f"seconds_{stage}": record.get("seconds", {}).get(stage, "") for stage in _STAGES}
    for label, volume_ml in record.get("volumes_ml", {}).items():
        row[f"{label}_ml"] = volume_ml
        row |= {f"{label}_{name}": value for name, value in record["signs"].get(label, {}).items()}
        row |= dict(_intensities(label, record["intensities"].get(label, {})))
    row |= {f"{label}_entropy": bits for label, bits in record.get("entropy", {}).items()}
    return row


def _intensities(label: str, values: Record) -> Iterable[tuple[str, object]]:
    for name, value in values.items():
        if name != "voxels":
            yield f"{label}_{name}", "" if value is None else value
