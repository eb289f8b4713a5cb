"""``medseg view``."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.argument_order import scan_before_mask
from medseg.cli.options import Nonfinite, Series, Trust, VolumeNumber, choices_of
from medseg.system.notices import RESEARCH


def view(
    scan: Annotated[Path, typer.Argument(help="NIfTI, NRRD or MHA file, or DICOM folder.")],
    masks: Annotated[list[Path] | None, typer.Argument(help="One mask, or two to compare.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe with the names of the masks' labels.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to serve on; 0 takes any free port.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the browser, or only print the address.")] = True,
    series: Series = None,
    volume: VolumeNumber = None,
    trust: Trust = None,
    nonfinite: Nonfinite = None,
) -> None:
    """Show a scan and its masks in the browser: three planes and 3D, on this machine only."""
    from medseg.visualization.viewer.browser import open_in_browser, serve_viewer

    options = choices_of(series, volume, trust, nonfinite)
    with (
        scan_before_mask(scan, masks[0]) if masks else nullcontext(),
        serve_viewer(scan, *(masks or []), recipe=recipe, port=port, options=options) as server,
    ):
        print(server.url, flush=True)
        print(f"Press Ctrl-C to stop. {RESEARCH}", file=sys.stderr)
        with open_in_browser(server) if browser else nullcontext():
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                return
