"""``medseg compare``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.options import AsJson
from medseg.errors import UsageError


def compare(
    evaluations: Annotated[list[Path], typer.Argument(help="evaluation.csv of two or more models.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the tables.")],
    metric: Annotated[
        list[str] | None, typer.Option(help="dice (the default), iou, nsd, hd95_mm, ...; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare evaluations of the same cases: paired differences, their intervals and tests."""
    from medseg import compare as comparison
    from medseg import tables

    names = [path.stem if path.stem != "evaluation" else path.resolve().parent.name for path in evaluations]
    if len(set(names)) < len(names):
        names = [str(path) for path in evaluations]
    if len(set(names)) < len(names):
        raise UsageError("an evaluation is given twice", where="medseg compare", reason="usage")
    frames = {name: comparison.read(path) for name, path in zip(names, evaluations, strict=True)}
    found = comparison.compare(frames, tuple(metric or ("dice",)))
    output.mkdir(parents=True, exist_ok=True)
    comparison.write(found, output)
    print(tables.as_json(found.table) if as_json else found.table.to_string(index=False))
    for _, row in found.left_out.iterrows():
        print(f"left out: {row['case']} {row['label']}: {row['why']}", file=sys.stderr)
    if found.table["pairs"].max() < comparison.FEWEST_PAIRS:
        print(
            f"warning: under {comparison.FEWEST_PAIRS} pairs no p can come below 0.05",
            file=sys.stderr,
        )
    print(f"wrote {output / 'comparison.csv'}", file=sys.stderr)
