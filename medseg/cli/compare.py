"""``medseg compare``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.options import AsJson
from medseg.cli.output import print_next
from medseg.system.output_folder import check_output_folder


def compare(
    evaluations: Annotated[list[Path], typer.Argument(help="evaluation.csv files of two or more models.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the tables.")],
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Metric: dice, iou, nsd, hd95_mm, ...; may be repeated.", show_default="dice"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare evaluations of the same cases: paired differences with intervals and tests."""
    check_output_folder(output)
    from medseg.evaluation.comparison import FEWEST_PATIENTS
    from medseg.evaluation.comparison import compare as compare_evaluations

    found = compare_evaluations(evaluations, tuple(metric or ("dice",)), output=output)
    summary = output / ("comparison.json" if as_json else "comparison.md")
    print(summary.read_text(encoding="utf-8"), end="")
    for _, row in found.left_out.iterrows():
        what = " ".join(part for part in (row["case"], row["label"], row["metric"]) if part)
        print(f"left out: {what}: {row['why']}", file=sys.stderr)
    if found.few_patients:
        print(
            f"warning: {found.few_patients} of {len(found.table)} tests have fewer than "
            f"{FEWEST_PATIENTS} patients with a difference; their p value cannot be below 0.05",
            file=sys.stderr,
        )
    print(f"wrote {output / 'comparison.csv'}", file=sys.stderr)
    print_next("report", evaluations[0].parent)
