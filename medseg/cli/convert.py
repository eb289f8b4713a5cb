"""``medseg convert``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.options import AsJson, MaskFormat, Nonfinite, Series, Trust, VolumeNumber, choices_of
from medseg.cli.output import spare_inputs, telling_of_older
from medseg.errors import UsageError
from medseg.io.sidecar import meaning_of, sidecar_path, write_json

if TYPE_CHECKING:
    from medseg.io import ReadOptions


def convert(
    scan: Annotated[Path | None, typer.Argument(help="Any readable scan.")] = None,
    output_path: Annotated[Path | None, typer.Argument(metavar="[OUTPUT]", help="Same as -o.")] = None,
    input_: Annotated[Path | None, typer.Option("-i", "--input", help="Same as the first argument.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write.")] = None,
    mask: Annotated[
        bool, typer.Option("--as-mask", help="It is a mask: read SEG and RTSTRUCT too, and write them.")
    ] = False,
    reference: Annotated[
        Path | None, typer.Option(help="With --as-mask: the scan it belongs to, which gives a SEG its grid.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="With --as-mask: the labels come from this recipe.")
    ] = None,
    format_: MaskFormat = None,
    series: Series = None,
    volume: VolumeNumber = None,
    trust: Trust = None,
    nonfinite: Nonfinite = None,
    as_json: AsJson = False,
) -> None:
    """Convert any readable scan to NIfTI, NRRD or MHA, voxels and grid unchanged; with --as-mask, a mask."""
    if (input_ and scan and output) or (output and output_path):
        raise UsageError(
            "scan or output given twice",
            remedy="give -i and -o, or SCAN and OUTPUT, not both",
            reason="usage",
        )
    source, target = input_ or scan, output or output_path
    if source is None or target is None:
        raise UsageError(
            "need a scan and -o OUTPUT", remedy="medseg convert SCAN -o scan.nii.gz", reason="usage"
        )
    from medseg.io import check_writable, read_channels

    choices = choices_of(series, volume, trust, nonfinite)
    if not mask and (reference or recipe or format_ or target.suffix.lower() == ".dcm"):
        raise UsageError(
            "--reference, --recipe, --format and .dcm files are for masks",
            remedy="medseg convert MASK -o OUTPUT --as-mask",
            reason="usage",
        )
    check_writable(target, format_)
    spare_inputs(target, [source, *([reference] if reference else [])])
    if mask:
        _convert_mask(source, target, reference, recipe, format_, choices, as_json)
        return
    with telling_of_older(target):
        (scan_read,) = read_channels([source], choices=choices)
        scan_read.save(target)
    if as_json:
        from medseg.images.intensity_stats import describe

        print(json.dumps({"image": str(target)} | describe(scan_read)))
    print(f"wrote {target}: {scan_read.grid}", file=sys.stderr)


def _convert_mask(
    source: Path,
    target: Path,
    reference: Path | None,
    recipe: str | None,
    format_: str | None,
    choices: ReadOptions,
    as_json: bool,
) -> None:
    """A mask in another format: on the grid of its reference, which a .dcm file refers to."""
    from medseg.images.volume import Mask
    from medseg.io import check_source, read_channels, read_mask
    from medseg.recipe import Recipe

    scan = read_channels([reference], choices=choices)[0] if reference else None
    if scan is not None:
        check_source(scan.source, target)
    elif target.suffix.lower() == ".dcm":
        raise UsageError(
            "a .dcm mask refers to a DICOM scan", remedy="give it with --reference SCAN", reason="usage"
        )
    # Without a recipe the labels are the segments' own names; other formats have none.
    labels = Recipe.read(recipe).labels if recipe else ()
    found = read_mask(source, labels, scan)
    if scan is not None:
        found = Mask(found.array, found.grid, found.labels, scan.source)
    found.save(target, format=format_)
    facts = meaning_of(found)
    write_json(sidecar_path(target), facts)
    if as_json:
        print(json.dumps({"mask": str(target)} | facts))
    print(f"wrote {target}: {found.grid}", file=sys.stderr)
