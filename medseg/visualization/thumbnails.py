"""Small pictures of a scan and its mask: three planes side by side, a few kilobytes each.

They are stored as lines of JSON, ``{"case", "model", "image", "slices", "lung"}``, with pictures in base 64,
so that one file holds thousands. The slices are those of :mod:`medseg.visualization.case_slices`; ``lung``,
for measured lungs, is that of :mod:`medseg.visualization.lung_record`.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.images.palette import label_colour, rgb
from medseg.images.volume import PICTURE, Mask, Volume, members
from medseg.images.volume_text import volume_text
from medseg.system.html import render
from medseg.visualization.annotations import annotate
from medseg.visualization.planes import AXIAL, PLANES, coloured, fullest, grey_levels, inner_border

PIXELS = 176
LUNG_WINDOW_HU = (-1400.0, 200.0)
"""Level -600, width 1600: the usual lung window."""

_QUALITY = 72


def thumbnail(volume: Volume, mask: Mask | None = None, *, pixels: int = PIXELS) -> bytes:
    """A WebP picture of the axial, coronal and sagittal plane, with a coloured contour for each label.

    A scan of one plane is drawn once. Radiological view: the patient's right is on the left. Voxels have
    their physical aspect ratio. Each plane has the letters of its sides, and the first one a scale of 50 mm,
    but not those of pictures (PNG, JPEG, TIFF).

    Args:
        volume: The scan.
        mask: A mask on the same grid; the planes go through its largest areas, or without a mask through the
            middle of the scan.
        pixels: Height of the picture; less if the longest axis of the scan has fewer voxels.
    """
    # Without the plugin's import, saving WebP would first import those of all formats (0.2 s).
    from PIL import Image, WebPImagePlugin  # noqa: F401

    scan = volume.oriented("RAS")
    labels = None if mask is None else mask.oriented("RAS")
    limits, middle = window(volume), centre(labels, scan)
    planes = PLANES if scan.grid.shape[2] > 1 else (AXIAL,)
    height_mm = max(plane.size_mm(scan.grid)[1] for plane in planes)
    per_mm = min(pixels, max(scan.grid.shape)) / height_mm
    tiles: list[npt.NDArray[np.uint8]] = []
    for plane in planes:
        at = middle[plane.across]
        width, height = (max(1, round(mm * per_mm)) for mm in plane.size_mm(scan.grid))
        picture = Image.fromarray(grey_levels(plane.cut(scan.array, at), limits))
        tile = coloured(np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR)))
        if labels is not None:
            found = plane.cut(labels.array, at)
            for label in labels.labels:
                inside = Image.fromarray(members(found, label).astype(np.uint8))
                scaled = np.asarray(inside.resize((width, height), Image.Resampling.NEAREST))
                tile[inner_border(scaled > 0)] = rgb(label_colour(label))
        whole = Image.fromarray(tile)
        if volume.source.format != PICTURE:
            annotate(whole, plane, per_mm if plane is AXIAL else math.inf, size=11, ends=plane is not AXIAL)
        tiles.append(np.asarray(whole))
    tall = max(len(tile) for tile in tiles)
    padded = [np.pad(tile, ((0, tall - len(tile)), (0, 2), (0, 0))) for tile in tiles]
    out = io.BytesIO()
    Image.fromarray(np.concatenate(padded, axis=1)).save(out, "WEBP", quality=_QUALITY, method=2)
    return out.getvalue()


def window(volume: Volume) -> tuple[float, float]:
    """Black and white point: the lung window for CT, otherwise the 1st and 99th percentile."""
    if volume.source.modality == "CT" or float(volume.array.min()) <= -900:
        return LUNG_WINDOW_HU
    low, high = np.percentile(volume.array, (1, 99))
    return float(low), float(max(high, low + 1))


def centre(mask: Mask | None, scan: Volume) -> tuple[int, int, int]:
    """The slice along each axis with the most labelled voxels; the middle slice if there are none."""
    found = np.zeros(scan.grid.shape, np.bool_) if mask is None else mask.array > 0
    return fullest(found, 0), fullest(found, 1), fullest(found, 2)


def html_card(image: Volume | Mask) -> str:
    """The HTML that a notebook displays for a scan or a mask: a thumbnail and its main properties.

    Example:
        >>> medseg.html_card(medseg.read("chest.nii.gz")).count("<img")
        1
    """
    grid = image.grid
    facts = {
        "shape": " x ".join(map(str, grid.shape)),
        "spacing": " x ".join(f"{mm:.3g}" for mm in grid.spacing_mm) + " mm",
        "orientation": grid.axcodes,
    }
    if isinstance(image, Mask):
        facts |= {label: volume_text(ml) for label, ml in image.volumes_ml().items()}
        blank = Volume(np.broadcast_to(np.int16(-1000), grid.shape), grid)
        picture = thumbnail(blank, image)
    else:
        array = image.array
        facts |= {"values": f"{array.min():.4g} to {array.max():.4g}, {array.dtype}"}
        facts |= {"modality": image.source.modality} if image.source.modality else {}
        picture = thumbnail(image)
    return render(
        "medseg.visualization",
        "card.html",
        name=type(image).__name__,
        picture=encoded(picture),
        facts=facts,
    )


def line(
    case: str,
    model: str,
    image: str,
    slices: Sequence[Mapping[str, object]] = (),
    lung: Mapping[str, object] | None = None,
) -> str:
    """A line of the file; ``image`` is the result of :func:`encoded`."""
    record: dict[str, object] = {"case": case, "model": model, "image": image}
    record |= {"slices": list(slices)} if slices else {}
    record |= {"lung": dict(lung)} if lung else {}
    return json.dumps(record) + "\n"


def encoded(picture: bytes) -> str:
    """A picture as base 64."""
    return base64.b64encode(picture).decode()


def size(picture: str) -> tuple[int, int] | None:
    """Width and height of the result of :func:`encoded`; None if it is damaged or something else."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(base64.b64decode(picture)), formats=["WEBP"]) as image:
            return image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def read(paths: Iterable[Path]) -> dict[tuple[str, str], str]:
    """The last picture of each case and model, in base 64; incomplete lines are skipped."""
    return {key: record["image"] for key, record, _ in _records(paths)}


def places(paths: Iterable[Path]) -> dict[tuple[str, str], tuple[Path, int]]:
    """The file and the position in it of the last line of each case and model, for :func:`read_slices`."""
    return {key: place for key, _, place in _records(paths)}


def read_slices(place: tuple[Path, int]) -> list[dict[str, object]]:
    """The slices in one line of the file; empty if it has none, or one that is not whole.

    Returns:
        Objects with exactly the fields of :class:`medseg.visualization.case_slices.SlicePicture`.
    """
    slices = record_at(place).get("slices", [])
    kinds: dict[str, type | tuple[type, ...]] = {"number": int, "of": int, "mm": (int, float), "image": str}
    sound = isinstance(slices, list) and all(
        isinstance(each, dict)
        and each.keys() == kinds.keys()
        and all(isinstance(each[name], kind) for name, kind in kinds.items())
        for each in slices
    )
    return slices if sound else []


def record_at(place: tuple[Path, int]) -> dict[str, Any]:
    """The line at a place of :func:`places`."""
    path, start = place
    with path.open("rb") as file:
        file.seek(start)
        record: dict[str, Any] = json.loads(file.readline())
    return record


def _records(
    paths: Iterable[Path],
) -> Iterator[tuple[tuple[str, str], dict[str, str], tuple[Path, int]]]:
    """Case and model, the line, and its place; incomplete lines are skipped."""
    for path in paths:
        start = 0
        with path.open("rb") as file:
            for text in file:
                place, start = (path, start), start + len(text)
                try:
                    record = json.loads(text)
                    key = record["case"], record["model"]
                    if all(isinstance(each, str) for each in (*key, record["image"])):
                        yield key, record, place
                except (ValueError, KeyError, TypeError):
                    continue
