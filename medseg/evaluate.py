"""A model against the truth: one row for every case and label, and their summary for a paper's table."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeAlias

import pandas as pd

from medseg.errors import MedsegError, UsageError
from medseg.io import is_dicom_mask, read, read_mask
from medseg.io.atomic import replacing
from medseg.label import Label
from medseg.manifest import Case
from medseg.metrics import score
from medseg.volume import Mask

Row: TypeAlias = dict[str, object]

COLUMNS = (
    "case",
    "patient",
    "group",
    "label",
    "dice",
    "iou",
    "volume_ml",
    "truth_ml",
    "volume_error_ml",
    "volume_error_percent",
    "seconds",
    "status",
    "reason",
)
ALL_LABELS = "all labels"
_STATISTICS = {"mean": "mean", "sd": "std", "median": "median", "min": "min", "max": "max"}
_LOG = logging.getLogger(__name__)


def evaluate(cases: Sequence[Case], predict: Callable[[Case], Mask], labels: Sequence[Label]) -> pd.DataFrame:
    """The scores of every case and label; one case that fails does not stop the others.

    The truth is read before the case is segmented, so that a bad truth costs no time.

    Args:
        cases: Each with a label file.
        predict: Makes the mask of a case, on the grid of its scan.
        labels: How the label files are to be read.

    Returns:
        Columns as in ``COLUMNS``. ``seconds`` is the time in ``predict``. A failed case has one
        row, ``status`` ``failed``, ``label`` empty, and in ``reason`` the error's code and
        message; else ``status`` is ``ok``.
    """
    rows: list[Row] = []
    for case in cases:
        about: Row = {"case": case.id, "patient": case.patient, "group": case.group}
        try:
            rows += [about | row for row in _scored(case, predict, labels)]
        except Exception as error:  # whatever it is: the other cases are worth hours
            rows.append(about | {"status": "failed", "reason": _reason(error)})
            if not isinstance(error, MedsegError):
                _LOG.exception("%s failed unexpectedly", case.id)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Statistics over cases for every label, and for the mean of a case's labels.

    Args:
        frame: As :func:`evaluate` gives it.

    Returns:
        One row a label, and ``all labels``: there a case counts with the mean over its labels.
        Columns: ``n`` cases with a defined Dice; ``undefined`` cases in which both masks are
        empty, left out of all Dice and IoU statistics (see :func:`medseg.metrics.dice`);
        ``failed`` cases, left out of everything; mean, sd (with n - 1; nan for one case),
        median, min and max of Dice and IoU; ``volume_error_abs_ml_mean``.
    """
    scored = frame[frame["status"] == "ok"].assign(volume_error_abs_ml=lambda f: f["volume_error_ml"].abs())
    values = ["dice", "iou", "volume_error_abs_ml"]
    parts = [(str(label), part) for label, part in scored.groupby("label", sort=False)]
    means = scored.groupby("case", sort=False)[values].mean().reset_index()
    failed = int(frame.loc[frame["status"] == "failed", "case"].nunique())
    rows = [_statistics(name, part, failed) for name, part in [*parts, (ALL_LABELS, means)]]
    return pd.DataFrame(rows).set_index("label")


def write(frame: pd.DataFrame, folder: str | Path) -> tuple[Path, Path, Path]:
    """Writes ``evaluation.csv``, ``summary.csv`` and ``summary.md`` into a folder that exists.

    Numbers have six significant digits; nan is an empty cell. Each file is replaced whole.

    Raises:
        UsageError: the folder does not exist.
        ResourceError: the disk refuses.
    """
    folder, table = Path(folder), summary(frame)
    contents = {
        "evaluation.csv": frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"),
        "summary.csv": table.to_csv(float_format="%.6g", lineterminator="\n"),
        "summary.md": _markdown(table),
    }
    for name, text in contents.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    return folder / "evaluation.csv", folder / "summary.csv", folder / "summary.md"


def _scored(case: Case, predict: Callable[[Case], Mask], labels: Sequence[Label]) -> list[Row]:
    if case.label is None:
        raise UsageError("the case has no label", remedy="name its truth in the manifest", reason="no-label")
    scan = read(case.images[0]) if is_dicom_mask(case.label) else None
    truth = read_mask(case.label, labels, scan)
    started = time.perf_counter()
    prediction = predict(case)
    seconds = time.perf_counter() - started
    scores = score(prediction, truth)
    return [asdict(each) | {"seconds": seconds, "status": "ok", "reason": ""} for each in scores]


def _reason(error: Exception) -> str:
    if isinstance(error, MedsegError):
        return f"{error.reason}: {' '.join(str(error).split())}"
    return f"unexpected: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _statistics(label: str, part: pd.DataFrame, failed: int) -> Row:
    counts = {"n": int(part["dice"].count()), "undefined": int(part["dice"].isna().sum()), "failed": failed}
    row: Row = {"label": label, **counts}
    for metric in ("dice", "iou"):
        for name, method in _STATISTICS.items():
            row[f"{metric}_{name}"] = float(part[metric].agg(method))
    row["volume_error_abs_ml_mean"] = float(part["volume_error_abs_ml"].mean())
    return row


def _markdown(table: pd.DataFrame) -> str:
    lines = [
        "| label | n | Dice mean ± SD | median (min–max) | IoU mean ± SD | volume error, ml | failed |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for label, row in table.iterrows():
        dice = f"{row['dice_mean']:.3f} ± {row['dice_sd']:.3f}"
        spread = f"{row['dice_median']:.3f} ({row['dice_min']:.3f}–{row['dice_max']:.3f})"
        iou = f"{row['iou_mean']:.3f} ± {row['iou_sd']:.3f}"
        error = f"{row['volume_error_abs_ml_mean']:.3g}"
        lines.append(
            f"| {label} | {row['n']:.0f} | {dice} | {spread} | {iou} | {error} | {row['failed']:.0f} |"
        )
    notes = (
        "Volume error: mean of absolute differences. SD with n - 1. "
        "Cases with both masks empty are left out of Dice and IoU, failed ones of everything."
    )
    return "\n".join([*lines, "", notes, ""])
