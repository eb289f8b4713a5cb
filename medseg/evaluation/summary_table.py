"""The summary of an evaluation, and the files of ``medseg evaluate``."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from medseg.evaluation import tables
from medseg.evaluation.confidence_intervals import mean_interval
from medseg.evaluation.evaluator import COLUMNS, Row
from medseg.evaluation.metrics import REGISTRY
from medseg.system.atomic_write import replacing

ALL_LABELS = "all labels"
_STATISTICS = {"mean": "mean", "sd": "std", "median": "median", "min": "min", "max": "max"}
_ABSOLUTE = {
    name: "_abs_".join(name.rsplit("_", 1))
    for name, metric in REGISTRY.items()
    if metric.summary == "absolute"
}
BOUNDS = {
    _ABSOLUTE.get(name, name): metric.bounds
    for name, metric in REGISTRY.items()
    if metric.summary in ("mean", "absolute")
}
"""Smallest and largest value of each of :data:`METRICS`."""
METRICS = tuple(BOUNDS)
"""Columns for which the summary gives statistics, and which `compare` accepts."""
_COUNTS = tuple(name for name, metric in REGISTRY.items() if metric.summary == "sum")
_SHOWN = tuple(
    (_ABSOLUTE.get(name, name), column) for name, metric in REGISTRY.items() for column in metric.columns
)
_HEADS = ("label", "n", *(column.head for _, column in _SHOWN), "one empty", "failed")
NOTES = (
    "95 % CI: studentised bootstrap of the mean over patients, not narrower than Student's t interval; if "
    "few of the cases fail badly it is still too narrow with 10 patients or fewer. SD with n - 1. NSD, HD95 "
    "and ASSD: between surface elements, weighted by area (Nikolov et al. 2021); HD95: the larger of both "
    "directed 95th percentiles. Volume error: mean of absolute differences. Cases with both masks empty are "
    "left out of Dice, IoU and distances; with one empty, Dice and NSD are 0 and distances the scan's "
    "diagonal. Failed cases are left out of everything."
)


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Statistics over cases, for every label and for the mean over a case's labels.

    Args:
        frame: Table of :func:`medseg.evaluation.evaluator.evaluate_cases`, or the same read from its CSV.

    Returns:
        One row per label and one named ``all labels``, in which each case counts with the mean over its
        labels; if there is more than one ``group``, the same for each group. Columns: ``group`` (``all``
        first); ``n``, the cases with a defined Dice; ``undefined``, the cases in which both masks are empty,
        which Dice, IoU and distances leave out (see :class:`medseg.evaluation.scoring.Score`);
        ``one_empty``, the cases in which only one mask is empty, whose distances are the scan's diagonal;
        ``failed``, the cases that are left out of everything; for each metric the mean, sd (with n - 1; nan
        for a single case), median, min, max, and ci_low and ci_high, the 95 % confidence interval of the
        mean over patients (see :func:`medseg.evaluation.confidence_intervals.mean_interval`); counts of
        lesions over all cases, their pooled sensitivity, precision and F1, and false lesions per case. A
        mask has no confidences, so sensitivity and false lesions per case are one point of an FROC curve,
        not the curve. ``nsd_tolerance_mm`` is nan if labels have different tolerances.
    """
    # Tables of earlier versions lack metrics that were added since.
    frame = frame.reindex(columns=list(dict.fromkeys([*frame.columns, *COLUMNS])))
    frame = frame.assign(**{absolute: frame[name].abs() for name, absolute in _ABSOLUTE.items()})
    parts = [("all", frame)]
    groups = sorted({str(group) for group in frame["group"].dropna() if group})
    if len(groups) > 1:
        parts += [(group, frame[frame["group"].astype(str) == group]) for group in groups]
    return pd.DataFrame([row for group, part in parts for row in _rows(group, part)]).set_index("label")


FILES = ("evaluation.csv", "summary.csv", "summary.json", "summary.md", "summary.tex")
"""Names of the files that :func:`write` writes."""


def write(frame: pd.DataFrame, folder: str | Path) -> tuple[Path, ...]:
    """Writes ``evaluation.csv`` and the summary as ``.csv``, ``.json``, ``.md`` and ``.tex``.

    Numbers have six significant digits; nan is an empty cell, and null in JSON. Files are replaced
    atomically.

    Args:
        frame: Table of :func:`medseg.evaluation.evaluator.evaluate_cases`.
        folder: An existing folder.

    Returns:
        Paths of the five files, ``evaluation.csv`` first.

    Raises:
        UsageError: the folder does not exist.
        ResourceError: a file cannot be written, for example because the disk is full.
    """
    folder, table = Path(folder), summary(frame)
    contents = {
        "evaluation.csv": tables.as_csv(frame),
        "summary.csv": tables.as_csv(table, index=True),
        "summary.json": tables.as_json(table.reset_index()),
        "summary.md": tables.markdown(_HEADS, _cells(table), _notes(table)),
        "summary.tex": tables.latex(_HEADS, _cells(table), _notes(table)),
    }
    for name, text in contents.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    return tuple(folder / name for name in contents)


def _cells(table: pd.DataFrame) -> list[list[str]]:
    """The cells of the summary table, one row per label (and group)."""
    several = table["group"].nunique() > 1
    rows = []
    for label, row in table.iterrows():
        named = f"{label}, {row['group']}" if several else str(label)
        cells = [
            tables.filled(column.cell, _values(row, metric), column.pattern) for metric, column in _SHOWN
        ]
        rows.append([named, f"{row['n']:.0f}", *cells, f"{row['one_empty']:.0f}", f"{row['failed']:.0f}"])
    return rows


def _values(row: pd.Series, metric: str) -> dict[str, float]:
    """The statistics of one metric in a row of the summary, by name."""
    return {name: float(row[f"{metric}_{name}"]) for name in (*_STATISTICS, "ci_low", "ci_high")}


def _notes(table: pd.DataFrame) -> str:
    """The notes below the summary, with the tolerance of every label."""
    used = table.loc[(table["group"] == "all") & (table.index != ALL_LABELS), "nsd_tolerance_mm"]
    if not len(used):
        return NOTES
    if used.nunique() == 1:
        return f"{NOTES} NSD: within {used.iloc[0]:g} mm."
    listed = ", ".join(f"{mm:g} mm ({label})" for label, mm in used.items())
    return f"{NOTES} NSD: within {listed}."


def _rows(group: str, frame: pd.DataFrame) -> list[Row]:
    scored = frame[frame["status"] == "ok"]
    failed = int(frame.loc[frame["status"] == "failed", "case"].nunique())
    parts = [(str(label), part) for label, part in scored.groupby("label", sort=False)]
    means = scored.groupby("case", sort=False).agg(
        {"patient": "first"} | dict.fromkeys(METRICS, "mean") | dict.fromkeys(_COUNTS, "sum")
    )
    ones = scored.assign(one=scored["empty"].isin(("prediction", "truth")))
    tolerances = scored["nsd_tolerance_mm"]
    means["nsd_tolerance_mm"] = tolerances.iloc[0] if tolerances.nunique() == 1 else math.nan
    means["one_empty"] = ones.groupby("case", sort=False)["one"].any()
    rows = [_statistics(name, part, failed) for name, part in [*parts, (ALL_LABELS, means)]]
    return [{"group": group} | row for row in rows]


def _statistics(label: str, part: pd.DataFrame, failed: int) -> Row:
    one = part["one_empty"] if "one_empty" in part else part["empty"].isin(("prediction", "truth"))
    row: Row = {
        "label": label,
        "n": int(part["dice"].count()),
        "undefined": int(part["dice"].isna().sum()),
        "one_empty": int(one.sum()),
        "failed": failed,
    }
    for metric in METRICS:
        for name, method in _STATISTICS.items():
            row[f"{metric}_{name}"] = float(part[metric].agg(method))
        low, high = mean_interval(part[metric].to_numpy(float), list(part["patient"]), bounds=BOUNDS[metric])
        row |= {f"{metric}_ci_low": low, f"{metric}_ci_high": high}
    row |= {name: int(part[name].sum()) for name in _COUNTS}
    true, found, false = (int(part[name].sum()) for name in ("lesions", "lesions_found", "lesions_false"))
    row["lesion_sensitivity_pooled"] = found / true if true else float("nan")
    row["lesion_precision_pooled"] = found / (found + false) if found + false else float("nan")
    row["lesion_f1_pooled"] = 2 * found / (true + found + false) if true + false else float("nan")
    row["false_lesions_per_case"] = false / len(part) if len(part) else float("nan")
    row["nsd_tolerance_mm"] = float(part["nsd_tolerance_mm"].iloc[0]) if len(part) else float("nan")
    return row
