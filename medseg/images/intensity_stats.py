"""Statistics of scans and masks, ready for JSON. Never patient data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from medseg.errors import InputRefused
from medseg.images.label import Label
from medseg.images.run_length import memory_order
from medseg.images.value_counts import VALUES, value_counts
from medseg.images.volume import Mask, Volume, Voxels, members

_PERCENT = (5, 50, 95)
_VOXELS_AT_ONCE = 1 << 22


def describe(volume: Volume) -> dict[str, Any]:
    """Format, grid and intensity range of a scan, as ``medseg info`` shows them.

    Example:
        >>> medseg.describe(medseg.read("chest.nii.gz"))["orientation"]
        'LPS'
    """
    array = volume.array
    return {
        "format": volume.source.format,
        "modality": volume.source.modality,
        "shape": list(volume.grid.shape),
        "spacing_mm": [round(s, 6) for s in volume.grid.spacing_mm],
        "orientation": volume.grid.axcodes,
        "affine": volume.grid.affine.tolist(),
        "dtype": str(array.dtype),
        "minimum": float(array.min()),
        "maximum": float(array.max()),
        "mean": round(float(array.mean(dtype=np.float64)), 4),
    }


def intensities(volume: Volume, mask: Mask) -> dict[str, dict[str, float | int | None]]:
    """Intensities of ``volume`` inside each label (HU for CT): voxels, mean, SD, 5th, 50th, 95th percentile.

    A label without voxels has None for all but ``voxels``.

    Raises:
        InputRefused: the mask does not have the scan's shape (``shape``).
    """
    if volume.grid.shape != mask.grid.shape:
        raise InputRefused(
            f"a mask of shape {mask.grid.shape} for a scan of shape {volume.grid.shape}",
            reason="shape",
            remedy="pass the mask of this scan",
        )
    table: dict[str, dict[str, float | int | None]] = {}
    for label in mask.labels:
        size, numbers = _of(volume.array, mask, label)
        row: dict[str, float | int | None] = {"voxels": size}
        names = ("mean", "sd", "p5", "p50", "p95")
        row |= {n: None if v is None else round(float(v), 4) for n, v in zip(names, numbers, strict=True)}
        table[label.name] = row
    return table


def _of(array: Voxels, mask: Mask, label: Label) -> tuple[int, Sequence[float | None]]:
    """Voxel count of a label, and mean, SD and percentiles; 16-bit integers are counted instead of sorted."""
    parts = _inside(array, mask, label)
    if array.dtype not in (np.int16, np.uint16, np.uint8):
        values = np.concatenate(list(parts))
        if not values.size:
            return 0, [None] * 5
        mean, sd = values.mean(dtype=np.float64), values.std(dtype=np.float64)
        return values.size, [mean, sd, *np.percentile(values, _PERCENT)]
    counts = np.zeros(VALUES, dtype=np.int64)
    for part in parts:
        counts += value_counts(part.view(np.uint16) if part.dtype.itemsize == 2 else part)
    numbers = np.arange(VALUES, dtype=np.uint16).view(np.int16 if array.dtype == np.int16 else np.uint16)
    order = np.argsort(numbers)
    order = order[counts[order] > 0]
    return int(counts.sum()), _of_counts(numbers[order].astype(np.int64), counts[order])


def _inside(array: Voxels, mask: Mask, label: Label) -> Iterator[Voxels]:
    """The values inside a label, one slab of slices at a time."""
    order = memory_order(array)
    values, labels = array.transpose(order), mask.array.transpose(order)
    many = max(1, _VOXELS_AT_ONCE // max(1, values[0].size))
    for first in range(0, len(values), many):
        part = slice(first, first + many)
        yield values[part][members(labels[part], label)]


def _of_counts(numbers: Voxels, counts: Voxels) -> Sequence[float | None]:
    """Mean, SD and percentiles of ascending numbers, each with its count."""
    size = int(counts.sum())
    if not size:
        return [None] * 5
    mean = float(counts @ numbers) / size
    sd = float(np.sqrt(counts @ (numbers - mean) ** 2 / size))
    # Interpolated between the neighbours of rank p (n - 1), like numpy's linear method.
    last = np.cumsum(counts) - 1
    ranks = np.asarray(_PERCENT) / 100 * (size - 1)
    below, above = (numbers[np.searchsorted(last, at(ranks))] for at in (np.floor, np.ceil))
    return [mean, sd, *(below + (above - below) * (ranks - np.floor(ranks)))]
