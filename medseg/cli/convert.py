"""``medseg convert``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.early_checks import check_scans
from medseg.cli.options import AsJson, MaskFormat, Nonfinite, PixelMm, Series, Trust, VolumeNumber, choices_of
from medseg.cli.output import mention_older_output, print_next
from medseg.errors import UsageError


def convert(
    scan: Annotated[Path | None, typer.Argument(help="Scan in any supported format.")] = None,
    output_path: Annotated[Path | None, typer.Argument(metavar="[OUTPUT]", help="Same as -o.")] = None,
    input_: Annotated[Path | None, typer.Option("-i", "--input", help="Same as the first argument.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write.")] = None,
    mask: Annotated[
        bool, typer.Option("--as-mask", help="Treat the input as a mask; DICOM SEG and RTSTRUCT need this.")
    ] = False,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="With --as-mask: the scan that the mask belongs to; the mask is written on its grid."
        ),
    ] = None,
    resample: Annotated[
        bool,
        typer.Option(
            "--resample",
            help="With --reference: resample a mask whose grid is not the scan's (nearest neighbour).",
        ),
    ] = False,
    recipe: Annotated[
        str | None, typer.Option(help="With --as-mask: take the names of the labels from this recipe.")
    ] = None,
    format_: MaskFormat = None,
    series: Series = None,
    volume: VolumeNumber = None,
    trust: Trust = None,
    nonfinite: Nonfinite = None,
    pixel_mm: PixelMm = None,
    as_json: AsJson = False,
) -> None:
    """Convert a scan, or a mask with --as-mask, to another format; voxels and grid stay unchanged."""
    if (input_ and scan and output) or (output and output_path):
        first, second = (output, output_path) if output and output_path else (scan, input_)
        raise UsageError(
            f"{'the output' if output and output_path else 'the scan'} is named twice: {first} and {second}",
            remedy="use: medseg convert SCAN -o OUTPUT",
            reason="usage",
        )
    source, target = input_ or scan, output or output_path
    if source is None or target is None:
        raise UsageError(
            "no scan is named" if source is None else f"no output is named for {source}: -o is missing",
            remedy="use: medseg convert SCAN -o scan.nii.gz",
            reason="usage",
        )
    from medseg.io.formats import is_dicom_output

    options = choices_of(series, volume, trust, nonfinite, pixel_mm)
    if not mask and (reference or resample or recipe or format_ or is_dicom_output(target)):
        raise UsageError(
            "--reference, --resample, --recipe, --format and .dcm files are only for masks",
            remedy="medseg convert MASK -o OUTPUT --as-mask",
            reason="usage",
        )
    if resample and reference is None:
        raise UsageError(
            "--resample needs the scan whose grid is wanted",
            remedy="name the scan with --reference SCAN",
            reason="usage",
        )
    inputs = [source, *([reference] if reference else [])]
    with mention_older_output(target):
        check_scans(inputs)
    from medseg.images.intensity_stats import describe
    from medseg.io.conversion import check_mask_output, check_scan_output, convert_mask
    from medseg.io.conversion import convert as convert_scan
    from medseg.io.sidecar import meaning_of
    from medseg.recipe import Recipe

    if mask:
        check_mask_output(target, inputs, format_)
        labels = Recipe.read(recipe).painted if recipe else ()
        made = convert_mask(
            source,
            target,
            scan=reference,
            labels=labels,
            format=format_,
            options=options,
            resample=resample,
        )
        facts = {"mask": str(target)} | meaning_of(made)
        grid = made.grid
    else:
        check_scan_output(target, inputs)
        with mention_older_output(target):
            converted = convert_scan(source, target, options=options)
        facts = {"image": str(target)} | (describe(converted) if as_json else {})
        grid = converted.grid
    if as_json:
        print(json.dumps(facts))
    print(f"wrote {target}: {grid}", file=sys.stderr)
    if mask:
        print_next("view", reference or "SCAN", target)
    else:
        print_next("segment", target, "-o", "mask.nii.gz")
