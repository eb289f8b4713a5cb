"""``medseg report``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.output import print_next
from medseg.errors import MedsegError
from medseg.system.notices import RESEARCH


def report(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Output folder of medseg batch, evaluate, train (also with --folds) or learn-curve."
        ),
    ],
    clinical: Annotated[
        Path | None,
        typer.Option(
            help="CSV table with one row per case (column case or id) or per patient, for measured lungs."
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(help="Column of --clinical with the groups to compare.", show_default="group"),
    ] = None,
    visit: Annotated[
        str | None,
        typer.Option(
            help="Column of --clinical with the visit or date, for paired plots.",
            show_default="visit or date",
        ),
    ] = None,
) -> None:
    """Make a self-contained HTML report of a batch, an evaluation or a training, worst cases first."""
    from medseg.reporting import report as write_report

    path = write_report(folder, clinical=clinical, group=group, visit=visit, progress=None)
    print(path)
    print(RESEARCH, file=sys.stderr)
    following = _next(folder)
    if following:
        print_next(*following)


def _next(folder: Path) -> tuple[object, ...]:
    """The command that usually follows the report of a folder; empty if none does."""
    from medseg.batch_processing.annotation_order import rank_cases

    if (folder / "model.safetensors").is_file():
        return "segment", "SCAN", "-o", "mask.nii.gz", "--model", folder / "model.safetensors"
    if (folder / "evaluation.csv").is_file():
        return "compare", folder / "evaluation.csv", "OTHER/evaluation.csv", "-o", "versus"
    if (folder / "learning_curve.csv").is_file():
        return "train", "RECIPE", "MANIFEST", "-o", "runs/first"
    try:
        rank_cases(folder)
    except MedsegError:  # a training without a model yet, or masks of a method without entropy
        return ()
    return "rank", folder
