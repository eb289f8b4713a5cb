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
    from medseg.evaluation import comparison

    names = _names(evaluations)
    frames = {name: comparison.read(path) for name, path in zip(names, evaluations, strict=True)}
    found = comparison.compare(frames, tuple(metric or ("dice",)))
    output.mkdir(parents=True, exist_ok=True)
    comparison.write(found, output)
    told = output / ("comparison.json" if as_json else "comparison.md")
    print(told.read_text(encoding="utf-8"), end="")
    for _, row in found.left_out.iterrows():
        what = " ".join(part for part in (row["case"], row["label"], row["metric"]) if part)
        print(f"left out: {what}: {row['why']}", file=sys.stderr)
    few = int((found.table["pairs"] - found.table["equal"] < comparison.FEWEST_PAIRS).sum())
    if few:
        print(
            f"warning: {few} of {len(found.table)} tests have under {comparison.FEWEST_PAIRS} pairs that "
            "differ; their p cannot come below 0.05",
            file=sys.stderr,
        )
    print(f"wrote {output / 'comparison.csv'}", file=sys.stderr)


def _names(paths: list[Path]) -> list[str]:
    """What tells the files apart: their own names, or a folder's; the paths as given where neither does."""
    places = [path.resolve().with_suffix("").parts[::-1] for path in paths]
    if len(set(places)) < len(places):
        raise UsageError("an evaluation is given twice", where="medseg compare", reason="usage")
    for names in zip(*places, strict=False):  # the files, then their folders
        if len(set(names)) == len(names):
            return list(names)
    return [str(path) for path in paths]
