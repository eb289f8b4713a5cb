"""Looking at the data before training: every file opened, every case judged, all cases compared.

:func:`examine` opens and judges one case, :func:`compare` looks at all of them by their small
:class:`Facts`, and :func:`check` does both for a manifest. docs/checks.md lists what is found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from medseg.datasets.manifest import Case
from medseg.datasets.validation.case_rules import apply_case_rules, check_hu_units
from medseg.datasets.validation.case_stats import Facts, measure
from medseg.datasets.validation.dataset_rules import Entry, compare, compare_splits
from medseg.datasets.validation.dicom_identity import Subject, subject_of
from medseg.datasets.validation.findings import REGISTRY, Finding, Severity, refuse
from medseg.datasets.validation.inspection import Examined, examine
from medseg.images.volume import Mask
from medseg.recipe import Recipe

__all__ = [
    "REGISTRY",
    "Entry",
    "Examined",
    "Facts",
    "Finding",
    "Report",
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
    """One integer of the set's label maps.

    Attributes:
        value: The integer; 0 is background.
        name: Of the labels it belongs to, with ``+`` between them; empty where none is known.
        cases: In how many label maps it is.
        voxels: How many voxels have it, in all of them.
    """

    value: int
    name: str
    cases: int
    voxels: int


@dataclass(frozen=True)
class Report:
    """What was found in a set.

    Attributes:
        cases: How many were opened.
        findings: Errors first; each in the order of the manifest, those about all cases last.
        values: The integers in the label maps, ascending.
    """

    cases: int
    findings: tuple[Finding, ...]
    values: tuple[Value, ...]

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """The errors, or the warnings."""
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
    cases: Sequence[Case],
    recipe: Recipe | None = None,
    *,
    split: str | None = None,
    on_case: Callable[[int, int], None] = lambda done, cases: None,
) -> Report:
    """Opens every case, one at a time, and tells everything that is wrong or odd.

    Args:
        cases: All of a manifest.
        recipe: What is to be trained; without one any labels and channels are right.
        split: Open only the cases of this split; what the manifest alone tells is told of all.
        on_case: Called with the number of cases that are done, and of all to be opened.
    """
    opened = [case for case in cases if split is None or case.split == split]
    findings: list[Finding] = []
    entries: list[Entry] = []
    names: dict[int, list[str]] = {}
    for number, case in enumerate(opened, start=1):
        examined = examine(case, recipe)
        findings += examined.findings
        entries.append(Entry(case, examined.facts, subject_of(case)))
        _name(names, examined.truth)
        del examined  # before the next is read: one case at a time
        on_case(number, len(opened))
    findings += [*compare(entries, recipe), *compare_splits(cases, recipe)]
    return Report(len(opened), _ordered(findings, cases), _table(entries, names))


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
