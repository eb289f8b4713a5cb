"""A picture of the measures of a scan's lungs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg.errors import UsageError
from medseg.io.foreign_images import MaskLike, ScanLike, as_volume
from medseg.io.read_options import DEFAULT_OPTIONS, ReadOptions
from medseg.measurement.lung_labels import SIDES, Kind
from medseg.measurement.measurement_table import Measurement
from medseg.measurement.scan_measurement import cut_lungs, on_scan
from medseg.system.atomic_write import check_folder, replacing
from medseg.visualization.lung_figure import LungFigure, draw_lung_figure
from medseg.visualization.mask_preview import named_mask
from medseg.visualization.overlays import Picture

_BELOW_HU = -950.0
_THRESHOLDS_HU = (-950.0, -910.0, -856.0, -600.0, -250.0)
_BARS = (
    "upper_third_by_volume",
    "middle_third_by_volume",
    "lower_third_by_volume",
    "ventral_half",
    "dorsal_half",
    "core",
    "rind",
)


def draw_measures(
    found: Measurement,
    scan: ScanLike,
    mask: MaskLike,
    output: str | Path | None = None,
    *,
    kind: Kind = "auto",
    recipe: str | Path | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
) -> Picture:
    """A PNG that a notebook displays: LAA-950 in colour, histograms with thresholds, and LAA-950 by region.

    Args:
        found: The measures of this scan and mask.
        scan: The scan, as for :func:`medseg.measure`.
        mask: Its mask.
        output: A PNG file to write as well.
        kind: As for :func:`medseg.measure`.
        recipe: As for :func:`medseg.measure`.
        options: How to read the scan when the file leaves a question open.

    Raises:
        UsageError: no lungs were measured (``measure``), or the folder is missing (``no-folder``).
        InputRefused: the scan or the mask cannot be read.

    Example:
        >>> found = medseg.measure("chest.nii.gz", "lungs.nii.gz")
        >>> medseg.draw_measures(found, "chest.nii.gz", "lungs.nii.gz")[1:4]
        b'PNG'
    """
    if not found.histograms:
        raise UsageError(
            "no lungs were measured, so there is nothing to draw",
            where="draw_measures",
            remedy="measure a mask of the lungs, or name it one with kind='lung'",
            reason="measure",
        )
    if output is not None:
        check_folder(Path(output))
    volume = as_volume(scan, options)
    cut = cut_lungs(volume, on_scan(named_mask(mask, volume, recipe), volume), kind)
    plane = int(np.count_nonzero(cut.sides, axis=(0, 2)).argmax())  # that with most lung
    figure = LungFigure(
        hu=cut.hu[:, plane] * float(str(found.fitness.get("hu_factor", 1.0))),
        lung=cut.sides[:, plane] > 0,
        pixel_mm=(cut.grid.spacing_mm[0], cut.grid.spacing_mm[2]),
        below_hu=_BELOW_HU,
        thresholds_hu=_THRESHOLDS_HU,
        histograms={name: (each.low, each.width, each.counts) for name, each in found.histograms.items()},
        bars={side: {part: found.of(side, part)["laa950_percent"] for part in _BARS} for side in SIDES},
        title=scan.name if isinstance(scan, Path) else "",
    )
    picture = draw_lung_figure(figure)
    if output is not None:
        with replacing(Path(output)) as fresh:
            fresh.write_bytes(picture)
    return picture
