"""``medseg manifest``."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from medseg.errors import UsageError


def manifest(
    source: Annotated[Path, typer.Argument(help="Folder of scans and labels, or a manifest to divide anew.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Manifest to write: .csv, .json, .yaml.")],
    layout: Annotated[
        str | None,
        typer.Option(help="dataset.json, bids, totalsegmentator, lidc, dicom or pairs; else by looking."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Folder of the labels, which have the names of the images.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the manifest; the folder's by default.")] = None,
    val: Annotated[float, typer.Option(min=0, max=0.99, help="Share of patients to validate on.")] = 0.0,
    test: Annotated[float, typer.Option(min=0, max=0.99, help="Share of patients to test on.")] = 0.0,
    folds: Annotated[
        int, typer.Option(min=0, help="Or so many folds: one manifest each, OUTPUT_fold0 and so on.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Decides which patients.")] = 0,
) -> None:
    """Make a manifest from a folder of scans and labels, divided by patient."""
    from medseg.layouts import manifest_of, pairs
    from medseg.manifest import Manifest, with_splits
    from medseg.manifest import folds as folded

    if folds and (val or test):
        raise UsageError("give --folds, or --val and --test", where="medseg manifest", reason="usage")
    if labels is not None:
        found = pairs.named(source, labels)
        made = Manifest(name or source.resolve().name, found.cases, source)
        for path in found.alone:
            print(f"warning: {path}: it has no partner, and is left out", file=sys.stderr)
    elif source.is_dir():
        made = manifest_of(source, layout, name=name, made=output.parent / f"{output.stem}_labels")
    else:
        made = Manifest.read(source)
    if val or test:
        made = with_splits(made, val=val, test=test, seed=seed)
    written = [made.write(output)] if not folds else [
        each.write(output.with_name(f"{output.stem}_fold{number}{output.suffix}"))
        for number, each in enumerate(folded(made, folds, seed))
    ]  # fmt: skip
    counts = Counter(case.split or "no split" for case in made.cases)
    told = ", ".join(f"{count} {split}" for split, count in sorted(counts.items()))
    patients = len({case.patient for case in made.cases})
    print(f"{len(made.cases)} cases of {patients} patients: {told}")
    for path in written:
        print(f"wrote {path}", file=sys.stderr)
