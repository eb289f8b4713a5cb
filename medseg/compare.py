"""Two or more evaluations of the same cases against one another, with what chance may have done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pandas as pd

from medseg import tables
from medseg.errors import InputRefused, UsageError
from medseg.evaluate import ALL_LABELS, METRICS
from medseg.intervals import holm, mean_interval, wilcoxon
from medseg.io.atomic import replacing

# Below it the smallest possible p, 2 / 2^n, is above 0.05.
FEWEST_PAIRS = 6
NOTES = (
    "Differences are B - A over the cases that both have. CI: 95 % bootstrap of the mean difference over "
    "patients. p: Wilcoxon signed-rank test, two-sided, differences of 0 left out. Holm: p corrected for "
    "all tests of this table. Under 6 pairs p cannot come below 0.05."
)
_HEADS = ("A", "B", "label", "metric", "pairs", "A mean", "B mean", "difference", "95 % CI", "p", "Holm")


@dataclass(frozen=True)
class Comparison:
    """The result of :func:`compare`.

    Attributes:
        table: One row a pair of evaluations, label and metric: ``a``, ``b``, ``label``, ``metric``,
            ``pairs``, ``a_mean``, ``b_mean``, ``difference_mean``, ``difference_median``, ``ci_low``,
            ``ci_high``, ``p``, ``p_holm``.
        left_out: One row a case and label that could not be paired, and why.
    """

    table: pd.DataFrame
    left_out: pd.DataFrame


def read(path: str | Path) -> pd.DataFrame:
    """The ``evaluation.csv`` of ``medseg evaluate``.

    Raises:
        InputRefused: no such file (``not-found``), no such table, or a case has a label twice
            (``evaluation``).
    """
    try:
        frame = pd.read_csv(path, dtype={"case": str, "patient": str, "label": str})
    except OSError as error:
        raise InputRefused(
            f"cannot be read: {error.strerror}",
            where=path,
            remedy="give the evaluation.csv of `medseg evaluate`",
            reason="not-found",
        ) from None
    except (ValueError, UnicodeDecodeError):  # pandas' parser errors are ValueErrors
        raise _refused("this is no CSV table", path) from None
    lacking = sorted({"case", "patient", "label", "status", "dice"} - set(frame.columns))
    if lacking:
        raise _refused(f"it has no column {lacking[0]!r}", path)
    twice = frame[frame.duplicated(["case", "label"])]
    if len(twice):
        first = twice.iloc[0]
        raise _refused(f"case {first['case']!r} has label {first['label']!r} twice", path)
    return frame


def compare(frames: Mapping[str, pd.DataFrame], metrics: Sequence[str] = ("dice",)) -> Comparison:
    """Every pair of evaluations compared in every label and metric, and in the mean over labels.

    Args:
        frames: Evaluations by name, in order; at least two.
        metrics: Columns of the evaluations.

    Raises:
        UsageError: fewer than two, an unknown metric, or no case in common.
    """
    if len(frames) < 2:
        raise UsageError("need at least two evaluations", remedy="give A.csv B.csv", reason="usage")
    scores = {name: _scores(frame, metrics, name) for name, frame in frames.items()}
    rows: list[dict[str, object]] = []
    left: list[dict[str, object]] = []
    for a, b in combinations(frames, 2):
        both = scores[a].merge(scores[b], on=["case", "label"], how="outer", suffixes=("_a", "_b"))
        both = both.sort_values(["label", "case"], kind="stable")
        left += _left_out(both, a, b)
        for label in dict.fromkeys([*scores[a]["label"], *scores[b]["label"]]):
            part = both[both["label"] == label]
            rows += [_row(a, b, str(label), metric, part) for metric in metrics]
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
    return Comparison(table, pd.DataFrame(left, columns=["a", "b", "case", "label", "why"]))


def write(found: Comparison, folder: str | Path) -> tuple[Path, ...]:
    """Writes ``comparison.csv``, ``.json``, ``.md``, ``.tex`` and ``left_out.csv`` into a folder.

    Raises:
        UsageError: the folder does not exist.
        ResourceError: the disk refuses.
    """
    folder = Path(folder)
    contents = {
        "comparison.csv": found.table.to_csv(index=False, float_format="%.6g", lineterminator="\n"),
        "comparison.json": tables.as_json(found.table),
        "comparison.md": tables.markdown(_HEADS, _cells(found.table, "–"), NOTES),
        "comparison.tex": tables.latex(_HEADS, _cells(found.table, "--"), NOTES),
        "left_out.csv": found.left_out.to_csv(index=False, lineterminator="\n"),
    }
    for name, text in contents.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    return tuple(folder / name for name in contents)


def _scores(frame: pd.DataFrame, metrics: Sequence[str], name: str) -> pd.DataFrame:
    """case, patient, label, status and the metrics; the mean over a case's labels where it has several."""
    frame = frame.copy()
    if "volume_error_ml" in frame:
        frame["volume_error_abs_ml"] = frame["volume_error_ml"].abs()
    for metric in metrics:
        if metric not in METRICS or metric not in frame:
            raise UsageError(
                f"no metric is called {metric!r} in {name}",
                where="--metric",
                remedy=f"give one of: {', '.join(METRICS)}",
                reason="metric",
            )
    kept = frame[["case", "patient", "label", "status", *metrics]]
    scored = kept[kept["status"] == "ok"]
    if scored["label"].nunique() < 2:
        return kept
    means = scored.groupby("case", sort=False).agg({"patient": "first"} | dict.fromkeys(metrics, "mean"))
    return pd.concat([kept, means.reset_index().assign(label=ALL_LABELS, status="ok")], ignore_index=True)


def _left_out(both: pd.DataFrame, a: str, b: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for _, row in both.iterrows():
        if row["label"] == ALL_LABELS:
            continue
        why = [
            f"failed in {name}" if status == "failed" else f"not in {name}"
            for name, status in ((a, row["status_a"]), (b, row["status_b"]))
            if status != "ok"
        ]
        if why:
            label = "" if pd.isna(row["label"]) else row["label"]
            rows.append({"a": a, "b": b, "case": row["case"], "label": label, "why": "; ".join(why)})
    return rows


def _row(a: str, b: str, label: str, metric: str, part: pd.DataFrame) -> dict[str, object]:
    first, second = part[f"{metric}_a"], part[f"{metric}_b"]
    known = first.notna() & second.notna()
    difference = (second - first)[known]
    low, high = mean_interval(difference.to_numpy(float), list(part.loc[known, "patient_a"]))
    return {
        "a": a,
        "b": b,
        "label": label,
        "metric": metric,
        "pairs": int(known.sum()),
        "a_mean": float(first[known].mean()),
        "b_mean": float(second[known].mean()),
        "difference_mean": float(difference.mean()),
        "difference_median": float(difference.median()),
        "ci_low": low,
        "ci_high": high,
        "p": wilcoxon(difference.to_numpy(float)) if known.any() else float("nan"),
    }


def _cells(table: pd.DataFrame, dash: str) -> list[list[str]]:
    return [
        [
            str(row["a"]),
            str(row["b"]),
            str(row["label"]),
            str(row["metric"]),
            f"{row['pairs']}",
            f"{row['a_mean']:.4g}",
            f"{row['b_mean']:.4g}",
            f"{row['difference_mean']:+.4f}",
            f"{row['ci_low']:+.4f} {dash} {row['ci_high']:+.4f}",
            f"{row['p']:.3g}",
            f"{row['p_holm']:.3g}",
        ]
        for _, row in table.iterrows()
    ]


def _refused(problem: str, path: str | Path) -> InputRefused:
    return InputRefused(
        problem, where=path, remedy="give the evaluation.csv of `medseg evaluate`", reason="evaluation"
    )
