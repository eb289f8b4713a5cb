"""Checks of all cases of a data set together: splits, duplicates and outliers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from medseg.datasets.manifest import Case
from medseg.datasets.validation.case_rules import named
from medseg.datasets.validation.case_stats import Facts
from medseg.datasets.validation.dicom_identity import NOBODY, Subject
from medseg.datasets.validation.findings import Finding, Severity, finding
from medseg.recipe import Recipe

# Two cases have neither a majority nor an outlier.
_FEWEST = 3
# Our choice: thin and thick slices of one site (1 to 3 mm, 1.25 to 2.5 mm), or a chest and a chest
# with abdomen, stay within it; a wrong unit (10, 1000) and a scan of a few slices do not.
_FACTOR = 3.0
_AXES = ("R-L", "A-P", "S-I")


@dataclass(frozen=True)
class Entry:
    """The part of a case that is compared with other cases.

    Attributes:
        case: The case.
        facts: Measurements of the case, without channels or truth that could not be read.
        subject: Patient and study in its DICOM files; see
            :func:`medseg.datasets.validation.dicom_identity.subject_of`.
    """

    case: Case
    facts: Facts
    subject: Subject = NOBODY


def compare_splits(cases: Sequence[Case], recipe: Recipe | None = None) -> tuple[Finding, ...]:
    """The findings from the manifest alone: empty splits and patients in two splits.

    Args:
        cases: All cases of the manifest.
        recipe: Recipe to train; without one an empty split train is only a warning.
    """
    findings = []
    splits = {case.split for case in cases}
    if "train" not in splits:
        severity: Severity = "warning" if recipe is None else "error"
        problem = "no case has split train"
        findings.append(finding("no-training-case", problem, None, severity=severity))
    elif "val" not in splits:
        findings.append(finding("no-validation-case", "no case has split val", None))
    for earlier, later in _divided((case, case.patient) for case in cases):
        problem = f"patient {later.patient!r} is in split {later.split}, but with case {earlier.id} in split"
        findings.append(finding("patient-in-two-splits", f"{problem} {earlier.split}", later.id))
    return tuple(findings)


def compare(entries: Sequence[Entry], recipe: Recipe | None = None) -> tuple[Finding, ...]:
    """The findings from comparing all cases: labels that never occur, leaks, duplicates and outliers.

    Args:
        entries: Entries in the order of the manifest; of two equal cases the later one is reported.
        recipe: Recipe to train.
    """
    never = () if recipe is None else tuple(_never(entries, recipe))
    scanned = [entry for entry in entries if entry.facts.channels]
    return (
        *never,
        *_subjects(entries),
        *_duplicates(entries),
        *_orientations(scanned),
        *_sizes(scanned),
        *_read_as(entries),
    )


def _read_as(entries: Sequence[Entry]) -> Iterator[Finding]:
    """One finding for each way in which pictures were read, with the number of cases."""
    first: dict[str, str] = {}
    for entry in entries:
        first |= {reason: text for reason, text in entry.facts.read_as if reason not in first}
    for reason, text in first.items():
        count = sum(any(each == reason for each, _ in entry.facts.read_as) for entry in entries)
        yield finding("read-as", f"{reason}, {count} of {len(entries)} cases: {text}", None)


def _never(entries: Sequence[Entry], recipe: Recipe) -> Iterator[Finding]:
    training = [e for e in entries if e.case.split == "train" and e.facts.truth is not None]
    for label in recipe.labels:
        if training and not any(
            label.name in named(entry.case, recipe) and entry.facts.voxels(label.values) for entry in training
        ):
            values = ", ".join(map(str, label.values))
            problem = f"label {label.name} (values {values}) is in none of the {len(training)} training cases"
            yield finding("label-never", problem, None)
            continue
        kept = [
            entry.facts.kept_of(label, recipe.prepare.spacing_mm)
            for entry in training
            if label.name in named(entry.case, recipe) and entry.facts.voxels(label.values)
        ]
        if kept and not any(each is None or each.voxels for each in kept):
            size = " x ".join(f"{mm:g}" for mm in recipe.prepare.spacing_mm)
            problem = f"nothing of label {label.name} is left after resampling to {size} mm in any of the"
            yield finding("label-lost-everywhere", f"{problem} {len(kept)} training cases with it", None)


def _divided(owned: Iterable[tuple[Case, str | None]]) -> Iterator[tuple[Case, Case]]:
    """For each owner with cases in two splits, the first case and the first one in another split."""
    first: dict[str, Case] = {}
    reported: set[str] = set()
    for case, owner in owned:
        if owner is None or case.split is None:
            continue
        earlier = first.setdefault(owner, case)
        if earlier.split != case.split and owner not in reported:
            reported.add(owner)
            yield earlier, case


def _subjects(entries: Sequence[Entry]) -> Iterator[Finding]:
    # A study belongs to one person. An anonymiser may have given the same PatientID to everybody.
    for code, name in (("study-in-two-splits", "study"), ("dicom-patient-in-two-splits", "patient")):
        for earlier, later in _divided((e.case, getattr(e.subject, name)) for e in entries):
            if earlier.patient == later.patient:
                continue  # reported for the manifest's patient already
            problem = f"its DICOM files have the same {name} as those of case {earlier.id}"
            yield finding(code, f"{problem} in split {earlier.split}, not {later.split}", later.id)


def _duplicates(entries: Sequence[Entry]) -> Iterator[Finding]:
    """Findings about cases with the same scan as an earlier case; scans with a single value are skipped."""
    holders: defaultdict[str, list[Case]] = defaultdict(list)
    for entry in entries:
        case = entry.case
        digests = {channel.digest for channel in entry.facts.channels if not channel.constant}
        earlier = [other for digest in sorted(digests) for other in holders[digest]]
        apart = [
            o for o in earlier if o.split != case.split and o.split is not None and case.split is not None
        ]
        if apart:
            problem = (
                f"same voxels as case {apart[0].id}, which is in split {apart[0].split}, not {case.split}"
            )
            yield finding("duplicate-across-splits", problem, case.id)
        elif earlier:
            yield finding("duplicate", f"same voxels as case {earlier[0].id}", case.id)
        for digest in digests:
            holders[digest].append(case)


def _orientations(entries: Sequence[Entry]) -> Iterator[Finding]:
    codes = [entry.facts.channels[0].place.grid.axcodes for entry in entries]
    usual, times = Counter(codes).most_common(1)[0] if codes else ("", 0)
    if len(codes) < _FEWEST or 2 * times <= len(codes):
        return
    for entry, code in zip(entries, codes, strict=True):
        if code != usual:
            problem = f"stored as {code}, but {times} of {len(codes)} cases as {usual}"
            yield finding("orientation-outlier", problem, entry.case.id)


def _sizes(entries: Sequence[Entry]) -> Iterator[Finding]:
    """Findings about voxel sizes and fields of view far from the median of the set, by anatomical axis."""
    if len(entries) < _FEWEST:
        return
    grids = [entry.facts.channels[0].place.grid.oriented("RAS") for entry in entries]
    spacings = [grid.spacing_mm for grid in grids]
    extents = [tuple(n * mm for n, mm in zip(grid.shape, grid.spacing_mm, strict=True)) for grid in grids]
    for code, what, sizes in (
        ("spacing-outlier", "voxels", spacings),
        ("size-outlier", "field of view", extents),
    ):
        usual = [median(size[axis] for size in sizes) for axis in range(3)]
        for entry, size in zip(entries, sizes, strict=True):
            odd = [
                f"{size[axis]:.3g} mm along {name}, usually {usual[axis]:.3g}"
                for axis, name in enumerate(_AXES)
                if not usual[axis] / _FACTOR <= size[axis] <= usual[axis] * _FACTOR
            ]
            if odd:
                yield finding(code, f"{what}: {'; '.join(odd)}", entry.case.id)
