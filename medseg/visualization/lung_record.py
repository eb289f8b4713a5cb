"""The picture and the numbers of a case's lungs that a report draws, as a JSON object of some kilobytes."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, TypeGuard

import numpy as np

from medseg.visualization.annotations import annotate
from medseg.visualization.lung_figure import LungFigure, attenuation_colours
from medseg.visualization.planes import CORONAL
from medseg.visualization.thumbnails import encoded, record_at

PIXELS = 448
_QUALITY = 80
_MOST_BINS = 10_000


class HistogramRecord(TypedDict):
    """A histogram: lower edge and width of its bins in HU, and the voxels in each."""

    low: float
    width: float
    counts: list[float]


class LungRecord(TypedDict):
    """What a report draws of the lungs of a case.

    Attributes:
        image: One coronal plane with low attenuation in colour, WebP in base64.
        below_hu: What is coloured, and the share in the bars.
        histograms: By structure, such as ``right_lung``.
        bars: Percentages of the voxels below that threshold, by side and part of the lung.
        methods: A paragraph for a methods section, as Markdown.
    """

    image: str
    below_hu: float
    histograms: dict[str, HistogramRecord]
    bars: dict[str, dict[str, float | None]]
    methods: str


def lung_record(figure: LungFigure, *, methods: str = "", pixels: int = PIXELS) -> LungRecord:
    """The record of a figure.

    Args:
        figure: What it shows.
        methods: A paragraph for a methods section.
        pixels: Longer side of the picture.
    """
    from PIL import Image

    colours = attenuation_colours(figure)
    size_mm = [n * mm for n, mm in zip(figure.hu.shape, figure.pixel_mm, strict=True)]
    per_mm = pixels / max(size_mm)
    width, height = (max(1, round(mm * per_mm)) for mm in size_mm)
    # Nearest neighbour: a mixture of grey and colour would be no voxel of the scan.
    picture = Image.fromarray(colours).resize((width, height), Image.Resampling.NEAREST)
    annotate(picture, CORONAL, per_mm, size=14)
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=_QUALITY, method=2)
    return {
        "image": encoded(out.getvalue()),
        "below_hu": float(figure.below_hu),
        "histograms": {
            name: {"low": low, "width": width_hu, "counts": np.asarray(counts).tolist()}
            for name, (low, width_hu, counts) in figure.histograms.items()
        },
        "bars": {side: dict(parts) for side, parts in figure.bars.items()},
        "methods": methods,
    }


def read_lung_record(place: tuple[Path, int]) -> LungRecord | None:
    """The record in a line of the thumbnails; None without one, or with one that is not whole.

    Args:
        place: File and position, see :func:`medseg.visualization.thumbnails.places`.
    """
    value = record_at(place).get("lung")
    return value if is_lung_record(value) else None


def is_lung_record(value: object) -> TypeGuard[LungRecord]:
    """Whether a JSON value has exactly the fields of a `LungRecord`, with finite numbers."""
    if not isinstance(value, dict) or value.keys() != LungRecord.__annotations__.keys():
        return False
    histograms, bars = value["histograms"], value["bars"]
    return (
        isinstance(value["image"], str)
        and isinstance(value["methods"], str)
        and _is_number(value["below_hu"])
        and isinstance(histograms, dict)
        and all(map(_is_histogram, histograms.values()))
        and isinstance(bars, dict)
        and all(isinstance(parts, dict) and all(map(_is_share, parts.values())) for parts in bars.values())
    )


def _is_histogram(value: Any) -> bool:
    if not isinstance(value, Mapping) or value.keys() != HistogramRecord.__annotations__.keys():
        return False
    counts = value["counts"]
    return (
        _is_number(value["low"])
        and _is_number(value["width"])
        and value["width"] > 0
        and isinstance(counts, list)
        and 0 < len(counts) <= _MOST_BINS
        and all(_is_number(each) and each >= 0 for each in counts)
    )


def _is_share(value: Any) -> bool:
    return value is None or (_is_number(value) and 0 <= value <= 100)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
