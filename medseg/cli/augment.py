"""``medseg augment``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.options import DataRoot


def augment(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of a shipped recipe.")],
    manifest: Annotated[Path, typer.Argument(help="Cases: CSV, JSON, YAML, MSD or nnU-Net folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The PNG to write.")],
    case: Annotated[
        str | None, typer.Option("--case", help="Id of a case; by default the first of split train.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another patch, and other random changes of it.")] = 0,
    count: Annotated[int, typer.Option(min=2, max=64, help="How many pictures.")] = 16,
    data_root: DataRoot = None,
) -> None:
    """Draw a training patch with its labels as it is, and as a recipe's random changes make it."""
    from medseg.training.augmentation_preview import preview_augmentation

    made = preview_augmentation(recipe, manifest, output, case=case, seed=seed, count=count, root=data_root)
    print(f"wrote {made.path}: case {made.case}, {count - 1} random changes of one patch", file=sys.stderr)
