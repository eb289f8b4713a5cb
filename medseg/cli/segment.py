"""``medseg segment``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.early_checks import check_mask, check_model, check_scans
from medseg.cli.options import (
    AsJson,
    Device,
    Engine,
    MaskFormat,
    Nonfinite,
    Series,
    Trust,
    VolumeNumber,
    choices_of,
)
from medseg.cli.output import mention_older_output
from medseg.errors import UsageError
from medseg.system.notices import RESEARCH


def segment(
    scan: Annotated[Path | None, typer.Argument(help="NIfTI, NRRD or MHA file, or DICOM folder.")] = None,
    output_path: Annotated[Path | None, typer.Argument(metavar="[MASK]", help="Same as -o.")] = None,
    inputs: Annotated[
        list[Path] | None, typer.Option("-i", "--input", help="Scan; repeat it for each further channel.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Mask file to write.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Model file, or a name listed by `medseg models`. [default: lung_ct]")
    ] = None,
    stats: Annotated[
        Path | None, typer.Option(help="Also write volumes and intensities per label to this JSON file.")
    ] = None,
    format_: MaskFormat = None,
    series: Series = None,
    volume: VolumeNumber = None,
    trust: Trust = None,
    nonfinite: Nonfinite = None,
    device: Device = "auto",
    engine: Engine = "auto",
    any_modality: Annotated[
        bool, typer.Option("--any-modality", help="Skip the check that the scan fits the model's modality.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Segment one scan. The mask has exactly the scan's grid."""
    if (inputs and scan) or (output and output_path):
        raise UsageError(
            "scan or mask given twice", remedy="give -i and -o, or SCAN and MASK, not both", reason="usage"
        )
    scans = list(inputs or ([scan] if scan else []))
    target = output or output_path
    if not scans or target is None:
        raise UsageError("missing a scan or -o MASK", remedy="medseg segment SCAN -o MASK", reason="usage")
    check_mask(target, format_)
    with mention_older_output(target):
        check_model(model, engine)
        check_scans(scans)
    from medseg.inference.segmentation import Runtime, segment_file
    from medseg.io.conversion import check_mask_output

    options = choices_of(series, volume, trust, nonfinite)
    check_mask_output(target, scans, format_)
    started = time.perf_counter()
    with mention_older_output(target):
        made = segment_file(
            scans,
            target,
            model=model,
            stats=stats,
            format=format_,
            options=options,
            runtime=Runtime(device, engine, any_modality),
        )
    if as_json:
        print(json.dumps({"mask": str(target), **made.facts}))
    else:
        for name, volume_ml in made.mask.volumes_ml().items():
            print(f"{name:20s} {volume_ml:10.1f} ml")
    _, on, gpu = str(made.facts.get("engine", "")).partition(" on ")
    print(f"wrote {target} in {time.perf_counter() - started:.1f} s{on}{gpu}. {RESEARCH}", file=sys.stderr)
