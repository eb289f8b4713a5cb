"""Comparing the cases of a set: splits, duplicates, outliers."""

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

# Two cases have no majority, and no outlier.
_FEWEST = 3
# Our choice: thin and thick slices of one site (1 to 3 mm, 1.25 to 2.5 mm) and a chest beside a chest
# with abdomen stay within it; a wrong unit (10, 1000) and a scan cut to a few slices do not.
_FACTOR = 3.0
_AXES = ("R-L", "A-P", "S-I")


@dataclass(frozen=True)
class Entry:
    """What is compared of one case.

    Attributes:
        case: Which.
        facts: Without channels or truth where they could not be read.
        subject: Whom its DICOM files say it is about; see
        :func:`medseg.datasets.validation.dicom_identity.subject_of`.
    """

    case: Case
    facts: Facts
    subject: Subject = NOBODY


def compare_splits(cases: Sequence[Case], recipe: Recipe | None = None) -> tuple[Finding, ...]:
    """What the manifest alone tells: empty splits, patients in two splits.

    Args:
        cases: All of the manifest.
        recipe: Without one nothing is to be trained, and an empty split train is but a warning.
    """
    findings = []
    splits = {case.split for case in cases}
    if "train" not in splits:
        severity: Severity = "warning" if recipe is None else "error"
        told = "no case has split train"
        findings.append(finding("no-training-case", told, None, severity=severity))
    elif "val" not in splits:
        findings.append(finding("no-validation-case", "no case has split val", None))
    for earlier, later in _divided((case, case.patient) for case in cases):
        told = f"patient {later.patient!r} is in split {later.split}, and with case {earlier.id} in split"
        findings.append(finding("patient-in-two-splits", f"{told} {earlier.split}", later.id))
    return tuple(findings)


def compare(entries: Sequence[Entry], recipe: Recipe | None = None) -> tuple[Finding, ...]:
    """What only the cases together tell: labels that never occur, leaks, duplicates, outliers.

    Args:
        entries: In the order of the manifest, which decides which of two equal cases is named.
        recipe: What is to be trained.
    """
    never = () if recipe is None else tuple(_never(entries, recipe))
    scanned = [entry for entry in entries if entry.facts.channels]
    return (*never, *_subjects(entries), *_duplicates(entries), *_orientations(scanned), *_sizes(scanned))


def _never(entries: Sequence[Entry], recipe: Recipe) -> Iterator[Finding]:
    training = [e for e in entries if e.case.split == "train" and e.facts.truth is not None]
    for label in recipe.labels:
        if training and not any(
            label.name in named(entry.case, recipe) and entry.facts.voxels(label.values) for entry in training
        ):
            values = ", ".join(map(str, label.values))
            told = f"label {label.name} (values {values}) is in none of {len(training)} training cases"
            yield finding("label-never", told, None)


def _divided(owned: Iterable[tuple[Case, str | None]]) -> Iterator[tuple[Case, Case]]:
    """For each owner with cases in two splits: the first case, and the first in another split."""
    first: dict[str, Case] = {}
    told: set[str] = set()
    for case, owner in owned:
        if owner is None or case.split is None:
            continue
        earlier = first.setdefault(owner, case)
        if earlier.split != case.split and owner not in told:
            told.add(owner)
            yield earlier, case


def _subjects(entries: Sequence[Entry]) -> Iterator[Finding]:
    # A study is one person's visit. A PatientID may be what an anonymiser gave to everybody.
    for code, name in (("study-in-two-splits", "study"), ("dicom-patient-in-two-splits", "patient")):
        for earlier, later in _divided((e.case, getattr(e.subject, name)) for e in entries):
            if earlier.patient == later.patient:
                continue  # the manifest says so itself
            told = f"its DICOM files are of the same {name} as those of case {earlier.id}"
            yield finding(code, f"{told}, in split {earlier.split}, not {later.split}", later.id)


def _duplicates(entries: Sequence[Entry]) -> Iterator[Finding]:
    """Cases that have a scan of an earlier case; constant scans are equal without being the same."""
    holders: defaultdict[str, list[Case]] = defaultdict(list)
    for entry in entries:
        case = entry.case
        digests = {channel.digest for channel in entry.facts.channels if not channel.constant}
        earlier = [other for digest in sorted(digests) for other in holders[digest]]
        apart = [
            o for o in earlier if o.split != case.split and o.split is not None and case.split is not None
        ]
        if apart:
            told = f"the same voxels as case {apart[0].id} in split {apart[0].split}, here {case.split}"
            yield finding("duplicate-across-splits", told, case.id)
        elif earlier:
            yield finding("duplicate", f"the same voxels as case {earlier[0].id}", case.id)
        for digest in digests:
            holders[digest].append(case)


def _orientations(entries: Sequence[Entry]) -> Iterator[Finding]:
    codes = [entry.facts.channels[0].place.grid.axcodes for entry in entries]
    usual, times = Counter(codes).most_common(1)[0] if codes else ("", 0)
    if len(codes) < _FEWEST or 2 * times <= len(codes):
        return
    for entry, code in zip(entries, codes, strict=True):
        if code != usual:
            told = f"stored as {code}, {times} of {len(codes)} cases as {usual}"
            yield finding("orientation-outlier", told, entry.case.id)


def _sizes(entries: Sequence[Entry]) -> Iterator[Finding]:
    """Voxel and field of view along the body's axes, against the median of the set."""
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
