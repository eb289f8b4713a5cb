"""``medseg info``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from medseg.cli.early_checks import check_scans
from medseg.cli.options import AsJson, Nonfinite, PixelMm, Series, Trust, VolumeNumber, choices_of
from medseg.cli.output import print_next
from medseg.errors import InputRefused, printable
from medseg.system.quiet_libraries import import_nibabel


def info(
    scan: Annotated[Path, typer.Argument(help="Scan in any supported format.")],
    series: Series = None,
    volume: VolumeNumber = None,
    trust: Trust = None,
    nonfinite: Nonfinite = None,
    pixel_mm: PixelMm = None,
    as_json: AsJson = False,
) -> None:
    """Show the grid, orientation and intensities of a scan, or the series in a folder.

    Never prints patient data: of a series' description only words such as "chest lung 1.0" are shown.
    """
    check_scans([scan])
    import_nibabel()
    from medseg.io.scan_info import info as info_of

    try:
        facts = info_of(scan, options=choices_of(series, volume, trust, nonfinite, pixel_mm))
    except InputRefused as error:
        if error.reason != "several-series" or series is not None:
            raise
        _print_series(scan, error.details, as_json=as_json)
        return
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        for name, value in facts.items():
            print(f"{name:14s} {'unknown' if value is None else value}")
        print_next("segment", scan, *(["--series", series] if series else []), "-o", "mask.nii.gz")


def _print_series(scan: Path, lines: tuple[str, ...], *, as_json: bool) -> None:
    if not as_json:
        print("\n".join(map(printable, lines)))
        print_next("info", scan, "--series", 1)
        return
    from medseg.io import list_series

    found: list[dict[str, Any]] = [asdict(one) for one in list_series(scan)]
    for one in found:
        one["files"] = len(one["files"])
    print(json.dumps({"series": found}, indent=2))
