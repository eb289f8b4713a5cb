"""``medseg manifest``."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.output import print_next
from medseg.system.atomic_write import check_folder

if TYPE_CHECKING:
    from medseg.datasets.manifest import Manifest


def manifest(
    source: Annotated[Path, typer.Argument(help="Folder of scans and labels, or a manifest to split again.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Manifest to write (.csv, .json or .yaml).")],
    layout: Annotated[
        str | None,
        typer.Option(
            help="Folder layout: dataset.json, bids, totalsegmentator, lidc, dicom, dicom-seg, "
            "dicom-rtstruct or pairs.",
            show_default="detected",
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Folder with the labels, named like the images.")
    ] = None,
    organs: Annotated[
        str | None,
        typer.Option(
            help="TotalSegmentator: organs to join in one label map, as heart,aorta (values 1, 2) or "
            "heart=1,aorta=1 (one label)."
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(help="Keep only cases whose id matches this pattern, such as 'coronacases_*'."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the manifest.", show_default="the folder's name")
    ] = None,
    val: Annotated[float, typer.Option(min=0, max=0.99, help="Fraction of patients for validation.")] = 0.0,
    test: Annotated[float, typer.Option(min=0, max=0.99, help="Fraction of patients for testing.")] = 0.0,
    folds: Annotated[
        int, typer.Option(min=0, help="Number of cross-validation folds; writes OUTPUT_fold0 and so on.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the split.")] = 0,
) -> None:
    """Make a manifest from a folder of scans and labels, split by patient."""
    check_folder(output)
    from medseg.datasets.manifest_builder import check_division, make_manifest, split_manifest
    from medseg.io.overwrite_guard import OverwriteGuard

    check_division(val=val, test=test, folds=folds)
    OverwriteGuard([source] if source.is_file() else []).check(output)
    beside = output.parent / f"{output.stem}_labels"
    made = make_manifest(
        source, layout=layout, labels=labels, organs=organs, made=beside, name=name, only=only
    )
    parts = split_manifest(made, val=val, test=test, folds=folds, seed=seed)
    places = [output] if not folds else [_fold_of(output, number) for number in range(folds)]
    # A manifest is often edited by hand.
    written = [part.write(place, replace=False) for part, place in zip(parts, places, strict=True)]
    patients = len({case.patient for case in made.cases})
    print(f"{len(made.cases)} cases of {patients} patients: {_splits(parts[0])}")
    if source.is_dir() and made.description:
        print(made.description, file=sys.stderr)
    for path in written:
        print(f"wrote {path}", file=sys.stderr)
    print_next("check", written[0])


def _fold_of(output: Path, number: int) -> Path:
    return output.with_name(f"{output.stem}_fold{number}{output.suffix}")


def _splits(manifest: Manifest) -> str:
    counts = Counter(case.split or "no split" for case in manifest.cases)
    return ", ".join(f"{count} {split}" for split, count in sorted(counts.items()))
