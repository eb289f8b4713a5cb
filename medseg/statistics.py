"""Plain numbers about scans and masks, ready for JSON. Never patient data."""

from __future__ import annotations

from typing import Any

import numpy as np

from medseg.volume import Mask, Volume, Voxels

_PERCENT = (5, 50, 95)


def describe(volume: Volume) -> dict[str, Any]:
    """What ``medseg info`` shows: format, grid and intensities of a scan."""
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
    """
    table: dict[str, dict[str, float | int | None]] = {}
    for label in mask.labels:
        values = volume.array[mask.of(label.name)]
        row: dict[str, float | int | None] = {"voxels": int(values.size)}
        names = ("mean", "sd", "p5", "p50", "p95")
        numbers = _of(values) if values.size else [None] * 5
        row |= {n: None if v is None else round(float(v), 4) for n, v in zip(names, numbers, strict=True)}
        table[label.name] = row
    return table


def _of(values: Voxels) -> list[float]:
    """Mean, SD, and percentiles 5, 50 and 95 as numpy's; of 16-bit integers exactly, without sorting."""
    if values.dtype not in (np.int16, np.uint16, np.uint8):
        return [values.mean(dtype=np.float64), values.std(dtype=np.float64), *np.percentile(values, _PERCENT)]
    counts = np.bincount(values.view(np.uint16) if values.dtype.itemsize == 2 else values)
    known = np.flatnonzero(counts)
    counts, numbers = counts[known], known
    if values.dtype == np.int16:
        numbers = known.astype(np.uint16).view(np.int16).astype(np.int64)
        order = np.argsort(numbers)
        counts, numbers = counts[order], numbers[order]
    mean = float(counts @ numbers) / values.size
    sd = float(np.sqrt(counts @ (numbers - mean) ** 2 / values.size))
    # Between the two neighbours of rank p (n - 1), as numpy's linear interpolation.
    last = np.cumsum(counts) - 1
    ranks = np.asarray(_PERCENT) / 100 * (values.size - 1)
    below, above = (numbers[np.searchsorted(last, at(ranks))] for at in (np.floor, np.ceil))
    return [mean, sd, *(below + (above - below) * (ranks - np.floor(ranks)))]
