"""Axial slices of a scan with the contours of its mask, large enough to judge a contour."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from medseg.images.palette import label_colour, rgb
from medseg.images.volume import PICTURE, Mask, Volume, members
from medseg.visualization.annotations import annotate
from medseg.visualization.planes import AXIAL, coloured, grey_levels, inner_border
from medseg.visualization.thumbnails import encoded, window

COUNT, PIXELS = 12, 448
_MARGIN_MM = 20.0
_QUALITY = 70


class SlicePicture(TypedDict):
    """One slice, as a JSON object.

    Attributes:
        number: Number of the slice from the feet, starting at 1.
        of: Number of slices of the scan.
        mm: Height of the slice in the patient, in mm towards the head.
        image: WebP in base64.
    """

    number: int
    of: int
    mm: float
    image: str


def case_slices(
    volume: Volume, mask: Mask, *, count: int = COUNT, pixels: int = PIXELS
) -> tuple[SlicePicture, ...]:
    """Axial slices from head to feet, evenly spaced through the labelled region, with contours of the labels.

    Radiological view: the patient's right is on the left. Each picture shows the labelled region with a
    margin of 20 mm, with letters and a scale. With an empty mask the whole scan is shown.

    Args:
        volume: The scan.
        mask: A mask on the same grid.
        count: Number of slices at most.
        pixels: Longer side of a picture.
    """
    from PIL import Image

    scan, labels = volume.oriented("RAS"), mask.oriented("RAS")
    limits = window(volume)
    box = _region(labels)
    size = [(part.stop - part.start) * mm for part, mm in zip(box, scan.grid.spacing_mm, strict=True)][:2]
    per_mm = pixels / max(size)
    width, height = (max(1, round(mm * per_mm)) for mm in size)
    found: list[SlicePicture] = []
    for at in _spread(box[2], count):
        grey = grey_levels(AXIAL.cut(scan.array[box[:2]], at), limits)
        picture = Image.fromarray(grey).resize((width, height), Image.Resampling.BILINEAR)
        tile = coloured(np.asarray(picture))
        plane = AXIAL.cut(labels.array[box[:2]], at)
        for label in labels.labels:
            inside = members(plane, label)
            if inside.any():
                scaled = Image.fromarray(inside.astype(np.uint8))
                drawn = np.asarray(scaled.resize((width, height), Image.Resampling.NEAREST))
                tile[inner_border(drawn > 0, 2)] = rgb(label_colour(label))
        whole = Image.fromarray(tile)
        if volume.source.format != PICTURE:
            annotate(whole, AXIAL, per_mm, size=16)
        out = io.BytesIO()
        whole.save(out, "WEBP", quality=_QUALITY, method=2)
        mm = float((scan.grid.affine @ (0, 0, at, 1))[2])
        found.append(
            {
                "number": at + 1,
                "of": scan.grid.shape[2],
                "mm": round(mm, 1),
                "image": encoded(out.getvalue()),
            }
        )
    return tuple(found)


def _region(labels: Mask) -> tuple[slice, slice, slice]:
    """The labelled voxels of a mask in RAS order: with a margin in the plane, without one across it."""
    box = []
    labelled = np.asarray(labels.array) > 0
    for axis, (n, mm) in enumerate(zip(labels.grid.shape, labels.grid.spacing_mm, strict=True)):
        inside = np.flatnonzero(labelled.any(axis=tuple(a for a in range(3) if a != axis)))
        margin = round(_MARGIN_MM / mm) if axis < 2 else 0
        low, high = (inside[0], inside[-1] + 1) if len(inside) else (0, n)
        box.append(slice(max(0, int(low) - margin), min(n, int(high) + margin)))
    return box[0], box[1], box[2]


def _spread(part: slice, count: int) -> Sequence[int]:
    """Slices from the highest to the lowest, each in the middle of an equal part."""
    long = part.stop - part.start
    count = min(count, long)
    return [int(part.stop - 1 - (n + 0.5) * long / count + 0.5) for n in range(count)]
