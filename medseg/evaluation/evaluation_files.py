"""Reading the tables of ``medseg evaluate``, each under a distinct name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from medseg.errors import InputRefused, UsageError
from medseg.evaluation.summary_table import METRICS
from medseg.system.csv_cells import from_cell


def read_evaluation(path: str | Path) -> pd.DataFrame:
    """The table in an ``evaluation.csv`` of ``medseg evaluate``: one row per case and label.

    Raises:
        InputRefused: the file cannot be read (``not-found``), or it is not such a table, has a label of
            a case twice, or a metric that is not a finite number (``evaluation``).

    Example:
        >>> medseg.read_evaluation("first/evaluation.csv")["label"].tolist()
        ['right_lung', 'left_lung']
    """
    names = dict.fromkeys(("case", "patient", "label", "status"), str)
    try:  # only an empty cell is missing, because a label may be named NA
        frame = pd.read_csv(path, dtype=names, keep_default_na=False, na_values=[""])
    except OSError as error:
        raise InputRefused(
            f"cannot be read: {error.strerror}",
            where=path,
            remedy="give the evaluation.csv of `medseg evaluate`",
            reason="not-found",
        ) from None
    except (ValueError, UnicodeDecodeError):  # pandas' parser errors are ValueErrors
        raise _refused("the file is not a CSV table", path) from None
    for column in names.keys() & set(frame.columns):
        frame[column] = frame[column].map(from_cell, na_action="ignore")
    missing = sorted({"case", "patient", "label", "status", "dice"} - set(frame.columns))
    if missing:
        raise _refused(f"the table has no column {missing[0]!r}", path)
    repeated = frame[frame.duplicated(["case", "label"])]
    if len(repeated):
        first = repeated.iloc[0]
        raise _refused(f"case {first['case']!r} has label {first['label']!r} twice", path)
    for metric in sorted({*METRICS, "volume_error_ml"} & set(frame.columns)):
        if not pd.api.types.is_numeric_dtype(frame[metric]) or np.isinf(frame[metric]).any():
            raise _refused(f"column {metric!r} has values that are not finite numbers", path)
    return frame


def read_evaluations(paths: Sequence[str | Path]) -> dict[str, pd.DataFrame]:
    """Several tables by distinct names: the name of the file, of a folder above it, or the whole path.

    Raises:
        UsageError: a table is given twice (``usage``).
        InputRefused: a file is refused by :func:`read_evaluation`.
    """
    files = [Path(path) for path in paths]
    return {name: read_evaluation(path) for name, path in zip(_names(files), files, strict=True)}


def _names(paths: Sequence[Path]) -> list[str]:
    places = [path.resolve().with_suffix("").parts[::-1] for path in paths]
    if len(set(places)) < len(places):
        raise UsageError("the same evaluation is given twice", where="medseg compare", reason="usage")
    for names in zip(*places, strict=False):  # file names first, then folders upwards
        if len(set(names)) == len(names):
            return list(names)
    return [str(path) for path in paths]


def _refused(problem: str, path: str | Path) -> InputRefused:
    return InputRefused(
        problem, where=path, remedy="give the evaluation.csv of `medseg evaluate`", reason="evaluation"
    )
