"""``medseg import-weights``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.output import print_next
from medseg.system.atomic_write import check_folder
from medseg.system.notices import RESEARCH


def import_weights(
    weights: Annotated[Path, typer.Argument(help="PyTorch checkpoint (.pth, .pt, .ckpt).")],
    recipe: Annotated[
        str,
        typer.Option(
            help="Recipe that the weights were trained with: a file, or the name of a shipped recipe."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Model file to write (.safetensors).")],
) -> None:
    """Convert a PyTorch checkpoint to a model file. Reads tensors only; no code in it is run."""
    check_folder(output)
    from medseg.training.checkpoint_files import import_weights as import_checkpoint

    model = import_checkpoint(weights, recipe, output=output)
    print(f"wrote {output} (sha256 {model.digest[:12]}). {RESEARCH}")
    print_next("segment", "SCAN", "-o", "mask.nii.gz", "--model", output)
