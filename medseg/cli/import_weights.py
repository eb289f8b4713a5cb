"""``medseg import-weights``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.errors import UsageError
from medseg.io.sidecar import RESEARCH

if TYPE_CHECKING:
    pass


def import_weights(
    weights: Annotated[Path, typer.Argument(help="PyTorch checkpoint (.pth, .pt, .ckpt).")],
    recipe: Annotated[str, typer.Option(help="What it was trained with: recipe file or shipped name.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Model file to write (.safetensors).")],
) -> None:
    """Take over the weights of a PyTorch checkpoint, as tensors only: nothing in it is run."""
    if output.suffix != ".safetensors":
        raise UsageError("a model file ends in .safetensors", where=output, reason="format")
    from medseg.recipe import Recipe
    from medseg.system.atomic_write import check_folder

    check_folder(output)
    chosen = Recipe.read(recipe)
    from medseg.training.checkpoint_files import import_weights as imported

    model = imported(weights, chosen)
    model.save(output)
    print(f"wrote {output} (sha256 {model.digest[:12]}). {RESEARCH}")
