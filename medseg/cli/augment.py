"""``medseg augment``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.argument_order import check_recipe_and_manifest
from medseg.cli.options import DataRoot
from medseg.cli.output import print_next
from medseg.system.atomic_write import check_folder


def augment(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of a shipped recipe.")],
    manifest: Annotated[
        Path, typer.Argument(help="Cases: a CSV, JSON or YAML file, or an MSD or nnU-Net folder.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="PNG file to write.")],
    case: Annotated[
        str | None,
        typer.Option("--case", help="Id of the case to draw.", show_default="the first training case"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed for the patch and its augmentations.")] = 0,
    count: Annotated[
        int, typer.Option(min=2, max=64, help="Number of pictures, the original included.")
    ] = 16,
    data_root: DataRoot = None,
) -> None:
    """Draw a training patch with its labels, before and after a recipe's random augmentations."""
    check_recipe_and_manifest(recipe, manifest)
    check_folder(output)
    from medseg.training.augmentation_preview import preview_augmentation

    made = preview_augmentation(recipe, manifest, output, case=case, seed=seed, count=count, root=data_root)
    print(
        f"wrote {made.path}: case {made.case}, one patch with {count - 1} random augmentations",
        file=sys.stderr,
    )
    print_next("train", recipe, manifest, "-o", "runs/first")
