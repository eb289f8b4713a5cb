"""``medseg check``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.argument_order import check_recipe_and_manifest
from medseg.cli.options import AsJson, DataRoot, SplitOrAll
from medseg.cli.output import print_next

if TYPE_CHECKING:
    from medseg.datasets.validation import CheckReport
    from medseg.system.progress import Advance


def check(
    manifest: Annotated[
        Path, typer.Argument(help="Cases: a CSV, JSON or YAML file, or an MSD or nnU-Net folder.")
    ],
    recipe: Annotated[
        str | None,
        typer.Option(help="Recipe to be trained: also check that labels, channels and modality fit it."),
    ] = None,
    split: Annotated[SplitOrAll, typer.Option(help="Check only the cases of this split.")] = "all",
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Open every scan and label of a manifest and report errors and warnings. Exits with 1 on errors."""
    check_recipe_and_manifest(recipe, manifest)
    from medseg.datasets.validation import check as check_cases

    only = None if split == "all" else split
    with _progress() as on_case:
        report = check_cases(manifest, recipe, root=data_root, split=only, progress=on_case)
    if as_json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        _show(report)
    if report.of("error"):
        raise typer.Exit(1)
    if recipe is None:
        print_next("check", manifest, "--recipe", "RECIPE")
    else:
        print_next("train", recipe, manifest, "-o", "runs/first")


def _show(report: CheckReport) -> None:
    for each in report.findings:
        print(f"{each.severity:7s}  {each}")
    for row in report.values:
        name = f" ({row.name})" if row.name else ""
        print(f"value {row.value}{name}: {row.voxels} voxels in {row.cases} of {report.cases} cases")
    counts = [
        f"{len(report.of(kind))} {kind}{'s' * (len(report.of(kind)) != 1)}" for kind in ("error", "warning")
    ]
    print(f"{report.cases} case{'s' * (report.cases != 1)}: {', '.join(counts)}")


@contextmanager
def _progress() -> Iterator[Advance]:
    """Shows a bar with n of m and the time left on a terminal, otherwise one line at the end; on stderr."""
    from medseg.system.progress import progress_bar

    if sys.stderr.isatty():
        with progress_bar("checking") as advance:
            yield advance
        return

    def on_case(done: int, cases: int, facts: str = "", /) -> None:
        if done == cases:
            print(f"opened {cases} cases", file=sys.stderr, flush=True)

    yield on_case
