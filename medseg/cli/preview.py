"""``medseg preview``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from medseg.cli.argument_order import scan_before_mask
from medseg.cli.early_checks import check_scans
from medseg.cli.options import Nonfinite, Series, Trust, VolumeNumber, choices_of, words_of
from medseg.cli.output import print_next, print_notice
from medseg.errors import UsageError
from medseg.io.read_options import ReadOptions
from medseg.system.atomic_write import check_folder
from medseg.system.notices import RESEARCH


def preview(
    scan: Annotated[Path, typer.Argument(help="NIfTI, NRRD or MHA file, or DICOM folder.")],
    mask: Annotated[Path, typer.Argument(help="Mask of the scan, in any supported format.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="PNG file to write.")],
    recipe: Annotated[
        str | None, typer.Option(help="Recipe with the label names and the display window.")
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(
            help="Display window LOW,HIGH (CT: in HU), such as -1400,200.",
            show_default="from the recipe or the scan",
        ),
    ] = None,
    slices: Annotated[int, typer.Option(min=0, max=20, help="Number of axial slices in the bottom row.")] = 8,
    measure: Annotated[
        Literal["lung"] | None,
        typer.Option(
            help="lung: draw lung measures instead: low attenuation in colour, histograms with thresholds, "
            "and LAA-950 by region."
        ),
    ] = None,
    width: Annotated[
        int, typer.Option(min=300, max=10_000, help="With --measure lung: width in pixels.")
    ] = 1280,
    series: Series = None,
    volume: VolumeNumber = None,
    trust: Trust = None,
    nonfinite: Nonfinite = None,
) -> None:
    """Draw the contours of a mask over its scan: three planes and a row of slices."""
    limits = _limits(window)
    check_folder(output)
    check_scans([scan, mask])
    from medseg.visualization.mask_preview import preview as draw

    options = choices_of(series, volume, trust, nonfinite)
    with scan_before_mask(scan, mask):
        if measure:
            _draw_lungs(scan, mask, output, recipe, width, options)
        else:
            draw(
                scan,
                mask,
                output,
                recipe=recipe,
                window_hu=limits,
                slices=slices,
                title=scan.name,
                options=options,
            )
    print(output)
    print(RESEARCH, file=sys.stderr)
    print_next("view", scan, mask, *words_of(options))


def _draw_lungs(
    scan: Path, mask: Path, output: Path, recipe: str | None, width_px: int, options: ReadOptions
) -> None:
    from medseg.io.overwrite_guard import OverwriteGuard, is_own_picture
    from medseg.measurement.measure_picture import draw_measures
    from medseg.measurement.scan_measurement import measure

    OverwriteGuard([scan, mask]).check(output, is_own=is_own_picture)
    found = measure(scan, mask, kind="lung", recipe=recipe, options=options)
    draw_measures(found, scan, mask, output, kind="lung", recipe=recipe, width_px=width_px, options=options)
    for notice in found.notices:
        print_notice(notice)


def _limits(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
        if low < high:
            return low, high
    except ValueError:
        pass
    raise UsageError(
        f"invalid window {text!r}",
        where="--window",
        remedy="write LOW,HIGH, such as -1400,200",
        reason="usage",
    )
