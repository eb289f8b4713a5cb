"""The measures of the lungs of many cases: by group with intervals, and the change between two visits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from medseg.errors import UsageError
from medseg.evaluation.confidence_intervals import holm, mean_interval, patient_means, wilcoxon
from medseg.measurement.lung_labels import SIDES
from medseg.measurement.measure_picture import PARTS_SHOWN
from medseg.reporting.clinical_table import MOST_GROUPS, ClinicalTable, read_clinical
from medseg.reporting.content import Row
from medseg.visualization.lung_record import HistogramRecord, LungRecord, read_lung_record

MEASURES = tuple(
    f"both lungs {name}"
    for name in ("ml", "mass g", "mean hu", "perc15 hu", "laa950 percent", "haa percent", "laa950 d")
)
"""Columns of the report's numbers that the cohort shows."""

EVERYONE = "all cases"
UNKNOWN = "unknown"
_PERCENT = (0.0, 100.0)


@dataclass(frozen=True)
class CohortOptions:
    """How cases are divided.

    Attributes:
        clinical: A CSV table with a row for each case (``case`` or ``id``) or patient (``patient``).
        group: Its column with the group; by default ``group`` if there is one.
        visit: Its column with the visit or date, whose values are sorted as numbers or else as text, such as
            2026-11-28; by default ``visit`` or ``date``, else the studies of results.csv.
    """

    clinical: str | Path | None = None
    group: str | None = None
    visit: str | None = None


DEFAULT_COHORT = CohortOptions()
"""Without groups."""


@dataclass(frozen=True)
class Estimate:
    """Mean of a measure with its 95 % interval, over cases, with patients as the units.

    Attributes:
        values: One for each case.
        patients: The patient of each.
        mean: Mean of the cases.
        interval: 95 % interval of the mean; nan with fewer than two patients.
    """

    values: tuple[float, ...]
    patients: tuple[str, ...]
    mean: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Change:
    """A measure of the same patients at two visits.

    Attributes:
        patients: Those with both.
        first: Mean of a patient's cases at the first visit.
        last: At the last visit.
        mean: Mean change.
        interval: Its 95 % interval.
        p: Two-sided p value of the Wilcoxon signed-rank test.
        p_holm: Corrected for the number of measures.
    """

    patients: tuple[str, ...]
    first: tuple[float, ...]
    last: tuple[float, ...]
    mean: float
    interval: tuple[float, float]
    p: float
    p_holm: float = math.nan


@dataclass(frozen=True)
class Cohort:
    """The measures of all cases.

    Attributes:
        cases: Number of measured cases.
        patients: Number of their patients.
        model: The model, if the batch has several.
        by: Column and file of the groups; empty without groups.
        estimates: By measure and group.
        histograms: Mean share of the voxels in each bin, by group.
        regions: Share of low attenuation by side and part, with its interval.
        below_hu: Threshold of that share.
        visits: Column of the visits; empty if no patient has two.
        changes: By measure.
        unmatched: Cases without a row in the clinical table.
        flags: Number of cases by reason that speaks against comparing them.
        methods: A paragraph for a methods section, of the first case; empty if unknown.
    """

    cases: int
    patients: int
    model: str
    by: str
    estimates: Mapping[str, Mapping[str, Estimate]]
    histograms: Mapping[str, HistogramRecord] = field(default_factory=dict)
    regions: Mapping[str, Mapping[str, tuple[float | None, tuple[float, float] | None]]] = field(
        default_factory=dict
    )
    below_hu: float = -950.0
    visits: str = ""
    changes: Mapping[str, Change] = field(default_factory=dict)
    unmatched: tuple[str, ...] = ()
    flags: Mapping[str, int] = field(default_factory=dict)
    methods: str = ""


@dataclass(frozen=True)
class _Member:
    row: Row
    patient: str
    group: str
    visit: str


def cohort_of(rows: Sequence[Row], options: CohortOptions) -> Cohort | None:
    """The measures of the lungs in the rows of a report; None if no case has any.

    Of several models in a batch only the first is shown.

    Raises:
        UsageError: the clinical table cannot be used, lacks a column, or has more than eight groups
            (``clinical-table``).
    """
    table = None if options.clinical is None else read_clinical(options.clinical)
    if table is None and (options.group or options.visit):
        raise UsageError(
            "groups and visits are columns of a clinical table, but there is none",
            where="clinical",
            remedy="give the table as well: medseg report FOLDER --clinical TABLE.csv",
            reason="clinical-table",
        )
    group, visit = _columns(table, options)
    measured = [row for row in rows if any(name in row.numbers for name in MEASURES[1:])]
    if not measured:
        return None
    model = min(row.model for row in measured)
    kept = sorted((row for row in measured if row.model == model), key=lambda row: row.case)
    members = [_member(row, table, group, visit) for row in kept]
    groups = _groups(members, table, group)
    records = {
        each.row.case: record
        for each in members
        if each.row.slices and (record := read_lung_record(each.row.slices))
    }
    estimates = {
        measure: {
            name: _estimate([each for each in members if each.group == name], measure) for name in groups
        }
        for measure in MEASURES
    }
    changes = _changes(members)
    return Cohort(
        cases=len(members),
        patients=len({each.patient for each in members}),
        model=model,
        by=f"column {group} of {table.path.name}" if table and group else "",
        estimates={
            measure: found
            for measure, found in estimates.items()
            if any(estimate.values for estimate in found.values())
        },
        histograms=_histograms(members, records, groups),
        regions=_regions(members, records),
        below_hu=next((record["below_hu"] for record in records.values()), -950.0),
        visits=(visit or "study") if changes else "",
        changes=changes,
        unmatched=tuple(each.row.case for each in members if table and not _has_row(table, each)),
        flags=dict(Counter(flag for each in members for flag in each.row.measure_flags).most_common()),
        methods=next((record["methods"] for record in records.values()), ""),
    )


def _columns(table: ClinicalTable | None, options: CohortOptions) -> tuple[str, str]:
    """The columns of group and visit; empty where there is none."""
    if table is None:
        return "", ""
    group = table.require(options.group) if options.group else "group" * ("group" in table.columns)
    if options.visit:
        return group, table.require(options.visit)
    return group, next((name for name in ("visit", "date") if name in table.columns), "")


def _member(row: Row, table: ClinicalTable | None, group: str, visit: str) -> _Member:
    patient = row.patient or row.case
    if table is None:
        return _Member(row, patient, EVERYONE, row.study)
    named = table.cell(row.case, patient, "patient") or patient
    return _Member(
        row,
        named,
        (table.cell(row.case, patient, group) or UNKNOWN) if group else EVERYONE,
        table.cell(row.case, patient, visit) if visit else row.study,
    )


def _groups(members: Sequence[_Member], table: ClinicalTable | None, group: str) -> list[str]:
    groups = sorted({each.group for each in members}, key=lambda name: (name == UNKNOWN, _order(name)))
    if table and len(groups) > MOST_GROUPS:
        raise UsageError(
            f"the column {group!r} has {len(groups)} different values",
            where=table.path,
            remedy=f"give a column with at most {MOST_GROUPS} groups",
            reason="clinical-table",
        )
    return groups


def _has_row(table: ClinicalTable, member: _Member) -> bool:
    return (member.row.case if table.by_case else member.row.patient or member.row.case) in table.rows


def _bounds(measure: str) -> tuple[float, float]:
    return _PERCENT if measure.endswith("percent") else (-math.inf, math.inf)


def _estimate(members: Sequence[_Member], measure: str) -> Estimate:
    known = [each for each in members if measure in each.row.numbers]
    values = tuple(each.row.numbers[measure] for each in known)
    patients = tuple(each.patient for each in known)
    mean = float(np.mean(values)) if values else math.nan
    return Estimate(values, patients, mean, mean_interval(values, patients, bounds=_bounds(measure)))


def _changes(members: Sequence[_Member]) -> dict[str, Change]:
    """The change of each measure from the first to the last visit of the patients that have two."""
    visits: dict[str, list[str]] = {}
    for each in members:
        if each.visit:
            visits.setdefault(each.patient, []).append(each.visit)
    ends = {
        patient: (min(found, key=_order), max(found, key=_order))
        for patient, found in visits.items()
        if len(set(found)) > 1
    }
    found = {}
    for measure in MEASURES:
        means: list[dict[str, float]] = []
        for end in (0, 1):
            known = [
                each
                for each in members
                if each.patient in ends
                and each.visit == ends[each.patient][end]
                and measure in each.row.numbers
            ]
            patients = [each.patient for each in known]
            values = patient_means([each.row.numbers[measure] for each in known], patients)
            means.append(dict(zip(dict.fromkeys(patients), map(float, values), strict=True)))
        both = tuple(patient for patient in means[0] if patient in means[1])
        if both:
            first, last = (tuple(mean[patient] for patient in both) for mean in means)
            change = np.subtract(last, first)
            interval = mean_interval(change, both)
            found[measure] = Change(both, first, last, float(change.mean()), interval, wilcoxon(change))
    corrected = holm([each.p for each in found.values()])
    return {name: replace(each, p_holm=p) for (name, each), p in zip(found.items(), corrected, strict=True)}


def _histograms(
    members: Sequence[_Member], records: Mapping[str, LungRecord], groups: Sequence[str]
) -> dict[str, HistogramRecord]:
    """The mean histogram of each group; every case counts the same, however large its lungs are."""
    found: dict[str, HistogramRecord] = {}
    for group in groups:
        shares: list[np.ndarray] = []
        bins: tuple[float, float, int] | None = None
        for each in members:
            record = records.get(each.row.case)
            both = record["histograms"].get("both_lungs") if record and each.group == group else None
            if not both or not sum(both["counts"]):
                continue
            bins = bins or (both["low"], both["width"], len(both["counts"]))
            if bins == (both["low"], both["width"], len(both["counts"])):
                shares.append(np.asarray(both["counts"]) / sum(both["counts"]))
        if bins:
            counts = np.mean(shares, axis=0).tolist()
            found[group] = {"low": bins[0], "width": bins[1], "counts": counts}
    return found


def _regions(
    members: Sequence[_Member], records: Mapping[str, LungRecord]
) -> dict[str, dict[str, tuple[float | None, tuple[float, float] | None]]]:
    """Mean share of low attenuation by side and part over all cases, with its interval."""
    found: dict[str, dict[str, tuple[float | None, tuple[float, float] | None]]] = {}
    for side in SIDES:
        for part in PARTS_SHOWN:
            known = [
                (value, each.patient)
                for each in members
                if each.row.case in records
                and (value := records[each.row.case]["bars"].get(side, {}).get(part)) is not None
            ]
            if known:
                values, patients = zip(*known, strict=True)
                interval = mean_interval(values, patients, bounds=_PERCENT)
                shown = None if math.isnan(interval[0]) else interval
                found.setdefault(side, {})[part] = (float(np.mean(values)), shown)
    return found


def _order(text: str) -> tuple[bool, float, str]:
    """A sort key: numbers before texts, numbers by size."""
    try:
        return False, float(text), text
    except ValueError:
        return True, 0.0, text
