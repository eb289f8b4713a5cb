"""``medseg info``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.early_checks import check_scans
from medseg.cli.options import AsJson, Nonfinite, PixelMm, Series, Trust, VolumeNumber, choices_of, words_of
from medseg.cli.output import print_next
from medseg.errors import InputRefused, printable
from medseg.system.quiet_libraries import import_nibabel

if TYPE_CHECKING:
    from medseg.io.dicom.mask_listing import DicomMask


def info(
    scan: Annotated[Path, typer.Argument(help="Scan in any supported format.")],
    series: Series = None,
    volume: VolumeNumber = None,
    trust: Trust = None,
    nonfinite: Nonfinite = None,
    pixel_mm: PixelMm = None,
    as_json: AsJson = False,
) -> None:
    """Show the grid, orientation and intensities of a scan, or the series and masks in a DICOM folder.

    Never prints patient data: of a series' description only words such as "chest lung 1.0" are shown.
    """
    check_scans([scan])
    import_nibabel()
    from medseg.io.scan_info import info as info_of

    options = choices_of(series, volume, trust, nonfinite, pixel_mm)
    try:
        facts = info_of(scan, options=options)
    except InputRefused as error:
        masks = _masks(scan) if error.reason in ("several-series", "no-scan") else ()
        if series is not None or not (masks or error.reason == "several-series"):
            raise
        _print_series(scan, error.details, masks, as_json=as_json)
        return
    masks = _masks(scan) if facts["format"] == "dicom" and scan.is_dir() else ()
    if as_json:
        print(json.dumps(facts | ({"masks": _plain(masks)} if masks else {}), indent=2))
    else:
        for name, value in facts.items():
            print(f"{name:14s} {'unknown' if value is None else value}")
        _print_masks(scan, masks)
        model = ["--model", "MODEL"] if facts["format"] == "picture" else []
        print_next("segment", scan, *words_of(options), "-o", "mask.nii.gz", *model)


def _masks(scan: Path) -> tuple[DicomMask, ...]:
    from medseg.io.dicom.mask_listing import list_masks

    return list_masks(scan)


def _print_series(scan: Path, lines: tuple[str, ...], masks: Sequence[DicomMask], *, as_json: bool) -> None:
    """Prints the table of series, if there are any, and that of the masks."""
    if as_json:
        print(json.dumps({"series": _series(scan), "masks": _plain(masks)}, indent=2))
        return
    print("\n".join(map(printable, lines)) or "no scan here, only masks")
    _print_masks(scan, masks)
    if lines:
        print_next("info", scan, "--series", 1)
    else:
        mask = masks[0].path
        print_next("convert", mask, "-o", "mask.nii.gz", "--as-mask", "--reference", "SERIES")


def _print_masks(scan: Path, masks: Sequence[DicomMask]) -> None:
    if masks:
        from medseg.io import list_series
        from medseg.io.dicom.mask_listing import table

        print("\n" + "\n".join(map(printable, table(masks, list_series(scan), scan))))


def _series(scan: Path) -> list[dict[str, Any]]:
    from medseg.io import list_series

    found: list[dict[str, Any]] = [asdict(one) for one in list_series(scan)]
    for one in found:
        one["files"] = len(one["files"])
    return found


def _plain(masks: Sequence[DicomMask]) -> list[dict[str, Any]]:
    return [asdict(one) | {"path": str(one.path)} for one in masks]
