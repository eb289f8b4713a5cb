"""A model against the truth: one row for every case and label, and their summary for a paper's table."""

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
from medseg.evaluation.scoring import Tolerances, score
from medseg.images.label import Label
from medseg.images.volume import Mask
from medseg.io import is_dicom_mask, read, read_mask
from medseg.system.atomic_write import replacing

Row: TypeAlias = dict[str, object]

COLUMNS = (
    "case",
    "patient",
    "group",
    "label",
    *REGISTRY,
    "empty",
    "seconds",
    "status",
    "reason",
)
ALL_LABELS = "all labels"
_STATISTICS = {"mean": "mean", "sd": "std", "median": "median", "min": "min", "max": "max"}
_ABSOLUTE = {
    name: "_abs_".join(name.rsplit("_", 1))
    for name, metric in REGISTRY.items()
    if metric.summary == "absolute"
}
METRICS = tuple(
    _ABSOLUTE.get(name, name) for name, metric in REGISTRY.items() if metric.summary in ("mean", "absolute")
)
"""Columns of which the summary gives statistics, and which `compare` compares."""
_COUNTS = tuple(name for name, metric in REGISTRY.items() if metric.summary == "sum")
_HEADS = (
    *("label", "n", "Dice mean ± SD", "95 % CI", "median (min–max)", "IoU mean ± SD", "NSD"),
    *("HD95, mm", "ASSD, mm", "volume error, ml", "one empty", "failed"),
)
NOTES = (
    "95 % CI: bootstrap of the mean over patients. SD with n - 1. HD95: the larger of both directed 95th "
    "percentiles between border voxels. Volume error: mean of absolute differences. Cases with both masks "
    "empty are left out of Dice, IoU and distances; with one empty, Dice and NSD are 0 and distances the "
    "scan's diagonal. Failed cases are left out of everything."
)
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
    """The scores of every case and label; one case that fails does not stop the others.

    The truth is read before the case is segmented, so that a bad truth costs no time.

    Args:
        cases: Each with a label file.
        predict: Makes the mask of a case, on the grid of its scan.
        labels: How the label files are to be read.
        nsd_tolerance_mm: For the normalised surface Dice, one for all or by label; see
            :func:`medseg.evaluation.scoring.score`.
        ignore_value: Voxels with this value in a label file count in nothing.
        on_case: Called with the number of cases that are done, and of all.

    Returns:
        Columns as in ``COLUMNS``. ``seconds`` is the time in ``predict``. A failed case has one
        row, ``status`` ``failed``, ``label`` empty, and in ``reason`` the error's code and
        message; else ``status`` is ``ok``.

    Raises:
        UsageError: a tolerance is no distance, or is for a label that there is not (``tolerance``).
    """
    _check_tolerances(nsd_tolerance_mm, labels)
    rows: list[Row] = []
    for number, case in enumerate(cases, start=1):
        about: Row = {"case": case.id, "patient": case.patient, "group": case.group}
        try:
            truth = _truth(case, labels)
            started = time.perf_counter()
            prediction = predict(case)
            seconds = time.perf_counter() - started
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
        except Exception as error:  # whatever it is: the other cases are worth hours
            rows.append(about | {"status": "failed", "reason": _reason(error)})
            if not isinstance(error, MedsegError):
                _LOG.exception("%s failed unexpectedly", case.id)
        on_case(number, len(cases))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Statistics over cases for every label, and for the mean of a case's labels.

    Args:
        frame: As :func:`evaluate_cases` gives it, or as read from its CSV.

    Returns:
        One row a label, and ``all labels``: there a case counts with the mean over its labels. With
        more than one ``group`` the same again for each of them. Columns: ``group`` (``all`` first);
        ``n`` cases with a defined Dice; ``undefined`` cases in which both masks are empty, left
        out of Dice, IoU and distances (see :class:`medseg.evaluation.scoring.Score`); ``one_empty`` cases
        in which only one is: their distances are the scan's diagonal; ``failed`` cases, left out of
        everything; for each metric mean, sd (with n - 1; nan for one case), median, min, max, and
        ci_low and ci_high, the 95 % bootstrap interval of the mean over patients (see
        :func:`medseg.evaluation.confidence_intervals.mean_interval`); counts of lesions over all cases,
        their pooled sensitivity, precision and F1, and false ones a case. A mask has no confidences, so that
        sensitivity and false lesions a case are one point of a FROC curve, not the curve.
        ``nsd_tolerance_mm`` is nan where labels have different ones.
    """
    frame = frame.assign(**{absolute: frame[name].abs() for name, absolute in _ABSOLUTE.items()})
    parts = [("all", frame)]
    groups = sorted({str(group) for group in frame["group"].dropna() if group})
    if len(groups) > 1:
        parts += [(group, frame[frame["group"].astype(str) == group]) for group in groups]
    return pd.DataFrame([row for group, part in parts for row in _rows(group, part)]).set_index("label")


def write(frame: pd.DataFrame, folder: str | Path) -> tuple[Path, ...]:
    """Writes ``evaluation.csv`` and the summary as ``.csv``, ``.json``, ``.md`` and ``.tex``.

    Numbers have six significant digits; nan is an empty cell, and null in JSON. Each file is
    replaced whole.

    Args:
        frame: As :func:`evaluate_cases` gives it.
        folder: An existing folder.

    Returns:
        The five files, ``evaluation.csv`` first.

    Raises:
        UsageError: the folder does not exist.
        ResourceError: the disk refuses.
    """
    folder, table = Path(folder), summary(frame)
    contents = {
        "evaluation.csv": frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"),
        "summary.csv": table.to_csv(float_format="%.6g", lineterminator="\n"),
        "summary.json": tables.as_json(table.reset_index()),
        "summary.md": tables.markdown(_HEADS, _cells(table), _notes(table)),
        "summary.tex": tables.latex(_HEADS, _cells(table), _notes(table)),
    }
    for name, text in contents.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    return tuple(folder / name for name in contents)


def _cells(table: pd.DataFrame) -> list[list[str]]:
    """The cells of a paper's table, a row a label (and group)."""
    several = table["group"].nunique() > 1
    rows = []
    for label, row in table.iterrows():
        median, least, most = (float(row[f"dice_{name}"]) for name in ("median", "min", "max"))
        spread = f"{median:.3f} ({least:.3f}–{most:.3f})" if row["n"] else "–"
        rows.append(
            [
                f"{label}, {row['group']}" if several else str(label),
                f"{row['n']:.0f}",
                tables.numbers((row["dice_mean"], row["dice_sd"]), ".3f", " ± "),
                tables.numbers((row["dice_ci_low"], row["dice_ci_high"]), ".3f", "–"),
                spread,
                tables.numbers((row["iou_mean"], row["iou_sd"]), ".3f", " ± "),
                tables.numbers((row["nsd_mean"],), ".3f"),
                tables.numbers((row["hd95_mm_mean"], row["hd95_mm_sd"]), ".2f", " ± "),
                tables.numbers((row["assd_mm_mean"],), ".2f"),
                tables.numbers((row["volume_error_abs_ml_mean"],), ".3g"),
                f"{row['one_empty']:.0f}",
                f"{row['failed']:.0f}",
            ]
        )
    return rows


def _notes(table: pd.DataFrame) -> str:
    """The notes, with the tolerance that every label had."""
    used = table.loc[(table["group"] == "all") & (table.index != ALL_LABELS), "nsd_tolerance_mm"]
    if not len(used):
        return NOTES
    if used.nunique() == 1:
        return f"{NOTES} NSD: within {used.iloc[0]:g} mm."
    told = ", ".join(f"{mm:g} mm ({label})" for label, mm in used.items())
    return f"{NOTES} NSD: within {told}."


def _check_tolerances(nsd_tolerance_mm: Tolerances, labels: Sequence[Label]) -> None:
    given = nsd_tolerance_mm if isinstance(nsd_tolerance_mm, Mapping) else {"": nsd_tolerance_mm}
    known = {label.name for label in labels} | {""}
    for name, mm in given.items():
        if name in known and math.isfinite(mm) and mm >= 0:
            continue
        told = f"{mm:g} mm" if name in known else f"for {name!r}, which is no label here"
        raise UsageError(
            f"a tolerance of the surface Dice is {told}",
            where="nsd_tolerance_mm",
            remedy=f"give 0 mm or more, for these labels: {', '.join(sorted(known - {''}))}",
            reason="tolerance",
        )


def _truth(case: Case, labels: Sequence[Label]) -> Mask:
    if case.label is None:
        raise UsageError("the case has no label", remedy="name its truth in the manifest", reason="no-label")
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
        low, high = mean_interval(part[metric].to_numpy(float), list(part["patient"]))
        row |= {f"{metric}_ci_low": low, f"{metric}_ci_high": high}
    row |= {name: int(part[name].sum()) for name in _COUNTS}
    true, found, false = (int(part[name].sum()) for name in ("lesions", "lesions_found", "lesions_false"))
    row["lesion_sensitivity_pooled"] = found / true if true else float("nan")
    row["lesion_precision_pooled"] = found / (found + false) if found + false else float("nan")
    row["lesion_f1_pooled"] = 2 * found / (true + found + false) if true + false else float("nan")
    row["false_lesions_per_case"] = false / len(part) if len(part) else float("nan")
    row["nsd_tolerance_mm"] = float(part["nsd_tolerance_mm"].iloc[0]) if len(part) else float("nan")
    return row
