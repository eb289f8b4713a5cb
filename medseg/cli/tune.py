"""``medseg tune``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.argument_order import check_recipe_and_manifest
from medseg.cli.options import DataRoot, Device, seconds_of
from medseg.cli.output import print_next
from medseg.system.output_folder import check_output_folder

if TYPE_CHECKING:
    from medseg.tuning.tuner import TrialEvent

_QUICK_TRIALS, _TRIALS = 6, 20


def tune(
    manifest: Annotated[
        Path,
        typer.Argument(help="Cases with the splits train and val: a CSV, JSON or YAML file, or a folder."),
    ],
    recipe: Annotated[str, typer.Option("--recipe", help="Recipe to vary: a file, or a shipped one's name.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Output folder; run the command again to continue in it.")
    ],
    space: Annotated[
        Path | None,
        typer.Option(
            help="YAML file of the fields to vary, such as train.learning_rate: "
            "{low: 1e-4, high: 1e-2, log: true}.",
            show_default="learning rate, augmentation and a few more",
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Number of trials in total.", show_default="20; 6 with --quick")
    ] = None,
    time: Annotated[
        str | None,
        typer.Option("--time", help="Time limit of this command, such as 6h; run it again to continue."),
    ] = None,
    max_time: Annotated[
        str | None,
        typer.Option(help="Time limit for the training of each trial, such as 40m, 2h or 90s."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Number of trials at a time, each in its own process.")
    ] = 1,
    quick: Annotated[
        bool, typer.Option("--quick", help="Use few steps and few cases, for a first answer within minutes.")
    ] = False,
    storage: Annotated[
        str | None,
        typer.Option(
            envvar="MEDSEG_TUNE_STORAGE",
            show_envvar=True,
            help="Where the study is kept: a .sqlite or .journal file, or the URL of a database, which "
            "machines may share.",
            show_default="study.sqlite in the output folder",
        ),
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="Name of the study in the storage.", show_default="the recipe's name")
    ] = None,
    data_root: DataRoot = None,
    device: Device = "auto",
) -> None:
    """Search for a better recipe by many short trainings, and test whether the best one beats yours."""
    check_recipe_and_manifest(recipe, manifest)
    limit, each = seconds_of(time), seconds_of(max_time)
    check_output_folder(output)
    from medseg.datasets.manifest import Manifest
    from medseg.recipe import Recipe
    from medseg.tuning.search_space import SearchSpace

    given = Recipe.read(recipe)
    # Mistakes in both are named before the large imports.
    chosen = None if space is None else SearchSpace.read(space, given)
    from medseg.tuning.tuner import TuningOptions
    from medseg.tuning.tuner import tune as search

    count = trials if trials is not None else _QUICK_TRIALS if quick else _TRIALS
    try:
        result = search(
            Manifest.read(manifest, root=data_root),
            output,
            recipe=given,
            space=chosen,
            trials=count,
            options=TuningOptions(workers, limit, each, quick, storage, study, device),
            on_event=_show,
        )
    except KeyboardInterrupt:
        print(
            "stopped: the same command continues, each trial after its last finished epoch", file=sys.stderr
        )
        raise
    ended = int((result.table["outcome"] != "running").sum()) if len(result.table) else 0
    if ended < count:
        print(f"{ended} of {count} trials have ended: the same command continues", file=sys.stderr)
    print(result.verdict)
    for name in ("best.yaml", "trials.csv", "summary.html"):
        if (output / name).is_file():
            print(f"wrote {output / name}")
    if result.best is not None:
        print_next("train", output / "best.yaml", manifest, "-o", output / "best")


def _show(event: TrialEvent) -> None:
    """Prints what happened to a trial on stderr, one line."""
    said = {
        "started": "started",
        "continued": "continues after its last finished epoch",
        "epoch": f"epoch {event.epoch}, validation Dice {event.dice or 0:.4f}",
        "finished": f"finished, Dice {event.dice or 0:.4f}",
        "pruned": "stopped early: below the median of the others at the same epoch",
        "failed": f"failed: {event.why}",
        "died": f"its process ended by {event.why}: it is started again",
    }
    print(f"trial {event.trial}: {said[event.kind]}", file=sys.stderr, flush=True)
