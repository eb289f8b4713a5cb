"""A finding: one thing that is wrong or odd about the data, and the table of their kinds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from medseg.errors import InputRefused, printable

Severity: TypeAlias = Literal["error", "warning"]


class FindingKind(NamedTuple):
    """What all findings of one code share: how bad they are, and what to do where nothing else is said."""

    severity: Severity
    remedy: str


# docs/checks.md explains each of them; a test compares both.
REGISTRY: dict[str, FindingKind] = {
    # reading
    "missing-file": FindingKind(
        "error", "correct the path in the manifest, or give the data's folder: --data-root"
    ),
    "image-unreadable": FindingKind("error", "export or download it again"),
    "label-unreadable": FindingKind("error", "export or download it again"),
    "not-finite": FindingKind("error", "replace these voxels and write the file again"),
    "label-values": FindingKind("error", "write the label map as whole numbers from 0 to 65535"),
    "reader-warning": FindingKind("warning", "check that the file is what you mean"),
    "channel-count": FindingKind(
        "error", "give one file for each channel of the recipe, or one 4D NIfTI file"
    ),
    "modality": FindingKind(
        "error", "name the right scan in the manifest, or choose a recipe of its modality"
    ),
    # geometry
    "channel-grid": FindingKind("error", "register and resample the channels to one grid"),
    "label-grid": FindingKind(
        "error", "resample the label onto the scan (nearest neighbour); if only its header is wrong, copy it"
    ),
    # labels
    "no-label": FindingKind("error", "name its label in the manifest, or leave its split empty"),
    "label-empty": FindingKind(
        "warning", "check that nothing is to be seen there, not that nobody has drawn it"
    ),
    "label-absent": FindingKind("warning", "if nobody looked for them there, leave them out of `annotated`"),
    "unknown-values": FindingKind("warning", "correct the label, or the recipe's labels or ignore_value"),
    "annotated-name": FindingKind("warning", "spell it as the recipe does"),
    "label-never": FindingKind(
        "error", "correct the labels' values in the recipe, or add cases that have it"
    ),
    # intensities
    "constant-image": FindingKind("error", "export the scan again, or leave the case out"),
    "constant-channel": FindingKind("warning", "check that this channel is meant to be empty"),
    "same-channels": FindingKind("warning", "name the right file for each channel"),
    "hu-windowed": FindingKind("error", "convert the original DICOM series; HU cannot be brought back"),
    "hu-shifted": FindingKind(
        "error",
        "look whether it is a CT; if so, apply the RescaleIntercept once: convert the original DICOM series",
    ),
    "hu-no-air": FindingKind(
        "warning", "unless the scan was cut to the inside of the body, convert it again"
    ),
    "hu-no-tissue": FindingKind("warning", "check that the rescale was applied once and the unit is HU"),
    # the set
    "orientation-outlier": FindingKind(
        "warning", "look at it with its label; if it is right nothing is to be done"
    ),
    "spacing-outlier": FindingKind("warning", "check the unit (mm) and the order of its axes"),
    "size-outlier": FindingKind(
        "warning", "check that the scan is complete and shows the same part of the body"
    ),
    "duplicate": FindingKind("warning", "keep one of them"),
    "duplicate-across-splits": FindingKind(
        "error", "keep one of them, or give both the same patient and split"
    ),
    "patient-in-two-splits": FindingKind("error", "put all cases of a patient into one split"),
    "study-in-two-splits": FindingKind(
        "error", "give both cases the same patient, and put them into one split"
    ),
    "dicom-patient-in-two-splits": FindingKind(
        "warning", "if the identifier is a person's, give the cases the same patient and split"
    ),
    "no-training-case": FindingKind("error", "fill the split column"),
    "no-validation-case": FindingKind(
        "warning", "give some patients the split val, or training keeps the last epoch"
    ),
}


@dataclass(frozen=True)
class Finding:
    """One thing about the data that someone should know before training.

    Attributes:
        case: Id of the case; None where it is about the whole set.
        severity: ``error`` where training would fail or learn something false, else ``warning``.
        code: A key of :data:`REGISTRY`; stays stable between releases.
        problem: What is so, with the value seen; one line.
        remedy: What to do about it; one line.
        refusal: Where a file could not be read: the reader's reason code (docs/refusals.md).
    """

    case: str | None
    severity: Severity
    code: str
    problem: str
    remedy: str
    refusal: str | None = None

    def __str__(self) -> str:
        place = "all cases" if self.case is None else self.case
        return f"{place}: {self.code}: {self.problem} → {self.remedy}"


def finding(
    code: str,
    problem: str,
    case: str | None,
    *,
    severity: Severity | None = None,
    remedy: str | None = None,
    refusal: str | None = None,
) -> Finding:
    """A finding of a kind, with that kind's severity and remedy unless others are given.

    What a file says may be quoted in ``problem``: it becomes one line without control characters.
    """
    kind = REGISTRY[code]
    text, advice = (" ".join(printable(part).split()) for part in (problem, remedy or kind.remedy))
    return Finding(case, severity or kind.severity, code, text, advice, refusal)


def refuse(findings: Iterable[Finding]) -> None:
    """Raises where errors are among the findings; what training asks before it begins.

    Raises:
        InputRefused: at least one error; the first is told (``data-errors``).
    """
    errors = [each for each in findings if each.severity == "error"]
    if errors:
        first = errors[0]
        more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
        raise InputRefused(
            f"{first.code}: {first.problem}{more}",
            where=first.case or "manifest",
            remedy=f"{first.remedy}; `medseg check MANIFEST --recipe RECIPE` tells all",
            reason="data-errors",
        )
