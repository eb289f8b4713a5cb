"""Combining the segments of a file into a label map: names, values and overlaps."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medseg.errors import InputRefused, UsageError
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.value_counts import value_counts
from medseg.images.volume import Mask
from medseg.io.dicom.coded_terms import Meaning, coded, plain
from medseg.system.notices import notify

# LO of PS3.5 6.2: at most 64 characters, no backslash, no control characters.
_NAME_LENGTH = 64
_VALUE = re.compile(r"Label value (\d{1,5})")
_MOST_SETS = 65535


@dataclass(frozen=True)
class Segment:
    """One segment of a SEG, or one region (ROI) of an RTSTRUCT.

    Attributes:
        number: SegmentNumber or ROINumber.
        name: SegmentLabel or ROIName; may be empty.
        value: Its integer in a label map that is read without labels: the label's value if
            medseg wrote the file, otherwise the segment number if that is a valid value.
        meaning: Its coded meaning, if the file gives one.
    """

    number: int
    name: str
    value: int
    meaning: Meaning | None = field(default=None, compare=False)


def numbered(found: Sequence[tuple[int, str, str]]) -> tuple[Segment, ...]:
    """The segments of (number, name, description), each with its value."""
    matches = [_VALUE.fullmatch(description) for _, _, description in found]
    values = [int(match[1]) if match else 0 for match in matches]
    for choice in (values, [number for number, _, _ in found], range(1, len(found) + 1)):
        if len(set(choice)) == len(found) and all(1 <= value <= 65535 for value in choice):
            values = list(choice)
            break
    return tuple(Segment(n, name, value) for (n, name, _), value in zip(found, values, strict=True))


def described(label: Label) -> str:
    """The description of a written segment, from which :func:`numbered` recovers the label's value."""
    return f"Label value {label.value}"


def written_labels(mask: Mask) -> tuple[Label, ...]:
    """The labels to write: the mask's own, and ``value 7`` for every value without a label.

    Raises:
        UsageError: a name that DICOM cannot hold (``label-name``), or no label (``labels``).
    """
    known = {value for label in mask.labels for value in label.values}
    others = [int(v) for v in np.flatnonzero(value_counts(mask.array)) if v and v not in known]
    extra = tuple(Label(name=f"value {v}", values=(v,)) for v in others)
    for label in mask.labels:
        if len(label.name) > _NAME_LENGTH or "\\" in label.name or not label.name.isprintable():
            raise UsageError(
                f"DICOM cannot hold the label name {label.name!r}",
                where="labels",
                remedy=f"use at most {_NAME_LENGTH} characters, without backslash and control characters",
                reason="label-name",
            )
    if not (mask.labels or extra):
        raise UsageError(
            "the mask has neither labels nor voxels, so there is nothing to write",
            where="labels",
            remedy="name its labels: --recipe NAME",
            reason="labels",
        )
    return (*mask.labels, *extra)


class Painting:
    """A label map under construction that records the set of segments of every voxel.

    Args:
        shape: Shape of the label map.
        segments: All segments of the file.
        labels: The labels wanted; empty for all segments under their own names and values.
        path: The file, for messages.

    Raises:
        InputRefused: a label has no segment, and a segment no label (``no-such-segment``).
    """

    def __init__(
        self, shape: tuple[int, int, int], segments: Sequence[Segment], labels: Sequence[Label], path: Path
    ) -> None:
        self.path = path
        self._label_of = (
            _matched(segments, labels, path)
            if labels
            else {segment.number: n for n, segment in enumerate(segments)}
        )
        meanings = {self._label_of[s.number]: s.meaning for s in segments if s.number in self._label_of}
        chosen = tuple(labels) or _own_labels(segments)
        self.labels = tuple(coded(label, meanings.get(n)) for n, label in enumerate(chosen))
        self._left_out: set[int] = set()
        self._sets: dict[frozenset[int], int] = {frozenset(): 0}
        self._state: npt.NDArray[np.uint16] = np.zeros(shape, np.uint16, order="F")

    def wants(self, number: int) -> bool:
        """Whether a segment belongs to a label."""
        return number in self._label_of

    def leave_out(self, numbers: Iterable[int]) -> None:
        """Drops the labels of segments that have not been added."""
        self._left_out |= {self._label_of[number] for number in numbers}

    def add(self, number: int, at: tuple[slice | int, ...], region: npt.NDArray[np.bool_]) -> None:
        """Puts a segment's voxels, ``region`` of the part ``at``, on the map."""
        part = self._state[at]
        before = part[region]
        sets, label = list(self._sets), self._label_of[number]
        lookup: npt.NDArray[np.uint16] = np.zeros(len(sets), np.uint16)
        for old in np.flatnonzero(np.bincount(before, minlength=1)):
            both = sets[old] | {label}
            if both not in self._sets and len(self._sets) > _MOST_SETS:
                raise self._overlapping(both, 1)
            lookup[old] = self._sets.setdefault(both, len(self._sets))
        part[region] = lookup[before]

    def mask(self, grid: Grid) -> Mask:
        """The label map.

        A voxel in several segments gets the value that belongs to exactly their labels (a
        lesion inside a lung); a voxel in one segment gets the value of its label.

        Raises:
            InputRefused: no label has such a value (``overlapping-segments``).
        """
        values: npt.NDArray[np.uint16] = np.zeros(len(self._sets), np.uint16)
        for members, number in self._sets.items():
            if members:
                value = self._value(members)
                count = int(np.count_nonzero(self._state == number)) if value is None else 0
                if count:
                    raise self._overlapping(members, count)
                values[number] = value or 0
        painted = np.empty_like(self._state, np.uint8 if values.max() < 256 else np.uint16)
        for k in range(painted.shape[2]):  # slice by slice: numpy makes 8 bytes of each index
            painted[:, :, k] = values[self._state[:, :, k]]
        kept = tuple(label for n, label in enumerate(self.labels) if n not in self._left_out)
        return Mask(painted, grid, kept)

    def _value(self, members: frozenset[int]) -> int | None:
        for value in self.labels[min(members)].values:
            if {n for n, label in enumerate(self.labels) if value in label.values} == members:
                return value
        return self.labels[next(iter(members))].value if len(members) == 1 else None

    def _overlapping(self, members: frozenset[int], count: int) -> InputRefused:
        numbers = sorted(n for n, label in self._label_of.items() if label in members)
        return InputRefused(
            f"{count} voxel(s) are in several segments at once (numbers {', '.join(map(str, numbers))}), "
            "but a label map holds one value per voxel",
            where=self.path,
            reason="overlapping-segments",
            remedy="pass labels (--recipe) in which one lies inside the other, or that name only one of them",
        )


def _own_labels(segments: Sequence[Segment]) -> tuple[Label, ...]:
    counts = Counter(segment.name for segment in segments)
    names = [
        s.name if s.name and counts[s.name] == 1 else f"{s.name or 'segment'} {s.number}" for s in segments
    ]
    return tuple(Label(name=n, values=(s.value,)) for n, s in zip(names, segments, strict=True))


def _matched(segments: Sequence[Segment], labels: Sequence[Label], path: Path) -> dict[int, int]:
    """The label index of each segment number, matched by name.

    Segments without a label are left out if every label is found. A label without a segment
    is empty if every segment has a label; otherwise it may be there under another name.
    """
    place = {plain(label.name): n for n, label in enumerate(labels)}
    found = {s.number: place[plain(s.name)] for s in segments if plain(s.name) in place}
    absent = [label.name for n, label in enumerate(labels) if n not in found.values()]
    others = len(segments) - len(found)
    if absent and others:
        raise InputRefused(
            f"no segment is named {', '.join(absent[:8])}, but {others} of {len(segments)} have no label: "
            "empty, or under another name?",
            where=path,
            reason="no-such-segment",
            remedy="name the labels like the segments, which medseg.io.list_segments lists",
        )
    if absent:
        notify("segment-absent", f"no segment is named {', '.join(absent[:8])}; assumed empty", path=path)
    return found
