"""``medseg manifest``."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.errors import UsageError

if TYPE_CHECKING:
    from medseg.datasets.manifest import Manifest


def manifest(
    source: Annotated[Path, typer.Argument(help="Folder of scans and labels, or a manifest to divide anew.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Manifest to write: .csv, .json, .yaml.")],
    layout: Annotated[
        str | None,
        typer.Option(
            help="dataset.json, bids, totalsegmentator, lidc, dicom, dicom-seg, dicom-rtstruct or pairs; "
            "else by looking."
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Folder of the labels, which have the names of the images.")
    ] = None,
    organs: Annotated[
        str | None,
        typer.Option(help="Of TotalSegmentator, into one label map: heart,aorta (1, 2), or heart=1,aorta=1."),
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="Take the cases whose id is like this: 'coronacases_*'.")
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
    from medseg.datasets.splits import folds as folded
    from medseg.datasets.splits import with_splits

    _refuse_mixtures(source, layout, labels, organs, divided=bool(folds and (val or test)))
    made = _made(source, output, layout, labels, organs)
    if name:
        made = replace(made, name=name)
    if only:
        made = replace(made, cases=tuple(case for case in made.cases if fnmatchcase(case.id, only)))
    if val or test:
        made = with_splits(made, val=val, test=test, seed=seed)
    parts = folded(made, folds, seed) if folds else (made,)
    places = (
        [output.with_name(f"{output.stem}_fold{n}{output.suffix}") for n in range(folds)]
        if folds
        else [output]
    )
    written = [part.write(place) for part, place in zip(parts, places, strict=True)]
    patients = len({case.patient for case in made.cases})
    print(f"{len(made.cases)} cases of {patients} patients: {_splits(parts[0])}")
    if source.is_dir() and made.description:
        print(made.description, file=sys.stderr)
    for path in written:
        print(f"wrote {path}", file=sys.stderr)


def _refuse_mixtures(
    source: Path, layout: str | None, labels: Path | None, organs: str | None, *, divided: bool
) -> None:
    if divided:
        raise UsageError("give --folds, or --val and --test", where="medseg manifest", reason="usage")
    if labels is not None and (layout or organs):
        raise UsageError("--labels is a layout of its own", where="medseg manifest", reason="usage")
    if not source.is_dir() and (labels or layout or organs):
        raise UsageError("--labels, --layout and --organs are for folders", where=source, reason="usage")


def _made(
    source: Path, output: Path, layout: str | None, labels: Path | None, organs: str | None
) -> Manifest:
    from medseg.datasets.layouts import manifest_of, named
    from medseg.datasets.layouts.totalsegmentator import values_of
    from medseg.datasets.manifest import Manifest

    if labels is not None:
        return named(source, labels)
    if source.is_dir():
        beside = output.parent / f"{output.stem}_labels"
        return manifest_of(source, layout, made=beside, organ_values=values_of(organs) if organs else None)
    return Manifest.read(source)


def _splits(manifest: Manifest) -> str:
    counts = Counter(case.split or "no split" for case in manifest.cases)
    return ", ".join(f"{count} {split}" for split, count in sorted(counts.items()))
