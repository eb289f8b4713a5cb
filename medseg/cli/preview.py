"""``medseg preview``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.argument_order import scan_before_mask
from medseg.cli.early_checks import check_scans
from medseg.cli.options import Nonfinite, Series, Trust, VolumeNumber, choices_of
from medseg.errors import UsageError
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
            help="Display window LOW,HIGH, such as -1400,200. [default: from the recipe or the scan]"
        ),
    ] = None,
    slices: Annotated[int, typer.Option(min=0, max=20, help="Number of axial slices in the bottom row.")] = 8,
    series: Series = None,
    volume: VolumeNumber = None,
    trust: Trust = None,
    nonfinite: Nonfinite = None,
) -> None:
    """Draw the contours of a mask over its scan: three planes and a row of slices."""
    limits = _limits(window)
    check_scans([scan, mask])
    from medseg.visualization.mask_preview import preview as draw

    options = choices_of(series, volume, trust, nonfinite)
    with scan_before_mask(scan, mask):
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
