"""``medseg preview``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.options import Nonfinite, Series, Trust, VolumeNumber, choices_of
from medseg.errors import UsageError
from medseg.sidecar import RESEARCH, sidecar

if TYPE_CHECKING:
    from medseg.label import Label
    from medseg.volume import Mask


def preview(
    scan: Annotated[Path, typer.Argument(help="NIfTI, NRRD, MHA or DICOM folder.")],
    mask: Annotated[Path, typer.Argument(help="Its mask, in any format.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="PNG to write.")],
    recipe: Annotated[
        str | None, typer.Option(help="Of the mask: names of its labels, and its window.")
    ] = None,
    window: Annotated[
        str | None, typer.Option(help="Black and white, such as -1400,200; by the recipe or the scan.")
    ] = None,
    slices: Annotated[int, typer.Option(min=0, max=20, help="Axial slices in a row below.")] = 8,
    series: Series = None,
    volume: VolumeNumber = None,
    trust: Trust = None,
    nonfinite: Nonfinite = None,
) -> None:
    """Draw a mask over its scan: three planes and a row of slices, each label a contour."""
    from medseg.io import read_channels, read_mask
    from medseg.pictures import overlay

    choices = choices_of(series, volume, trust, nonfinite)
    (found,) = read_channels([scan], choices=choices)
    labels, limits = _of_recipe(recipe) if recipe else ((), None)
    drawn = read_mask(mask, labels, found)
    if not labels:
        drawn = _with_names(drawn, mask)
    overlay(found, drawn, output, window_hu=_limits(window) or limits, title=scan.name, slices=slices)
    print(output)
    print(RESEARCH, file=sys.stderr)


def _of_recipe(name: str) -> tuple[tuple[Label, ...], tuple[float, float] | None]:
    """Labels of its masks, and black and white where it has absolute units."""
    from medseg.recipe import Recipe, Window

    recipe = Recipe.read(name)
    intensity = recipe.prepare.intensity
    limits = (intensity.low_hu, intensity.high_hu) if isinstance(intensity, Window) else None
    return recipe.painted, limits


def _with_names(mask: Mask, path: Path) -> Mask:
    """The mask with the labels of the file beside it, or with one label a value."""
    from medseg.label import Label
    from medseg.volume import Mask

    if mask.labels:
        return mask
    named: dict[str, list[int]] = {}
    try:
        named = dict(json.loads(sidecar(path).read_text(encoding="utf-8"))["labels"])
    except (OSError, ValueError, KeyError, TypeError):
        import numpy as np

        named = {f"label_{value}": [int(value)] for value in np.unique(mask.array) if value}
    labels = tuple(Label(name=name, values=tuple(values)) for name, values in named.items())
    return Mask(mask.array, mask.grid, labels, mask.source)


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
        f"cannot read the window {text!r}", where="--window", remedy="write -1400,200", reason="usage"
    )
