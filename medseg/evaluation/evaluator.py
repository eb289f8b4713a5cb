"""Scores of every case and label against the truth."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import pandas as pd

from medseg.datasets.manifest import Case
from medseg.errors import MedsegError, UsageError
from medseg.evaluation.metrics import NSD_TOLERANCE_MM, REGISTRY
from medseg.evaluation.scoring import Tolerances, score, tolerance_of
from medseg.evaluation.unknown_values import AbsentLabels, UnknownValues
from medseg.images.label import Label
from medseg.images.volume import Mask
from medseg.io import is_dicom_mask, read_channels, read_mask
from medseg.io.formats import picture_ending
from medseg.io.picture.masks import DEFAULT_CODING, MaskCoding
from medseg.io.picture.raster import HARMLESS
from medseg.system.error_conversion import as_medseg_error
from medseg.system.notices import notify, passing_once

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
    coding: MaskCoding = DEFAULT_CODING,
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
        coding: Colours of label files that are pictures.
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
    said: set[str] = set()
    thick: dict[str, tuple[float, float, float]] = {}
    unknown, absent = UnknownValues(labels, ignore_value), AbsentLabels(labels)
    for number, case in enumerate(cases, start=1):
        about: Row = {"case": case.id, "patient": case.patient, "group": case.group}
        try:
            with passing_once(HARMLESS, said):
                truth = read_truth(case, labels, coding)
            if _has_thick_slices(truth, nsd_tolerance_mm):
                thick[case.id] = truth.grid.spacing_mm
            started = time.perf_counter()
            prediction = predict(case)
            seconds = time.perf_counter() - started
            unknown.look("truth", case.id, truth)
            unknown.look("prediction", case.id, prediction)
            absent.look(truth, prediction, case.annotated)
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
            known = as_medseg_error(error)
            rows.append(about | {"status": "failed", "reason": _reason(error, known)})
            if known.reason == "unexpected":
                _LOG.exception("%s failed unexpectedly", case.id)
        on_case(number, len(cases))
    _report_thick_slices(thick, len(cases))
    unknown.report(len(cases))
    absent.report(len(cases))
    return pd.DataFrame(rows, columns=list(COLUMNS))


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


def read_truth(case: Case, labels: Sequence[Label], coding: MaskCoding = DEFAULT_CODING) -> Mask:
    """The true mask of a case.

    Args:
        case: The case.
        labels: Labels of the label file.
        coding: Colours of a label file that is a picture.

    Raises:
        UsageError: the case has no label file (``no-label``).
        InputRefused: the label file cannot be read.
    """
    if case.label is None:
        raise UsageError(
            "the case has no label", remedy="add its label file to the manifest", reason="no-label"
        )
    image = case.images[0]
    # A picture of a truth has the pixel size of its image, which may be NIfTI.
    sized = picture_ending(case.label) is not None and picture_ending(image) is None
    scan = read_channels([image])[0] if sized or is_dicom_mask(case.label) else None
    return read_mask(case.label, labels, scan, coding=coding)


def _reason(error: Exception, known: MedsegError) -> str:
    if known.reason != "unexpected":
        return f"{known.reason}: {' '.join(str(known).split())}"
    return f"unexpected: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
