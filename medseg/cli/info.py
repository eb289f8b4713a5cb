"""``medseg info``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.options import AsJson, Nonfinite, Series, Trust, VolumeNumber, choices_of

if TYPE_CHECKING:
    pass


def info(
    scan: Annotated[Path, typer.Argument(help="Any readable scan.")],
    series: Series = None,
    volume: VolumeNumber = None,
    trust: Trust = None,
    nonfinite: Nonfinite = None,
    as_json: AsJson = False,
) -> None:
    """Show what a scan is: grid, orientation, intensities. Never patient data."""
    from medseg.images.intensity_stats import describe
    from medseg.io import read_channels

    facts = describe(*read_channels([scan], choices=choices_of(series, volume, trust, nonfinite)))
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        for name, value in facts.items():
            print(f"{name:14s} {'not said' if value is None else value}")
