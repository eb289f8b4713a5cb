"""Findings: single errors or oddities in the data, and the table of their kinds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from medseg.errors import InputRefused, printable

Severity: TypeAlias = Literal["error", "warning"]


class FindingKind(NamedTuple):
    """Severity and default remedy of all findings with the same code."""

    severity: Severity
    remedy: str


# docs/checks.md explains each of them; a test compares both.
REGISTRY: dict[str, FindingKind] = {
    # reading
    "missing-file": FindingKind(
        "error", "correct the path in the manifest, or give the folder of the data: --data-root"
    ),
    "image-unreadable": FindingKind("error", "export or download it again"),
    "label-unreadable": FindingKind("error", "export or download it again"),
    "not-finite": FindingKind("error", "replace these voxels and write the file again"),
    "label-values": FindingKind("error", "write the label map as whole numbers from 0 to 65535"),
    "reader-warning": FindingKind("warning", "check that the file is the intended one"),
    "read-as": FindingKind("warning", "check that this is what the pictures mean"),
    "channel-count": FindingKind(
        "error", "give one file for each channel of the recipe, or one 4D NIfTI file"
    ),
    "modality": FindingKind("error", "correct the scan in the manifest, or choose a recipe for its modality"),
    # geometry
    "channel-grid": FindingKind("error", "register and resample the channels to one grid"),
    "label-grid": FindingKind(
        "error",
        "resample the label onto the scan (nearest neighbour); if only its header is wrong, copy the scan's",
    ),
    # labels
    "no-label": FindingKind("error", "add its label to the manifest, or leave its split empty"),
    "label-empty": FindingKind(
        "warning", "check that the structures are really absent, and not just not annotated"
    ),
    "label-absent": FindingKind("warning", "if they were not annotated there, leave them out of `annotated`"),
    "unknown-values": FindingKind("warning", "correct the label, or the recipe's labels or ignore_value"),
    "annotated-name": FindingKind("warning", "use the names of the recipe"),
    "label-never": FindingKind(
        "error", "correct the values of the label in the recipe, or add cases that have it"
    ),
    "label-lost": FindingKind("warning", "choose a smaller prepare.spacing_mm in the recipe"),
    "lesions-lost": FindingKind(
        "warning", "choose a smaller prepare.spacing_mm in the recipe, unless these parts are specks"
    ),
    "label-lost-everywhere": FindingKind("error", "choose a smaller prepare.spacing_mm in the recipe"),
    # intensities
    "constant-image": FindingKind("error", "export the scan again, or leave the case out"),
    "constant-channel": FindingKind("warning", "check that this channel is meant to be empty"),
    "same-channels": FindingKind("warning", "correct the file of each channel in the manifest"),
    "hu-windowed": FindingKind("error", "convert the original DICOM series; HU cannot be recovered"),
    "hu-shifted": FindingKind(
        "error",
        "check that it is a CT; if so, apply the RescaleIntercept once: convert the original DICOM series",
    ),
    "hu-no-air": FindingKind(
        "warning", "unless the scan was cropped to the inside of the body, convert it again"
    ),
    "hu-no-tissue": FindingKind(
        "warning", "check that the rescale was applied exactly once and the unit is HU"
    ),
    # the set
    "orientation-outlier": FindingKind(
        "warning", "view it with its label; if they are correct, nothing needs to be done"
    ),
    "spacing-outlier": FindingKind("warning", "check the unit (mm) and the order of the axes"),
    "size-outlier": FindingKind(
        "warning", "check that the scan is complete and shows the same part of the body as the others"
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
        "warning", "if the PatientID identifies a person, give the cases the same patient and split"
    ),
    "no-training-case": FindingKind("error", "fill the split column"),
    "no-validation-case": FindingKind(
        "warning", "put some patients into split val; without them training keeps the last epoch"
    ),
}


@dataclass(frozen=True)
class Finding:
    """An error or an oddity in the data.

    Attributes:
        case: Id of the case; None for the whole set.
        severity: ``error`` if training would fail or learn something wrong, else ``warning``.
        code: Key of :data:`REGISTRY`; stable between releases.
        problem: What is wrong, with the value seen; one line.
        remedy: What to do about it; one line.
        refusal: The reader's reason code (docs/refusals.md) if a file could not be read.
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
    """A finding with the given code, and with the severity and remedy of its kind unless given.

    Problem and remedy become one line without control characters, so they may quote file contents.
    """
    kind = REGISTRY[code]
    text, advice = (" ".join(printable(part).split()) for part in (problem, remedy or kind.remedy))
    return Finding(case, severity or kind.severity, code, text, advice, refusal)


def refuse(findings: Iterable[Finding]) -> None:
    """Raises an error if there are errors among the findings; called before training starts.

    Raises:
        InputRefused: there is at least one error; the message has the first (``data-errors``).
    """
    errors = [each for each in findings if each.severity == "error"]
    if errors:
        first = errors[0]
        more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
        raise InputRefused(
            f"{first.code}: {first.problem}{more}",
            where=first.case or "manifest",
            remedy=f"{first.remedy}; `medseg check MANIFEST --recipe RECIPE` lists all findings",
            reason="data-errors",
        )
