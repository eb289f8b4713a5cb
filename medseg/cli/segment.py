"""``medseg segment``."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer

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
from medseg.cli.progress import working
from medseg.errors import UsageError
from medseg.io.sidecar import RESEARCH, facts_of, sidecar_path, write_json
from medseg.system.memory import no_gc
from medseg.system.notices import collect_notices, in_context


def segment(
    scan: Annotated[Path | None, typer.Argument(help="NIfTI, NRRD, MHA or DICOM folder.")] = None,
    output_path: Annotated[Path | None, typer.Argument(metavar="[MASK]", help="Same as -o.")] = None,
    inputs: Annotated[list[Path] | None, typer.Option("-i", "--input", help="Scan; once a channel.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Mask to write.")] = None,
    model: Annotated[
        str | None, typer.Option(help="File, or name of `medseg models`; lung_ct if none.")
    ] = None,
    stats: Annotated[Path | None, typer.Option(help="Also write volumes and intensities per label.")] = None,
    format_: MaskFormat = None,
    series: Series = None,
    volume: VolumeNumber = None,
    trust: Trust = None,
    nonfinite: Nonfinite = None,
    device: Device = "cpu",
    engine: Engine = "auto",
    any_modality: Annotated[
        bool, typer.Option("--any-modality", help="Also where the scan is MR and the model for CT, say.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Segment one scan: the mask lies on the scan's own grid."""
    if (inputs and scan) or (output and output_path):
        raise UsageError(
            "scan or mask given twice", remedy="give -i and -o, or SCAN and MASK, not both", reason="usage"
        )
    scans = list(inputs or ([scan] if scan else []))
    target = output or output_path
    if not scans or target is None:
        raise UsageError("need a scan and -o MASK", remedy="medseg segment SCAN -o MASK", reason="usage")
    from medseg.io import check_source, read_channels
    from medseg.io.conversion import check_output

    choices = choices_of(series, volume, trust, nonfinite)
    check_output(target, scans, format_)
    started = time.perf_counter()
    from medseg.inference.registry import load_segmenter

    with (
        mention_older_output(target),
        collect_notices(pass_on=True) as notices,
        working(f"segmenting {scans[0].name}"),
    ):
        with ThreadPoolExecutor(1) as beside, no_gc():
            # The scan is read while torch and MONAI are imported, which takes longer.
            reading = beside.submit(in_context(read_channels), scans, channels=len(scans), choices=choices)
            segment_scan = load_segmenter(model, device=device, engine=engine, any_modality=any_modality)
        channels = len(segment_scan.channels)
        volumes = (
            reading.result()
            if channels == len(scans)
            else read_channels(scans, channels=channels, choices=choices)
        )
        check_source(volumes[0].source, target)
        prepared, kept = segment_scan.prepare(volumes), volumes[0] if stats else None
        del volumes, reading  # the network may have the memory of a scan that nothing needs any more
        mask = prepared.predict().mask
        mask.save(target, format=format_)
    facts = facts_of(mask, segment_scan) | {
        "warnings": [_without_paths(str(notice), scans) for notice in notices]
    }
    write_json(sidecar_path(target), facts)
    if stats and kept:
        from medseg.images.intensity_stats import intensities

        write_json(stats, facts | {"intensities": intensities(kept, mask)})
    if as_json:
        print(json.dumps({"mask": str(target)} | facts))
    else:
        for name, volume_ml in mask.volumes_ml().items():
            print(f"{name:20s} {volume_ml:10.1f} ml")
    print(f"wrote {target} in {time.perf_counter() - started:.1f} s. {RESEARCH}", file=sys.stderr)


def _without_paths(text: str, scans: list[Path]) -> str:
    """A warning without the paths of the scans, which may tell whose they are."""
    for scan in scans:
        text = text.replace(str(scan), "scan")
    return text
