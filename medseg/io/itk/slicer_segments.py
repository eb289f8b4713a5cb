"""Segmentations of 3D Slicer (.seg.nrrd): label maps whose header names the segments and their values.

The header has the lines ``SegmentN_Name``, ``SegmentN_LabelValue``, ``SegmentN_Layer`` and, with the coded
terms, ``SegmentN_Tags``; segments that overlap lie in layers, along a first axis of the kind ``list``. Values
follow the order of drawing, so that only names and terms say what they mean (Slicer:
Modules/Loadable/Segmentations, vtkMRMLSegmentationStorageNode).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import InputRefused
from medseg.images.grid import Grid
from medseg.images.intensity_stats import describe as describe_volume
from medseg.images.label import Label
from medseg.images.volume import Mask, Source, Volume, Voxels
from medseg.io.dicom.coded_terms import Meaning, Term
from medseg.io.dicom.segments import Painting, Segment
from medseg.io.error_context import refusing
from medseg.io.itk import read_layers, text_header

_TERMINOLOGY, _TERMINOLOGY_PARTS = "TerminologyEntry:", 7
_LINE = re.compile(rb"^Segment(\d{1,5})_(Name|LabelValue|Layer|Tags):=(.*?)\r?$", re.MULTILINE)


@dataclass(frozen=True)
class StoredSegment:
    """A segment as the header describes it.

    Attributes:
        number: Its place in the header, from 1.
        name: Its name; may be empty.
        value: Its value in its layer.
        layer: The layer it lies in, from 0.
        meaning: Its coded meaning, if one was chosen.
    """

    number: int
    name: str
    value: int
    layer: int
    meaning: Meaning | None


def stored_segments(path: Path) -> tuple[StoredSegment, ...]:
    """The segments that the header of an NRRD file describes; empty for any other label map.

    Raises:
        InputRefused: a value or layer is not a number (``unreadable``).
    """
    fields: dict[int, dict[str, str]] = {}
    for number, key, value in _LINE.findall(text_header.header_bytes(path)):
        fields.setdefault(int(number), {})[key.decode()] = value.decode("utf-8", "replace").strip()
    try:
        return tuple(
            StoredSegment(
                number + 1,
                each.get("Name", ""),
                int(each.get("LabelValue", "1")),
                int(each.get("Layer", "0")),
                _meaning(each.get("Tags", "")),
            )
            for number, each in sorted(fields.items())
        )
    except ValueError as error:
        raise InputRefused(
            f"the header's segments are damaged: {error}",
            where=path,
            reason="unreadable",
            remedy="save the segmentation again with 3D Slicer",
        ) from error


def _meaning(tags: str) -> Meaning | None:
    """The meaning in ``key:value|key:value|...``; None if no term was chosen, or one that DICOM cannot hold.

    The value of ``TerminologyEntry`` is ``list~category~type~modifier~list~region~modifier``, each term
    ``scheme^code^meaning`` (Slicer: vtkSlicerTerminologiesModuleLogic).
    """
    entry = next((tag for tag in tags.split("|") if tag.strip().startswith(_TERMINOLOGY)), "")
    parts = [_term(part) for part in entry.split("~")] + [None] * _TERMINOLOGY_PARTS
    _, category, kind, modifier, _, region, side = parts[:_TERMINOLOGY_PARTS]
    if category is None or kind is None:
        return None
    return Meaning(
        category,
        kind,
        (modifier,) if modifier else (),
        region,
        (side,) if region and side else (),
    )


def _term(text: str) -> Term | None:
    scheme, value, words = [part.strip() for part in (*text.split("^"), "", "")][:3]
    term = Term(value, words, scheme)
    return term if term.is_valid else None


def list_segments(path: Path) -> tuple[Segment, ...]:
    """The segments named in the header, each with its value in a label map that is read without labels."""
    stored = stored_segments(path)
    values = [each.value for each in stored]
    if len(set(values)) < len(values) or not all(1 <= value <= 65535 for value in values):
        values = [each.number for each in stored]  # values repeat from layer to layer
    return tuple(
        Segment(each.number, each.name, value, each.meaning)
        for each, value in zip(stored, values, strict=True)
    )


def describe(path: Path) -> dict[str, Any]:
    """The facts of :func:`medseg.describe` over the stored values of all layers, with two more.

    These are the numbers of ``layers`` and ``segments``; names are free text, which may hold patient data.

    Raises:
        InputRefused: as :func:`read_layers`.
    """
    with refusing(path, "NRRD file"):
        layers, grid = read_layers(path)
    each = [describe_volume(Volume(layer, grid, Source(path, "nrrd"))) for layer in layers]
    return each[0] | {
        "minimum": min(facts["minimum"] for facts in each),
        "maximum": max(facts["maximum"] for facts in each),
        "mean": round(sum(float(layer.mean(dtype=np.float64)) for layer in layers) / len(layers), 4),
        "layers": len(layers),
        "segments": len(stored_segments(path)),
    }


def read(path: Path, labels: Sequence[Label]) -> Mask:
    """The segments of the file as a label map.

    Args:
        path: A file for which :func:`stored_segments` finds segments.
        labels: The segments to read, by name, whatever their values; all segments if empty.

    Raises:
        InputRefused: segments that overlap in a way the labels do not allow (``overlapping-segments``), a
            label without a segment (``no-such-segment``), a voxel of no segment or a layer that is not there
            (``unreadable``), or as :func:`medseg.io.itk.read_nrrd`.
    """
    with refusing(path, "NRRD file"):
        stored = stored_segments(path)
        layers, grid = read_layers(path)
        painting = Painting(grid.shape, list_segments(path), labels, path)
        for number, layer in enumerate(layers):
            _check_values(layer, [each.value for each in stored if each.layer == number])
        for each in stored:
            if not 0 <= each.layer < len(layers):
                raise _damaged(f"segment {each.number} is in layer {each.layer}, but there are {len(layers)}")
            if painting.wants(each.number):
                _paint(painting, each, layers[each.layer], grid)
        mask = painting.mask(grid)
    return Mask(mask.array, mask.grid, mask.labels, Source(path, "nrrd"))


def _paint(painting: Painting, segment: StoredSegment, layer: Voxels, grid: Grid) -> None:
    for k in range(grid.shape[2]):
        region = layer[:, :, k] == segment.value
        if region.any():
            painting.add(segment.number, (slice(None), slice(None), k), region)


def _check_values(layer: Voxels, known: list[int]) -> None:
    unknown = sorted({int(value) for value in np.unique(layer)} - {0, *known})
    if unknown:
        raise _damaged(f"values without a segment: {', '.join(map(str, unknown[:8]))}")


def _damaged(problem: str) -> InputRefused:
    return InputRefused(
        f"the header does not describe the voxels: {problem}",
        reason="unreadable",
        remedy="save the segmentation again with 3D Slicer",
    )
