"""``medseg demo``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.output import print_next
from medseg.system.notices import RESEARCH
from medseg.system.output_folder import check_output_folder


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")] = Path(
        "demo-out"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the phantom patient.")] = 2026,
) -> None:
    """Segment a phantom chest CT with known ground truth, from a DICOM series to a mask and a picture."""
    check_output_folder(output)
    from medseg.phantom.demo import run_demo

    result = run_demo(output, seed=seed)
    print(f"{'label':16s}{'Dice':>8s}{'found ml':>12s}{'truth ml':>12s}")
    for row in result.scores:
        print(f"{row.label:16s}{row.dice:8.3f}{row.volume_ml:12.1f}{row.truth_ml:12.1f}")
    print(f"wrote {result.mask} and {result.picture}. {RESEARCH}", file=sys.stderr)
    print_next("segment", "SCAN", "-o", "lungs.nii.gz")
