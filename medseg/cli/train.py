"""``medseg train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.options import DataRoot, seconds_of
from medseg.cli.output import RESEARCH
from medseg.cli.progress import Progress

if TYPE_CHECKING:
    pass


def train(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of a shipped recipe.")],
    manifest: Annotated[Path, typer.Argument(help="Cases: CSV, JSON, YAML, MSD or nnU-Net folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run.")],
    data_root: DataRoot = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of prepared cases; RUN/cache by default.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    max_time: Annotated[
        str | None,
        typer.Option(
            help="Stop at the end of the epoch after this time (40m, 2h, 90s), resumed parts counted in."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that augment patches.")] = 1,
) -> None:
    """Train a model from a recipe and a manifest."""
    seconds = seconds_of(max_time)
    from medseg.manifest import Manifest
    from medseg.recipe import Recipe

    chosen = Recipe.read(recipe)
    cases = Manifest.read(manifest, root=data_root).cases
    from medseg.training import train as run

    with Progress(chosen.train.epochs) as progress:
        model = run(
            chosen,
            cases,
            output,
            cache=cache,
            resume=resume,
            max_seconds=seconds,
            workers=workers,
            on_epoch=progress.show,
        )
    from medseg.report import history

    history(output / "history.csv", output / "history.png")
    print(f"wrote {output / 'model.safetensors'} (sha256 {model.digest[:12]}). {RESEARCH}")
