"""Scores of every case and label against the truth, and their summary."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import pandas as pd

from medseg.datasets.manifest import Case
from medseg.errors import MedsegError, UsageError
from medseg.evaluation import tables
from medseg.evaluation.confidence_intervals import mean_interval
from medseg.evaluation.metrics import NSD_TOLERANCE_MM, REGISTRY
from medseg.evaluation.scoring import Tolerances, score, tolerance_of
from medseg.evaluation.unknown_values import UnknownValues
from medseg.images.label import Label
from medseg.images.volume import Mask
from medseg.io import is_dicom_mask, read, read_mask
from medseg.system.atomic_write import replacing
from medseg.system.notices import notify

Row: TypeAlias = dict[str, object]

# Columns added since 0.1.0 come last, so that tables of two versions can be concatenated.
_FIRST = tuple(REGISTRY)[: list(REGISTRY).index("lesion_f1") + 1]
KEYS = ("case", "patient", "group", "label")
"""The first columns of a table."""
COLUMNS = (
    *KEYS,
    *_FIRST,
    *("empty", "seconds", "status", "reason"),
    *(name for name in REGISTRY if name not in _FIRST),
)
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
# Slices are thick if they are further apart than the tolerance and than this multiple of the pixel size.
_THICK = 2.0
_LOG = logging.getLogger(__name__)


def evaluate_cases(
    cases: Sequence[Case],
    predict: Callable[[Case], Mask],
    labels: Sequence[Label],
    *,
    nsd_tolerance_mm: Tolerances = NSD_TOLERANCE_MM,
    ignore_value: int | None = None,
    on_case: Callable[[int, int], None] = lambda done, cases: None,
) -> pd.DataFrame:
    """The scores of every case and label; a case that fails does not stop the others.

    The truth is read before the case is segmented, so that an unreadable truth costs no time.

    Args:
        cases: Cases, each with a label file.
        predict: Returns the mask of a case, on the grid of its scan.
        labels: Labels of the label files.
        nsd_tolerance_mm: Tolerance of the normalised surface Dice, one for all labels or by label; see
            :func:`medseg.evaluation.scoring.score`.
        ignore_value: Voxels with this value in a label file are excluded from every score.
        on_case: Called after each case with the number of finished cases and of all cases.

    Returns:
        A table with the columns ``COLUMNS``. ``seconds`` is the time spent in ``predict``, and ``status``
        is ``ok``. A failed case has a single row with ``status`` ``failed``, an empty ``label``, and
        the error's code and message in ``reason``.

    Raises:
        UsageError: a tolerance is not a distance, or is given for an unknown label (``tolerance``).
    """
    _check_tolerances(nsd_tolerance_mm, labels)
    rows: list[Row] = []
    thick: dict[str, tuple[float, float, float]] = {}
    unknown = UnknownValues(labels, ignore_value)
    for number, case in enumerate(cases, start=1):
        about: Row = {"case": case.id, "patient": case.patient, "group": case.group}
        try:
            truth = _truth(case, labels)
            if _has_thick_slices(truth, nsd_tolerance_mm):
                thick[case.id] = truth.grid.spacing_mm
            started = time.perf_counter()
            prediction = predict(case)
            seconds = time.perf_counter() - started
            unknown.look("truth", case.id, truth)
            unknown.look("prediction", case.id, prediction)
            scores = score(
                prediction,
                truth,
                nsd_tolerance_mm=nsd_tolerance_mm,
                ignore_value=ignore_value,
                annotated=case.annotated,
            )
            done: Row = {"seconds": seconds, "status": "ok", "reason": ""}
            rows += [
                about | {"label": each.label, **each.values, "empty": each.empty} | done for each in scores
            ]
        except Exception as error:  # whatever it is: do not lose hours of work on the other cases
            rows.append(about | {"status": "failed", "reason": _reason(error)})
            if not isinstance(error, MedsegError):
                _LOG.exception("%s failed unexpectedly", case.id)
        on_case(number, len(cases))
    _report_thick_slices(thick, len(cases))
    unknown.report(len(cases))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Statistics over cases, for every label and for the mean over a case's labels.

    Args:
        frame: Table of :func:`evaluate_cases`, or the same read from its CSV.

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
        frame: Table of :func:`evaluate_cases`.
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


def _check_tolerances(nsd_tolerance_mm: Tolerances, labels: Sequence[Label]) -> None:
    given = nsd_tolerance_mm if isinstance(nsd_tolerance_mm, Mapping) else {"": nsd_tolerance_mm}
    known = {label.name for label in labels} | {""}
    for name, mm in given.items():
        if name in known and math.isfinite(mm) and mm >= 0:
            continue
        problem = f"is {mm:g} mm" if name in known else f"is given for {name!r}, which is not a label here"
        raise UsageError(
            f"an NSD tolerance {problem}",
            where="nsd_tolerance_mm",
            remedy=f"give 0 mm or more, for any of these labels: {', '.join(sorted(known - {''}))}",
            reason="tolerance",
        )


def _has_thick_slices(truth: Mask, nsd_tolerance_mm: Tolerances) -> bool:
    """Whether slices are further apart than the smallest tolerance and than twice the pixel size."""
    tolerances = [tolerance_of(label.name, nsd_tolerance_mm) for label in truth.labels]
    spacing = truth.grid.spacing_mm
    return max(spacing) > max(min(tolerances, default=0.0), _THICK * min(spacing))


def _report_thick_slices(thick: Mapping[str, tuple[float, float, float]], cases: int) -> None:
    if not thick:
        return
    first, spacing = next(iter(thick.items()))
    size = " x ".join(f"{mm:g}" for mm in spacing)
    notify(
        "thick-slices",
        f"{len(thick)} of {cases} cases have slices further apart than the NSD tolerance (voxels of {size} "
        "mm): distances across slices are multiples of the slice distance, and an error of one slice exceeds "
        "the tolerance",
        path=first,
        remedy="give a tolerance of at least the slice distance, or compare only scans of equal spacing",
    )


def _truth(case: Case, labels: Sequence[Label]) -> Mask:
    if case.label is None:
        raise UsageError(
            "the case has no label", remedy="add its label file to the manifest", reason="no-label"
        )
    scan = read(case.images[0]) if is_dicom_mask(case.label) else None
    return read_mask(case.label, labels, scan)


def _reason(error: Exception) -> str:
    if isinstance(error, MedsegError):
        return f"{error.reason}: {' '.join(str(error).split())}"
    return f"unexpected: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


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
