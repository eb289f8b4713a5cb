"""``medseg learn-curve``."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.options import DataRoot, Device, seconds_of
from medseg.cli.output import print_next
from medseg.errors import UsageError
from medseg.system.output_folder import check_output_folder


def learn_curve(
    manifest: Annotated[
        Path, typer.Argument(help="Cases: a CSV, JSON or YAML file, with splits train and val.")
    ],
    recipe: Annotated[str, typer.Option(help="Recipe file, or the name of a shipped recipe.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Output folder; the same command continues it.")
    ],
    sizes: Annotated[str, typer.Option(help="Numbers of training cases to try, such as 2,4,8.")],
    data_root: DataRoot = None,
    max_time: Annotated[
        str | None, typer.Option(help="Time limit for each training, such as 40m, 2h or 90s.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that load data, per device.")] = 1,
    device: Device = "auto",
) -> None:
    """Train on more and more cases, and list each model's Dice on the same validation cases."""
    try:
        counts = [int(each) for each in sizes.split(",")]
    except ValueError:
        raise UsageError(
            f"--sizes {sizes!r} is not a list of whole numbers", remedy="such as 2,4,8", reason="usage"
        ) from None
    seconds = seconds_of(max_time)
    check_output_folder(output)
    from medseg.cross_validation.learning_curve import TABLE, learning_curve
    from medseg.datasets.manifest import Manifest
    from medseg.reporting.folder_report import report
    from medseg.training.hardware import Hardware
    from medseg.training.history import EpochEnd
    from medseg.training.options import TrainingOptions

    def show(size: int, end: EpochEnd) -> None:
        print(f"{size} cases, epoch {end.epoch}/{end.epochs}, loss {end.loss:.4f}", file=sys.stderr)

    table = learning_curve(
        recipe,
        Manifest.read(manifest, root=data_root),
        output,
        sizes=counts,
        hardware=Hardware(device, workers=workers),
        options=TrainingOptions(max_seconds=seconds),
        on_epoch=show,
    )
    for row in table.to_dict("records"):
        more = "" if math.isnan(row["gain"]) else f", {row['gain']:+.4f} to the smaller number"
        interval = f"95 % CI {row['dice_ci_low']:.4f} to {row['dice_ci_high']:.4f}; n = {row['n']}"
        print(f"{row['cases']} cases, {row['label']}: Dice {row['dice_mean']:.4f} ({interval}){more}")
    print(f"wrote {output / TABLE} and {report(output)}", file=sys.stderr)
    print_next("train", recipe, manifest, "-o", "runs/first")
