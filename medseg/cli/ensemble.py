"""``medseg ensemble``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.output import print_next
from medseg.system.atomic_write import check_folder
from medseg.system.notices import RESEARCH


def ensemble(
    models: Annotated[list[str], typer.Argument(help="Model files, or names listed by `medseg models`.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Model file to write (.safetensors).")],
    name: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
) -> None:
    """Combine models of the same labels in one model file, which averages their outputs."""
    check_folder(output)
    import medseg

    made = medseg.ensemble(models, output, name=name)
    parts = made.recipe.member_recipes()
    how = f"mean probabilities of {len(parts)} models" if parts else f"mean logits of {len(made.folds)} folds"
    print(f"wrote {output} (sha256 {made.digest[:12]}): {made.recipe.name}, {how}. {RESEARCH}")
    print_next("segment", "SCAN", "-o", "mask.nii.gz", "--model", output)
