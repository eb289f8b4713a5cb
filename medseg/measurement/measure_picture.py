"""A picture of the measures of a scan's lungs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg.errors import UsageError
from medseg.images.volume import Mask, Volume
from medseg.io.foreign_images import MaskLike, ScanLike, as_volume
from medseg.io.read_options import DEFAULT_OPTIONS, ReadOptions
from medseg.measurement.lung_labels import SIDES, Kind
from medseg.measurement.measurement_table import Measurement
from medseg.measurement.regions import RIND_MM
from medseg.measurement.scan_measurement import cut_lungs, on_scan
from medseg.system.atomic_write import check_folder, replacing
from medseg.visualization.lung_figure import LungFigure, draw_lung_figure
from medseg.visualization.mask_preview import named_mask
from medseg.visualization.overlays import Picture

_BELOW_HU = -950.0
THRESHOLDS_HU = (-950.0, -910.0, -856.0, -600.0, -250.0)
"""Lines in histograms: LAA-950, LAA-910, air trapping, and the range of HAA."""

PARTS_SHOWN = (
    "upper_third_by_volume",
    "middle_third_by_volume",
    "lower_third_by_volume",
    "ventral_half",
    "dorsal_half",
    "core",
    "rind",
)
"""Parts of the lungs in charts, in their order."""


def draw_measures(
    found: Measurement,
    scan: ScanLike,
    mask: MaskLike,
    output: str | Path | None = None,
    *,
    kind: Kind = "auto",
    recipe: str | Path | None = None,
    width_px: int = 1280,
    options: ReadOptions = DEFAULT_OPTIONS,
) -> Picture:
    """A PNG that a notebook displays: LAA-950 in colour, histograms with thresholds, and LAA-950 by region.

    Radiological view: the patient's left is on the right of the picture.

    Args:
        found: The measures of this scan and mask.
        scan: The scan, as for :func:`medseg.measure`.
        mask: Its mask.
        output: A PNG file to write as well.
        kind: As for :func:`medseg.measure`.
        recipe: As for :func:`medseg.measure`.
        width_px: Width of the picture, 300 to 10,000 pixels. Below 900 its parts stand one below the other.
        options: How to read the scan when the file leaves a question open.

    Raises:
        UsageError: no lungs were measured or the width is out of range (``measure``), or the folder is
            missing (``no-folder``).
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
    if not 300 <= width_px <= 10_000:
        raise UsageError(
            f"a picture {width_px} pixels wide",
            where="width_px",
            remedy="give a width from 300 to 10000 pixels, such as 1280",
            reason="measure",
        )
    if output is not None:
        check_folder(Path(output))
    volume = as_volume(scan, options)
    title = Path(scan).name if isinstance(scan, str | Path) else ""
    named = on_scan(named_mask(mask, volume, recipe), volume)
    picture = draw_lung_figure(lung_figure(found, volume, named, kind=kind, title=title), width_px)
    if output is not None:
        with replacing(Path(output)) as fresh:
            fresh.write_bytes(picture)
    return picture


def lung_figure(
    found: Measurement, scan: Volume, mask: Mask, *, kind: Kind = "auto", title: str = ""
) -> LungFigure:
    """What a picture of measures shows: the coronal plane with most lung, histograms and shares by region.

    Args:
        found: The measures of this scan and mask, with lungs.
        scan: The CT.
        mask: On the same grid.
        kind: As for :func:`medseg.measure`.
        title: Heading.
    """
    cut = cut_lungs(scan, mask, kind)
    plane = int(np.count_nonzero(cut.sides, axis=(0, 2)).argmax())
    return LungFigure(
        hu=cut.hu[:, plane] * float(str(found.fitness.get("hu_factor", 1.0))),
        lung=cut.sides[:, plane] > 0,
        pixel_mm=(cut.grid.spacing_mm[0], cut.grid.spacing_mm[2]),
        below_hu=_BELOW_HU,
        thresholds_hu=THRESHOLDS_HU,
        histograms={name: (each.low, each.width, each.counts) for name, each in found.histograms.items()},
        bars={side: {part: found.of(side, part)["laa950_percent"] for part in PARTS_SHOWN} for side in SIDES},
        rind_mm=float(found.settings.get("rind_mm", RIND_MM)),
        title=title,
    )
