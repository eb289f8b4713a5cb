"""``medseg measure``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from medseg.cli.argument_order import scan_before_mask
from medseg.cli.options import AsJson, Nonfinite, Series, Trust, VolumeNumber, choices_of
from medseg.cli.output import print_notice
from medseg.system.notices import RESEARCH


def measure(
    scan: Annotated[Path, typer.Argument(help="NIfTI, NRRD or MHA file, or DICOM folder.")],
    mask: Annotated[Path, typer.Argument(help="Mask of the scan, in any supported format.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Table to write: .csv, or .json with definitions.")
    ],
    kind: Annotated[
        Literal["auto", "lung", "structures"],
        typer.Option(
            help="What the mask holds. auto: labels named right_lung, left_lung or lungs are lung; lung: all "
            "labels together are both lungs; structures: volume and shape of every label."
        ),
    ] = "auto",
    rind_mm: Annotated[float, typer.Option(help="Depth of the rind below the surface of each lung.")] = 10.0,
    correct_air: Annotated[
        bool, typer.Option("--correct-air", help="Scale HU so that the air in the trachea has -1000 HU.")
    ] = False,
    lesions: Annotated[
        Path | None, typer.Option(help="Mask of lesions: count, volumes, NELSON classes, share and place.")
    ] = None,
    methods: Annotated[
        Path | None, typer.Option(help="Markdown file: a paragraph for a methods section, with BibTeX.")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="PNG file: LAA-950 in colour, histograms with thresholds, LAA-950 by region."),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe with the label names.")] = None,
    series: Series = None,
    volume: VolumeNumber = None,
    trust: Trust = None,
    nonfinite: Nonfinite = None,
    as_json: AsJson = False,
) -> None:
    """Measure lungs by side and part (volume, mass, Perc15, LAA-950, ...), and the shape of other labels."""
    from medseg.io.overwrite_guard import OverwriteGuard, is_own_picture, replacing_equal
    from medseg.measurement.measure_picture import draw_measures
    from medseg.measurement.measurement_table import check_output, is_own_table
    from medseg.measurement.methods_section import methods_text
    from medseg.measurement.scan_measurement import measure as measured
    from medseg.system.atomic_write import check_folder

    check_output(output)
    guard = OverwriteGuard([scan, mask, *([lesions] if lesions else [])])
    guard.check(output, is_own=is_own_table)
    for other, is_own in ((methods, None), (picture, is_own_picture)):
        if other:
            check_folder(other)
            guard.check(other, is_own=is_own)
    options = choices_of(series, volume, trust, nonfinite)
    with scan_before_mask(scan, mask):
        found = measured(
            scan,
            mask,
            kind=kind,
            rind_mm=rind_mm,
            correct_air=correct_air,
            lesions=lesions,
            recipe=recipe,
            options=options,
        )
    found.save(output)
    if picture:
        draw_measures(found, scan, mask, picture, kind=kind, recipe=recipe, options=options)
    if methods:
        with replacing_equal(methods) as fresh:  # it is meant to be edited
            fresh.write_text(methods_text(found), encoding="utf-8")
    for notice in found.notices:
        print_notice(notice)
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        for row in found.rows:
            if row.region == "whole":
                print(f"{row.structure:20s} {row.values['volume_ml']:10.1f} ml")
    print(f"wrote {output}. {RESEARCH}", file=sys.stderr)
