"""``medseg phantom``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    pass


def phantom(
    folder: Annotated[Path, typer.Argument(help="Folder for scans, truth and manifest.csv.")],
    cases: Annotated[int, typer.Option(min=1, help="How many patients.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of the first patient; each has its own.")] = 0,
) -> None:
    """Write phantom patients with exact truth, to try training without any data."""
    from medseg.phantom.demo import make_phantom

    print(f"wrote {make_phantom(folder, cases, seed=seed)}")
