"""The series in a folder as a table to choose from, without patient data or free text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import InputRefused
from medseg.images.volume import Source
from medseg.io.dicom import part10
from medseg.io.dicom.acquisition import acquisition_of
from medseg.io.dicom.slice import Slice

# A description is free text, which may name the patient. These words of it say what was scanned and how;
# all other words, and numbers that could be dates or identifiers, are left out.
_VOCABULARY = """
abd abdomen abdominal adc angio art arterial ax axial b0 b1000 blade body bolus bone brain breath
cardiac chest contrast cor coronal ct cta ctpa delayed diff dixon dose dwi dynamic ed epi
equilibrium es expiration expiratory ext fast fat flair fs gre hals head heart hip hippocampus hrct
inspiration inspiratory iso kidney knee kopf late liver localizer low lung lunge lungs medi
mediastinum mip mpr mprage mr mra mrcp nativ native nc neck neuro opp out pa pancreas parenchyma
pelvis perfusion pet phase plain portal portalvenous post postcontrast pre precontrast prone
prostate pulmonary recon sag sagittal scout se sharp sinus skull smooth soft space spin spine
standard stir supine surview swi t1 t1w t2 t2w thick thin thorax thx tirm topogram tra trans
transverse tse ven venous vibe wb weichteil whole with without
"""
_WORDS = frozenset(_VOCABULARY.split())
_SIZE = re.compile(r"\d{1,2}([.,]\d{1,3})?(mm)?")
_PHASES = ("NominalPercentageOfCardiacPhase", "TemporalPositionIdentifier", "TemporalPositionIndex")
_NO_UID = "without a UID"
_SHORTEST_ENDING = 4


@dataclass(frozen=True)
class Series:
    """The image slices in a folder that share series, modality, size and orientation.

    Attributes:
        uid: SeriesInstanceUID; empty if the files have none.
        modality: Such as ``CT`` or ``MR``.
        slices: Number of slices: files, or frames of multi-frame files.
        shape: (columns, rows, slices).
        files: Sorted by name. No patient data and no free text is kept.
        number: The number that selects it with ``--series``, counted from 1.
        description: The words of SeriesDescription that say what was scanned, such as ``chest lung 1.0``;
            other words are left out, since they may name the patient.
        kernel: ConvolutionKernel, or None.
        thickness_mm: SliceThickness, or None.
        spacing_mm: PixelSpacing (between rows, between columns), or None.
        phase: Such as ``75 %`` or ``10 phases``; empty if the headers name none.
    """

    uid: str
    modality: str
    slices: int
    shape: tuple[int, int, int]
    files: tuple[Path, ...]
    number: int = 0
    description: str = ""
    kernel: str | None = None
    thickness_mm: float | None = None
    spacing_mm: tuple[float, ...] | None = None
    phase: str = ""

    def __str__(self) -> str:
        size = " x ".join(map(str, self.shape))
        return f"{self.uid or _NO_UID} ({self.modality}, {self.slices} slices, {size})"


def listed(groups: Sequence[Sequence[Slice]]) -> tuple[Series, ...]:
    """The groups of slices as series, with the numbers that select them.

    Groups of one UID, whose slices differ in size or orientation, share a number. Without a UID each
    group has its own.
    """
    numbers: dict[tuple[str, int], int] = {}
    found = []
    for index, group in enumerate(groups):
        key = (group[0].series, 0 if group[0].series else index + 1)
        found.append(_series(group, numbers.setdefault(key, len(numbers) + 1)))
    return tuple(found)


def chosen(series: Sequence[Series], wanted: str | int) -> list[Series]:
    """The series with a UID, a number of the list, or an ending of a UID, which several may share.

    A UID that equals ``wanted`` comes first, then a number from 1 to the last one, then endings.
    """
    wanted = str(wanted)
    exact = [one for one in series if wanted and one.uid == wanted]
    numbered = [one for one in series if wanted.isascii() and wanted.isdigit() and one.number == int(wanted)]
    return exact or numbered or [one for one in series if one.uid.endswith(wanted)]


def table(series: Sequence[Series]) -> tuple[str, ...]:
    """The series as lines of a table: what ``--series`` takes, and what tells one from another."""
    endings = _endings(series)
    rows = [("number", "end of UID", "description", "kernel", "thickness", "spacing", "slices", "phase")]
    for one, ending in zip(series, endings, strict=True):
        spacing = " x ".join(f"{value:.4g}" for value in one.spacing_mm or ()) or "unknown"
        thickness = "unknown" if one.thickness_mm is None else f"{one.thickness_mm:.4g} mm"
        rows.append(
            (
                str(one.number),
                ending,
                f"{one.modality} {one.description}".strip(),
                one.kernel or "-",
                thickness,
                spacing,
                str(one.slices),
                one.phase or "-",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return tuple("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def several(series: Sequence[Series], problem: str, reason: str) -> InputRefused:
    """The refusal that lists series to choose from, with the table as its details."""
    error = InputRefused(
        problem,
        reason=reason,
        remedy="choose one with --series, by its number or by the last digits of its UID "
        "(`medseg info FOLDER` shows the table)",
    )
    error.details = table(series)
    return error


def _endings(series: Sequence[Series]) -> list[str]:
    """The shortest ending of each UID, of at least four characters, that no other UID has."""
    uids = {one.uid for one in series}
    found = []
    for one in series:
        lengths = range(_SHORTEST_ENDING, len(one.uid) + 1)
        unique = (n for n in lengths if sum(uid.endswith(one.uid[-n:]) for uid in uids) == 1)
        found.append(one.uid[-next(unique, len(one.uid)) :] if one.uid else "-")
    return found


def _series(group: Sequence[Slice], number: int) -> Series:
    first = group[0]
    files = tuple(dict.fromkeys(one.path for one in group))
    facts = acquisition_of(Source(first.path, "dicom", first.modality, files=files[:1]))
    return Series(
        first.series,
        first.modality,
        len(group),
        (first.columns, first.rows, len(group)),
        files,
        number,
        _description(first.path),
        facts.kernel,
        facts.slice_thickness_mm,
        first.spacing_mm,
        _phase(group),
    )


def _description(path: Path) -> str:
    try:
        text = str(part10.header(path, ["SeriesDescription"]).get("SeriesDescription") or "")
    except Exception:  # the description is a help only; the reader names what is wrong with the file
        return ""
    words = re.split(r"[\s,;:/_()\[\]+-]+", text)
    return " ".join(word for word in words if word.lower() in _WORDS or _SIZE.fullmatch(word))


def _phase(group: Sequence[Slice]) -> str:
    for name in _PHASES:
        values = {value for one in group for mark, value in one.marks if mark == name}
        if len(values) > 1:
            return f"{len(values)} phases"
        if values and name == _PHASES[0]:
            return f"{values.pop()} %"
    return ""
