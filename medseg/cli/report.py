"""``medseg report``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from medseg.system.notices import RESEARCH


def report(
    folder: Annotated[
        Path, typer.Argument(help="Output folder of medseg batch, evaluate or train, also with --folds.")
    ],
) -> None:
    """Make a self-contained HTML report of a batch, an evaluation or a training, worst cases first."""
    from medseg.reporting import report as write_report

    path = write_report(folder, progress=None)
    print(path)
    print(RESEARCH, file=sys.stderr)
