"""Tables of ``medseg evaluate``, read again and told apart by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from medseg.errors import InputRefused, UsageError
from medseg.evaluation.evaluator import METRICS


def read_evaluation(path: str | Path) -> pd.DataFrame:
    """The ``evaluation.csv`` of ``medseg evaluate``: one row a case and label.

    Raises:
        InputRefused: no such file (``not-found``), no such table, a case has a label twice, or a
            metric is no number (``evaluation``).
    """
    names = dict.fromkeys(("case", "patient", "label", "status"), str)
    try:  # only an empty cell is missing: a label may be called NA
        frame = pd.read_csv(path, dtype=names, keep_default_na=False, na_values=[""])
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
    for metric in sorted({*METRICS, "volume_error_ml"} & set(frame.columns)):
        if not pd.api.types.is_numeric_dtype(frame[metric]) or np.isinf(frame[metric]).any():
            raise _refused(f"not all of column {metric!r} are finite numbers", path)
    return frame


def read_evaluations(paths: Sequence[str | Path]) -> dict[str, pd.DataFrame]:
    """Several tables, each under the name that tells it apart: its file's, a folder's, or its whole path.

    Raises:
        UsageError: a table is given twice (``usage``).
        InputRefused: as :func:`read_evaluation`.
    """
    files = [Path(path) for path in paths]
    return {name: read_evaluation(path) for name, path in zip(_names(files), files, strict=True)}


def _names(paths: Sequence[Path]) -> list[str]:
    places = [path.resolve().with_suffix("").parts[::-1] for path in paths]
    if len(set(places)) < len(places):
        raise UsageError("an evaluation is given twice", where="medseg compare", reason="usage")
    for names in zip(*places, strict=False):  # the files, then their folders
        if len(set(names)) == len(names):
            return list(names)
    return [str(path) for path in paths]


def _refused(problem: str, path: str | Path) -> InputRefused:
    return InputRefused(
        problem, where=path, remedy="give the evaluation.csv of `medseg evaluate`", reason="evaluation"
    )
