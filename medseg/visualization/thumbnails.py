"""Small pictures of a scan and its mask: three planes side by side, in some kilobytes.

Kept as lines of JSON, ``{"case", "model", "image"}`` with the picture in base 64: one file for thousands.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medseg.images.palette import colour_of, rgb
from medseg.images.volume import Mask, Volume, Voxels
from medseg.system.html import render

PIXELS = 176
LUNG_WINDOW_HU = (-1400.0, 200.0)
"""Level -600, width 1600: the usual lung window."""

_QUALITY = 72
# Axis that is cut, axis to the left and axis up, of arrays in RAS order: +x is the patient's right and
# is shown on the left, as radiologists look; a sagittal plane has the front on the left.
_PLANES = ((2, 0, 1), (1, 0, 2), (0, 1, 2))


def thumbnail(volume: Volume, mask: Mask | None = None, *, pixels: int = PIXELS) -> bytes:
    """A WebP picture: axial, coronal and sagittal plane, each label a contour of its colour.

    Radiological view: the patient's right is on the left. Voxels have their physical aspect ratio.

    Args:
        volume: The scan.
        mask: On the same grid; the planes go through where most is labelled, else through the middle.
        pixels: Height of the picture; planes with fewer voxels are not enlarged.
    """
    from PIL import Image

    scan = volume.oriented("RAS")
    labels = None if mask is None else mask.oriented("RAS")
    shape, spacing = scan.grid.shape, scan.grid.spacing_mm
    low, high = window(volume)
    sizes_mm = [n * mm for n, mm in zip(shape, spacing, strict=True)]
    height_mm = max(sizes_mm[1], sizes_mm[2])
    per_mm = min(pixels, max(shape)) / height_mm
    tiles: list[npt.NDArray[np.uint8]] = []
    for (across, left, up), at in ((plane, centre(labels, scan)[plane[0]]) for plane in _PLANES):
        size = max(1, round(sizes_mm[left] * per_mm)), max(1, round(sizes_mm[up] * per_mm))
        grey = np.clip((_plane(scan.array, across, at).astype(np.float32) - low) / (high - low), 0, 1)
        picture = Image.fromarray((255 * grey).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
        tile = np.repeat(np.asarray(picture)[..., None], 3, axis=2)
        for number, label in enumerate(labels.labels if labels else ()):
            assert labels is not None
            inside = np.isin(_plane(labels.array, across, at), label.values)
            scaled = np.asarray(
                Image.fromarray(inside.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
            )
            tile = tile.copy()
            tile[_border(scaled > 0)] = rgb(colour_of(number))
        tiles.append(tile)
    tall = max(len(tile) for tile in tiles)
    padded = [np.pad(tile, ((0, tall - len(tile)), (0, 2), (0, 0))) for tile in tiles]
    out = io.BytesIO()
    Image.fromarray(np.concatenate(padded, axis=1)).save(out, "WEBP", quality=_QUALITY, method=2)
    return out.getvalue()


def window(volume: Volume) -> tuple[float, float]:
    """Black and white point: the lung window for CT, else the 1st and 99th percentile."""
    if volume.source.modality == "CT" or float(volume.array.min()) <= -900:
        return LUNG_WINDOW_HU
    low, high = np.percentile(volume.array, (1, 99))
    return float(low), float(max(high, low + 1))


def centre(mask: Mask | None, scan: Volume) -> tuple[int, int, int]:
    """For each axis the slice with the most labelled voxels; the middle slice without any."""
    middle = [n // 2 for n in scan.grid.shape]
    if mask is not None and mask.array.any():
        found = mask.array > 0
        middle = [
            int(np.argmax(found.sum(axis=tuple(a for a in range(3) if a != axis)))) for axis in range(3)
        ]
    x, y, z = middle
    return x, y, z


def html_card(image: Volume | Mask) -> str:
    """How a notebook shows a scan or a mask: a thumbnail and what there is to say of it, as HTML."""
    grid = image.grid
    facts = {
        "shape": " x ".join(map(str, grid.shape)),
        "spacing": " x ".join(f"{mm:.3g}" for mm in grid.spacing_mm) + " mm",
        "orientation": grid.axcodes,
    }
    if isinstance(image, Mask):
        facts |= {label: f"{ml:.1f} ml" for label, ml in image.volumes_ml().items()}
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


def line(case: str, model: str, image: str) -> str:
    """A line of the file, with the picture as :func:`encoded` gives it."""
    return json.dumps({"case": case, "model": model, "image": image}) + "\n"


def encoded(picture: bytes) -> str:
    """A picture as text."""
    return base64.b64encode(picture).decode()


def read(paths: Iterable[Path]) -> dict[tuple[str, str], str]:
    """The last picture of each case and model, in base 64; unfinished lines are left out."""
    found = {}
    for path in paths:
        with path.open(encoding="utf-8", errors="replace") as file:
            for text in file:
                try:
                    record = json.loads(text)
                    if isinstance(record["image"], str):
                        found[record["case"], record["model"]] = record["image"]
                except (ValueError, KeyError, TypeError):
                    continue
    return found


def _plane(array: Voxels, across: int, at: int) -> Voxels:
    """One plane as rows (from the top) and columns (from the left of the picture)."""
    plane: Voxels = np.moveaxis(array, across, 0)[at].T[::-1, ::-1]
    return plane


def _border(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The pixels of a region that have a neighbour outside; the picture's edge is outside."""
    border: npt.NDArray[np.bool_] = inside & ~ndimage.binary_erosion(inside)
    return border
