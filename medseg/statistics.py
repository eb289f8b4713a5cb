"""Plain numbers about scans and masks, ready for JSON. Never patient data."""

from __future__ import annotations

from typing import Any

import numpy as np

from medseg.volume import Mask, Volume


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
        numbers = [None] * 5
        if values.size:
            percentiles = np.percentile(values, (5, 50, 95))
            numbers = [values.mean(dtype=np.float64), values.std(dtype=np.float64), *percentiles]
        row |= {n: None if v is None else round(float(v), 4) for n, v in zip(names, numbers, strict=True)}
        table[label.name] = row
    return table
