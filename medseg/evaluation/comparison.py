"""Paired comparison of two or more evaluations of the same cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TypeAlias

import pandas as pd

from medseg.errors import InputRefused, UsageError
from medseg.evaluation import tables
from medseg.evaluation.confidence_intervals import holm, mean_interval, patient_means, wilcoxon
from medseg.evaluation.evaluation_files import read_evaluations
from medseg.evaluation.summary_table import ALL_LABELS, BOUNDS, METRICS
from medseg.io.overwrite_guard import OverwriteGuard
from medseg.system.atomic_write import replacing
from medseg.system.output_folder import check_output_folder, make_output_folder

Named: TypeAlias = tuple[str, pd.DataFrame]

# With fewer patients the smallest possible p, 2 / 2^n, is above 0.05.
FEWEST_PATIENTS = 6
_SAME = 1e-3
# Metrics whose definition has changed from border voxels to surface elements: tables of the new
# definition have the column `hd95_voxel_mm` as well.
_REDEFINED = ("nsd", "hd95_mm", "hd_mm", "assd_mm")
_NEW_COLUMN = "hd95_voxel_mm"
_DECIMALS = 9
NOTES = (
    "Differences are B - A over the cases of both; in all labels a case counts with its mean over the "
    "labels defined in both. CI: 95 % studentised bootstrap of the mean difference over patients, not "
    "narrower than Student's t interval. p: two-sided Wilcoxon signed-rank test over patients, one mean "
    "difference per patient, without differences of 0, exact up to 50 patients. Holm: p corrected for all "
    "tests of this table. With fewer than 6 differing patients p cannot be below 0.05."
)
_KEYS = ("a", "b", "label", "metric")
_HEADS = (
    *("A", "B", "label", "metric", "cases", "patients", "A mean", "B mean", "difference", "95 % CI"),
    *("p", "Holm"),
)


@dataclass(frozen=True)
class Comparison:
    """The result of :func:`compare`.

    Attributes:
        table: One row per pair of evaluations, label and metric: ``a``, ``b``, ``label``, ``metric``,
            ``pairs`` (number of paired cases), ``equal`` (pairs without a difference), ``undefined`` (rows
            left out because the metric is undefined in either), ``patients`` (number of patients of the
            pairs), ``patients_equal`` (patients without a mean difference), ``a_mean``, ``b_mean``,
            ``difference_mean`` (B - A), ``difference_median``, ``ci_low``, ``ci_high``, ``p``, ``p_holm``.
        left_out: One row per case and label that could not be paired, with the reason in ``why``;
            ``metric`` is empty if the reason applies to all metrics.

    Example:
        >>> comparison = medseg.compare(["first/evaluation.csv", "second/evaluation.csv"])
        >>> len(comparison.left_out)
        0
    """

    table: pd.DataFrame
    left_out: pd.DataFrame

    @property
    def few_patients(self) -> int:
        """Number of tests with under :data:`FEWEST_PATIENTS` differing patients: their p cannot be small."""
        return int((self.table["patients"] - self.table["patients_equal"] < FEWEST_PATIENTS).sum())


def compare(
    evaluations: Mapping[str, pd.DataFrame] | Sequence[str | Path],
    metrics: Sequence[str] = ("dice",),
    *,
    output: str | Path | None = None,
) -> Comparison:
    """Compares every pair of evaluations, for each label and metric and for the mean over labels.

    Args:
        evaluations: At least two ``evaluation.csv`` files, or tables by name.
        metrics: Names of the metrics (columns of the evaluations).
        output: Folder for the tables, created if it does not exist; None writes nothing.

    Raises:
        UsageError: there are fewer than two evaluations, a metric is unknown, no case is in common, or an
            evaluation would be replaced (``overwrites-input``) or a file that no comparison wrote
            (``foreign-file``).
        InputRefused: truths or NSD tolerances differ (``not-comparable``), or a file is refused by
            :func:`medseg.evaluation.evaluation_files.read_evaluation`.

    Example:
        >>> found = medseg.compare(["first/evaluation.csv", "second/evaluation.csv"])
        >>> found.table[["a", "b", "label", "pairs"]].iloc[0].to_dict()
        {'a': 'first', 'b': 'second', 'label': 'right_lung', 'pairs': 1}
    """
    if output is not None:
        check_output_folder(Path(output))
    if output is not None and not isinstance(evaluations, Mapping):
        guard, first = OverwriteGuard(evaluations), Path(output) / FILES[0]
        for name in FILES:
            guard.check(Path(output) / name, is_own=lambda path: tables.begins_with(first, _KEYS))
    frames = evaluations if isinstance(evaluations, Mapping) else read_evaluations(evaluations)
    comparison = _compared(frames, metrics)
    if output is not None:
        make_output_folder(Path(output))
        write(comparison, output)
    return comparison


def _compared(frames: Mapping[str, pd.DataFrame], metrics: Sequence[str]) -> Comparison:
    if len(frames) < 2:
        raise UsageError("need at least two evaluations", remedy="give A.csv B.csv", reason="usage")
    scores = {name: _scores(frame, metrics, name) for name, frame in frames.items()}
    rows: list[dict[str, object]] = []
    left_out: list[dict[str, object]] = []
    for a, b in combinations(frames, 2):
        both = _paired((a, scores[a]), (b, scores[b]), metrics)
        left_out += _left_out((a, frames[a]), (b, frames[b]), both, metrics)
        labels = list(dict.fromkeys([*scores[a]["label"], *scores[b]["label"]]))
        parts = [(str(label), both[both["label"] == label]) for label in labels]
        if both["label"].nunique() > 1:
            parts.append((ALL_LABELS, both))
        rows += [_row(a, b, label, metric, part) for label, part in parts for metric in metrics]
    if not any(row["pairs"] for row in rows):
        raise UsageError(
            "the evaluations have no case in common",
            where=", ".join(frames),
            remedy="evaluate the same manifest with each model",
            reason="nothing-in-common",
        )
    table = pd.DataFrame(rows)
    tested = table["pairs"] > 0
    table["p_holm"] = float("nan")
    table.loc[tested, "p_holm"] = holm(table.loc[tested, "p"].tolist())
    return Comparison(table, pd.DataFrame(left_out, columns=["a", "b", "case", "label", "metric", "why"]))


FILES = ("comparison.csv", "comparison.json", "comparison.md", "comparison.tex", "left_out.csv")
"""Names of the files that :func:`write` writes."""


def write(comparison: Comparison, folder: str | Path) -> tuple[Path, ...]:
    """Writes ``comparison.csv``, ``.json``, ``.md``, ``.tex`` and ``left_out.csv``; returns their paths.

    Raises:
        UsageError: the folder does not exist.
        ResourceError: a file cannot be written, for example because the disk is full.
    """
    folder = Path(folder)
    contents = {
        "comparison.csv": tables.as_csv(comparison.table),
        "comparison.json": tables.as_json(comparison.table),
        "comparison.md": tables.markdown(_HEADS, _cells(comparison.table), NOTES),
        "comparison.tex": tables.latex(_HEADS, _cells(comparison.table), NOTES),
        "left_out.csv": tables.as_csv(comparison.left_out),
    }
    for name, text in contents.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    return tuple(folder / name for name in contents)


def _scores(frame: pd.DataFrame, metrics: Sequence[str], name: str) -> pd.DataFrame:
    """The rows of cases that did not fail, with the absolute volume error as a further column."""
    if "volume_error_ml" in frame:
        frame = frame.assign(volume_error_abs_ml=frame["volume_error_ml"].abs())
    for metric in metrics:
        if metric not in METRICS or metric not in frame:
            raise UsageError(
                f"{name} has no metric {metric!r}",
                where="--metric",
                remedy=f"choose one of: {', '.join(METRICS)}",
                reason="metric",
            )
    return frame[frame["status"] == "ok"]


def _paired(a: Named, b: Named, metrics: Sequence[str]) -> pd.DataFrame:
    """One row per case and label that both evaluations have; columns end in ``_a`` and ``_b``.

    Raises:
        InputRefused: the truths or tolerances differ (``not-comparable``).
    """
    surface = [metric for metric in metrics if metric in _REDEFINED]
    if surface and (_NEW_COLUMN in a[1]) != (_NEW_COLUMN in b[1]):
        old = a[0] if _NEW_COLUMN in b[1] else b[0]
        raise InputRefused(
            f"{surface[0]} of {old} was calculated by an earlier version, between border voxels",
            where="--metric",
            remedy="evaluate again with this version",
            reason="not-comparable",
        )
    both = a[1].merge(b[1], on=["case", "label"], suffixes=("_a", "_b"))
    checked = [("truth_ml", "the truth has {} ml in {} but {} ml in {}")]
    if "nsd" in metrics:
        checked.append(("nsd_tolerance_mm", "the NSD tolerance is {} mm in {} but {} mm in {}"))
    for column, problem in checked:
        if f"{column}_a" not in both or f"{column}_b" not in both:
            continue
        first, second = both[f"{column}_a"], both[f"{column}_b"]
        # The same grid stored in two formats differs by rounding, and so do volumes.
        unequal = both[(first - second).abs() > _SAME * first.abs().clip(lower=second.abs())]
        if len(unequal):
            row = unequal.iloc[0]
            raise InputRefused(
                problem.format(f"{row[f'{column}_a']:g}", a[0], f"{row[f'{column}_b']:g}", b[0]),
                where=f"case {row['case']!r}, label {row['label']!r}",
                remedy="evaluate both models against the same label files with the same tolerances",
                reason="not-comparable",
            )
    return both.sort_values(["label", "case"], kind="stable")


def _left_out(a: Named, b: Named, both: pd.DataFrame, metrics: Sequence[str]) -> list[dict[str, object]]:
    """Rows that are in one evaluation only, failed, or have an undefined metric in either."""
    rows: list[dict[str, object]] = []
    names = {"a": a[0], "b": b[0]}
    failed = {name: set(frame.loc[frame["status"] == "failed", "case"]) for name, frame in (a, b)}
    for (one, frame), (other, others) in ((a, b), (b, a)):
        scored_there = others[others["status"] == "ok"]
        known = set(zip(scored_there["case"], scored_there["label"], strict=True))
        scored = frame[frame["status"] == "ok"]
        for case, label in zip(scored["case"], scored["label"], strict=True):
            if (case, label) not in known:
                why = f"failed in {other}" if case in failed[other] else f"not in {other}"
                rows.append(names | {"case": case, "label": label, "metric": "", "why": why})
        for case in sorted(failed[one] - set(scored_there["case"])):
            if case not in failed[other]:
                why = f"failed in {one}; not in {other}"
            elif one == a[0]:
                why = f"failed in {one}; failed in {other}"
            else:
                continue
            rows.append(names | {"case": case, "label": "", "metric": "", "why": why})
    for metric in metrics:
        for _, row in both.iterrows():
            undefined = [
                name
                for name, value in ((a[0], row[f"{metric}_a"]), (b[0], row[f"{metric}_b"]))
                if pd.isna(value)
            ]
            if undefined:
                why = f"undefined in {' and '.join(undefined)}"
                rows.append(
                    names | {"case": row["case"], "label": row["label"], "metric": metric, "why": why}
                )
    return rows


def _row(a: str, b: str, label: str, metric: str, part: pd.DataFrame) -> dict[str, object]:
    first, second = part[f"{metric}_a"], part[f"{metric}_b"]
    known = first.notna() & second.notna()
    part = pd.DataFrame(
        {"case": part["case"], "patient": part["patient_a"], "first": first, "second": second}
    )[known]
    # One row per case; for all labels the mean over those that are defined in both.
    part = part.groupby("case", sort=False).agg({"patient": "first", "first": "mean", "second": "mean"})
    # Tables have six digits: beyond that, rounding would make equal differences unequal.
    difference = (part["second"] - part["first"]).round(_DECIMALS)
    differences, patients = difference.to_numpy(float), list(part["patient"])
    smallest, largest = BOUNDS[metric]
    low, high = mean_interval(differences, patients, bounds=(smallest - largest, largest - smallest))
    # Scans of one patient are not independent: the test has one difference per patient.
    by_patient = patient_means(differences, patients).round(_DECIMALS)
    return {
        "a": a,
        "b": b,
        "label": label,
        "metric": metric,
        "pairs": len(part),
        "equal": int((difference == 0).sum()),
        "undefined": int((~known).sum()),
        "patients": len(by_patient),
        "patients_equal": int((by_patient == 0).sum()),
        "a_mean": float(part["first"].mean()),
        "b_mean": float(part["second"].mean()),
        "difference_mean": float(difference.mean()),
        "difference_median": float(difference.median()),
        "ci_low": low,
        "ci_high": high,
        "p": wilcoxon(by_patient) if len(by_patient) else float("nan"),
    }


def _cells(table: pd.DataFrame) -> list[list[str]]:
    return [
        [
            str(row["a"]),
            str(row["b"]),
            str(row["label"]),
            str(row["metric"]),
            f"{row['pairs']}",
            f"{row['patients']}",
            tables.numbers((row["a_mean"],), ".4g"),
            tables.numbers((row["b_mean"],), ".4g"),
            tables.numbers((row["difference_mean"],), "+.4f"),
            tables.numbers((row["ci_low"], row["ci_high"]), "+.4f", " – "),
            tables.numbers((row["p"],), ".3g"),
            tables.numbers((row["p_holm"],), ".3g"),
        ]
        for _, row in table.iterrows()
    ]
