"""``medseg phantom``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def phantom(
    folder: Annotated[Path, typer.Argument(help="Folder for scans, truth and manifest.csv.")],
    cases: Annotated[int, typer.Option(min=1, help="Number of patients.")] = 10,
    seed: Annotated[
        int, typer.Option(min=0, help="Random seed of the first patient; each further patient adds 1.")
    ] = 0,
) -> None:
    """Write phantom patients with exact ground truth, to try training without any data."""
    from medseg.phantom.demo import make_phantom

    print(f"wrote {make_phantom(folder, cases, seed=seed)}")
