"""``medseg import-weights``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg.errors import UsageError
from medseg.io.sidecar import RESEARCH


def import_weights(
    weights: Annotated[Path, typer.Argument(help="PyTorch checkpoint (.pth, .pt, .ckpt).")],
    recipe: Annotated[
        str, typer.Option(help="Recipe it was trained with: a file, or the name of a shipped recipe.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Model file to write (.safetensors).")],
) -> None:
    """Convert a PyTorch checkpoint to a model file. Reads tensors only; no code in it is run."""
    if output.suffix != ".safetensors":
        raise UsageError("the name of a model file must end in .safetensors", where=output, reason="format")
    from medseg.recipe import Recipe
    from medseg.system.atomic_write import check_folder

    check_folder(output)
    chosen = Recipe.read(recipe)
    from medseg.training.checkpoint_files import import_weights as imported

    model = imported(weights, chosen)
    model.save(output)
    print(f"wrote {output} (sha256 {model.digest[:12]}). {RESEARCH}")
