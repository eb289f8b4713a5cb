"""``medseg info``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.early_checks import check_scans
from medseg.cli.options import AsJson, Nonfinite, Series, Trust, VolumeNumber, choices_of


def info(
    scan: Annotated[Path, typer.Argument(help="Scan in any supported format.")],
    series: Series = None,
    volume: VolumeNumber = None,
    trust: Trust = None,
    nonfinite: Nonfinite = None,
    as_json: AsJson = False,
) -> None:
    """Show the grid, orientation and intensities of a scan. Never prints patient data."""
    check_scans([scan])
    from medseg.io.scan_info import info as info_of

    facts = info_of(scan, options=choices_of(series, volume, trust, nonfinite))
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        for name, value in facts.items():
            print(f"{name:14s} {'unknown' if value is None else value}")
