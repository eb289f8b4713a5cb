"""Checks of a data set before training: every file is opened, and cases are checked and compared.

:func:`examine` opens and checks one case, :func:`compare` compares all cases by their small
:class:`Facts`, and :func:`check` does both for a manifest. docs/checks.md lists all findings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from medseg.datasets.manifest import Case, Manifest, read_cases
from medseg.datasets.validation.case_rules import apply_case_rules, check_hu_units
from medseg.datasets.validation.case_stats import Facts, measure
from medseg.datasets.validation.dataset_rules import Entry, compare, compare_splits
from medseg.datasets.validation.dicom_identity import Subject, subject_of
from medseg.datasets.validation.findings import REGISTRY, Finding, Severity, refuse
from medseg.datasets.validation.inspection import Examined, examine
from medseg.errors import UsageError
from medseg.images.volume import Mask
from medseg.recipe import Recipe
from medseg.system.progress import Advance, Shown, progress_bar

__all__ = [
    "REGISTRY",
    "CheckReport",
    "Entry",
    "Examined",
    "Facts",
    "Finding",
    "Severity",
    "Subject",
    "Value",
    "apply_case_rules",
    "check",
    "check_hu_units",
    "compare",
    "compare_splits",
    "examine",
    "measure",
    "refuse",
    "subject_of",
]


@dataclass(frozen=True)
class Value:
    """One value in the label maps of a data set.

    Attributes:
        value: The integer; 0 is background.
        name: Names of its labels, joined by ``+``; empty if unknown.
        cases: Number of label maps with this value.
        voxels: Number of voxels with this value in all label maps.
    """

    value: int
    name: str
    cases: int
    voxels: int


@dataclass(frozen=True)
class CheckReport:
    """The result of :func:`check`.

    Attributes:
        cases: Number of cases that were opened.
        findings: Errors first, then warnings; each in the order of the manifest, with findings about
            the whole set last.
        values: Values in the label maps, ascending.

    Example:
        >>> report = medseg.check("cases.csv", "tiny.yaml")
        >>> report.cases, len(report.of("error"))
        (4, 0)
    """

    cases: int
    findings: tuple[Finding, ...]
    values: tuple[Value, ...]

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of one severity."""
        return tuple(each for each in self.findings if each.severity == severity)

    def to_json(self) -> dict[str, object]:
        """The report as plain data."""
        return {
            "cases": self.cases,
            "errors": len(self.of("error")),
            "warnings": len(self.of("warning")),
            "findings": [asdict(each) for each in self.findings],
            "values": [asdict(each) for each in self.values],
        }


def check(
    cases: str | Path | Manifest | Sequence[Case],
    recipe: Recipe | str | Path | None = None,
    *,
    root: str | Path | None = None,
    split: str | None = None,
    progress: Shown = None,
) -> CheckReport:
    """A report of errors and warnings about a data set; opens every scan and label, one case at a time.

    Args:
        cases: A manifest, its path, or its cases.
        recipe: Recipe to train, or its name or file; without one any labels and channels are valid.
        root: Folder of the files of a manifest given as a path, instead of the manifest's own root.
        split: Open only the cases of this split; checks of the manifest alone always cover all cases.
        progress: Whether to show a progress bar; None shows it on a terminal or in a notebook only.

    Raises:
        UsageError: the manifest cannot be read, or no case has this split (``usage``).

    Example:
        >>> report = medseg.check("cases.csv", "phantom_lungs")
        >>> report.cases, len(report.of("error"))
        (4, 0)
    """
    where = cases if isinstance(cases, str | Path) else None
    if isinstance(recipe, str | Path):
        recipe = Recipe.read(recipe)
    if isinstance(cases, str | Path):
        cases = read_cases(cases, root=root)
    elif isinstance(cases, Manifest):
        cases = cases.cases
    if split is not None and not any(case.split == split for case in cases):
        raise UsageError(
            f"no case has split {split!r}", where=where, remedy="give --split all", reason="usage"
        )
    with progress_bar("checking", progress) as advance:
        return _check(cases, recipe, split, advance)


def _check(cases: Sequence[Case], recipe: Recipe | None, split: str | None, advance: Advance) -> CheckReport:
    opened = [case for case in cases if split is None or case.split == split]
    findings: list[Finding] = []
    entries: list[Entry] = []
    names: dict[int, list[str]] = {}
    for number, case in enumerate(opened, start=1):
        examined = examine(case, recipe)
        findings += examined.findings
        entries.append(Entry(case, examined.facts, subject_of(case)))
        _name(names, examined.truth)
        del examined  # frees its arrays before the next case is read
        advance(number, len(opened))
    findings += [*compare(entries, recipe), *compare_splits(cases, recipe)]
    return CheckReport(len(opened), _ordered(findings, cases), _table(entries, names))


def _name(names: dict[int, list[str]], truth: Mask | None) -> None:
    for label in truth.labels if truth is not None else ():
        for value in label.values:
            known = names.setdefault(value, [])
            if label.name not in known:
                known.append(label.name)


def _table(entries: Sequence[Entry], names: dict[int, list[str]]) -> tuple[Value, ...]:
    maps = [dict(entry.facts.values) for entry in entries]
    return tuple(
        Value(
            value,
            "+".join(names.get(value, [])),
            sum(value in one for one in maps),
            sum(one.get(value, 0) for one in maps),
        )
        for value in sorted({value for one in maps for value in one})
    )


def _ordered(findings: Sequence[Finding], cases: Sequence[Case]) -> tuple[Finding, ...]:
    place: dict[str | None, int] = {case.id: number for number, case in enumerate(cases)}
    return tuple(
        sorted(findings, key=lambda each: (each.severity != "error", place.get(each.case, len(cases))))
    )
