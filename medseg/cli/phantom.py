"""``medseg phantom``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.output import print_next
from medseg.system.output_folder import check_output_folder


def phantom(
    folder: Annotated[Path, typer.Argument(help="Folder for scans, truth and manifest.csv.")],
    cases: Annotated[int, typer.Option(min=1, help="Number of patients.")] = 10,
    seed: Annotated[
        int, typer.Option(min=0, help="Random seed of the first patient; each further patient adds 1.")
    ] = 0,
) -> None:
    """Write phantom patients with exact ground truth, to try training without any data."""
    check_output_folder(folder)
    from medseg.phantom.demo import make_phantom

    made = make_phantom(folder, cases, seed=seed)
    print(f"wrote {made}")
    print_next("check", made, "--recipe", "phantom_lungs")
