"""``medseg measure``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medseg.cli.argument_order import scan_before_mask
from medseg.cli.options import AsJson, Nonfinite, Series, Trust, VolumeNumber, choices_of, words_of
from medseg.cli.output import print_next, print_notice
from medseg.errors import UsageError
from medseg.system.notices import RESEARCH

if TYPE_CHECKING:
    from medseg.measurement.measurement_table import Measurement


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
    rind_mm: Annotated[
        float, typer.Option(help="Thickness of the rind, the outer layer of each lung, in mm.")
    ] = 10.0,
    correct_air: Annotated[
        bool, typer.Option("--correct-air", help="Scale HU so that the air in the trachea is at -1000 HU.")
    ] = False,
    lesions: Annotated[
        Path | None,
        typer.Option(
            help="Mask of lesions: adds their number, volumes, NELSON classes, share of the lung and place."
        ),
    ] = None,
    earlier_lesions: Annotated[
        Path | None,
        typer.Option(
            help="Mask of the same lesions in an earlier scan, with the same values: adds the change and the "
            "doubling time of each."
        ),
    ] = None,
    days: Annotated[
        float | None, typer.Option(help="With --earlier-lesions: days between the two scans.")
    ] = None,
    expiration: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="SCAN MASK",
            help="Scan of the same patient in expiration, and its lung mask: adds the changes in volume and "
            "density, and air trapping.",
        ),
    ] = None,
    registration: Annotated[
        str | None,
        typer.Option(
            help="With --expiration: how to align the scans for the parametric response map (PRM). "
            "simpleitk registers them; or give a displacement field (NIfTI, MHA) or the registered scan."
        ),
    ] = None,
    radiomics: Annotated[
        Literal["mirp"] | None,
        typer.Option(
            help="mirp: add the features that mirp computes of each label (with --lesions: of the lesions). "
            "Needs the extra `radiomics`."
        ),
    ] = None,
    radiomics_settings: Annotated[
        Path | None,
        typer.Option(
            help="With --radiomics: XML file with settings of mirp.",
            show_default="bins of 25 HU, -1000 to 400 HU",
        ),
    ] = None,
    methods: Annotated[
        Path | None,
        typer.Option(help="Markdown file to write as well: a paragraph for a methods section, with BibTeX."),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="PNG file to write as well: LAA-950 in colour and by region, histograms with thresholds."
        ),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe with the names of the labels.")] = None,
    series: Series = None,
    volume: VolumeNumber = None,
    trust: Trust = None,
    nonfinite: Nonfinite = None,
    as_json: AsJson = False,
) -> None:
    """Measure lungs by side and part (volume, mass, Perc15, LAA-950, ...), and the shape of other labels."""
    from medseg.io.overwrite_guard import OverwriteGuard, is_own_picture, replacing_equal
    from medseg.measurement.lesion_growth import measure_growth
    from medseg.measurement.measure_picture import draw_measures
    from medseg.measurement.measurement_table import check_output, is_own_table
    from medseg.measurement.methods_section import methods_text
    from medseg.measurement.pair_measurement import measure_pair
    from medseg.measurement.radiomics import check_installed, measure_radiomics
    from medseg.measurement.scan_measurement import measure as measured
    from medseg.system.atomic_write import check_folder

    check_output(output)
    _check_pair(
        expiration,
        registration,
        {
            "--lesions": lesions,
            "--correct-air": correct_air or None,
            "--radiomics": radiomics,
            "--picture": picture,
            "--recipe": recipe,
        },
    )
    if radiomics:
        check_installed()
    elif radiomics_settings:
        raise UsageError(
            "--radiomics-settings without --radiomics", remedy="add --radiomics mirp", reason="usage"
        )
    _check_growth(lesions, earlier_lesions, days)
    field = [Path(registration)] if registration and registration != "simpleitk" else []
    masks = [each for each in (lesions, earlier_lesions, radiomics_settings) if each]
    inputs = [*masks, *(expiration or ()), *field]
    guard = OverwriteGuard([scan, mask, *inputs])
    guard.check(output, is_own=is_own_table)
    for other, is_own in ((methods, None), (picture, is_own_picture)):
        if other:
            check_folder(other)
            guard.check(other, is_own=is_own)
    options = choices_of(series, volume, trust, nonfinite)
    with scan_before_mask(scan, mask):
        if expiration:
            found = measure_pair(
                scan,
                mask,
                *expiration,
                registration=registration,
                kind=kind,
                rind_mm=rind_mm,
                options=options,
            )
        else:
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
    if earlier_lesions and lesions and days:
        found = found.joined(measure_growth(earlier_lesions, lesions, days))
    if radiomics:
        found = found.joined(
            measure_radiomics(
                scan, lesions or mask, settings=radiomics_settings, recipe=recipe, options=options
            )
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
        for line in _summary(found, pair=expiration is not None):
            print(line)
    print(f"wrote {output}. {RESEARCH}", file=sys.stderr)
    print_next("view", scan, mask, *words_of(options))


def _check_pair(
    expiration: tuple[Path, Path] | None, registration: str | None, others: dict[str, object]
) -> None:
    """Raises UsageError for options that do not go together."""
    given = [name for name, value in others.items() if value is not None]
    if expiration and given:
        raise UsageError(
            f"{given[0]} does not go with --expiration",
            remedy=f"measure the pair without {given[0]}, and each scan in a command of its own",
            reason="usage",
        )
    if registration and not expiration:
        raise UsageError(
            "--registration without --expiration",
            remedy="give the scan in expiration and its mask: --expiration SCAN MASK",
            reason="usage",
        )


def _check_growth(lesions: Path | None, earlier: Path | None, days: float | None) -> None:
    """Raises UsageError if the three options of growth are not complete."""
    if earlier and lesions and (days is None or not 0 < days < float("inf")):
        raise UsageError(
            f"--earlier-lesions with --days {days}",
            remedy="give the number of days between the scans: --days N, above 0",
            reason="usage",
        )
    if (earlier or days) and not (earlier and lesions):
        raise UsageError(
            "--earlier-lesions and --days need the lesions of both scans",
            remedy="give --lesions MASK of this scan, --earlier-lesions MASK and --days N",
            reason="usage",
        )


def _summary(found: Measurement, *, pair: bool) -> Iterator[str]:
    """One line for each whole structure."""
    from medseg.images.volume_text import volume_text

    for row in found.rows:
        if row.region == "growth" and row.values["change_percent"] is not None:
            change = f"{row.values['earlier_mm3']:.0f} -> {row.values['later_mm3']:.0f} mm³"
            doubling = row.values["doubling_days"]
            yield f"{row.structure:20s} {change}" + (f", doubling in {doubling:.0f} days" if doubling else "")
        elif row.region == "whole":
            text = _pair_text(row.values) if pair else f"{volume_text(row.values['volume_ml'] or 0):>13s}"
            yield f"{row.structure:20s} {text}"


def _pair_text(values: Mapping[str, float | None]) -> str:
    parts = [f"{values['insp_volume_ml']:.0f} -> {values['exp_volume_ml']:.0f} ml"]
    for name, text in (
        ("air_trapping_percent", "air trapping {:.1f} %"),
        ("prm_emphysema_percent", "PRM emphysema {:.1f} %"),
        ("prm_small_airways_percent", "small airways {:.1f} %"),
    ):
        value = values.get(name)
        if value is not None:
            parts.append(text.format(value))
    return ", ".join(parts)
