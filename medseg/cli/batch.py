"""``medseg batch``."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medseg.cli.early_checks import check_cases, check_model
from medseg.cli.options import (
    AeratedOnly,
    AsJson,
    DataRoot,
    Device,
    Nonfinite,
    Roi,
    Trust,
    model_names,
    roi_of,
)
from medseg.cli.output import print_next
from medseg.cli.progress import Cases
from medseg.errors import UsageError, listed
from medseg.io.formats import DicomFormat
from medseg.system.notices import RESEARCH
from medseg.system.output_folder import check_output_folder

if TYPE_CHECKING:
    from medseg.batch_processing.messages import StopRequest
    from medseg.batch_processing.summary import BatchSummary

RAY = "ray"

NAMED = 5
_LIMITS = {"reading": "reading and preparing", "network": "the network"}
"""Number of failed cases listed at the end; the table has all of them."""


def batch(
    source: Annotated[
        Path | None,
        typer.Argument(
            help="What to segment: a folder with scan files and DICOM series at any depth, a manifest, "
            "the dicomweb:// address of a study or series, or a .txt file with one such address per line."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Output folder.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Model file, or a name listed by `medseg models`; may be repeated.",
            show_default="lung_ct_context",
            autocompletion=model_names,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue in a folder that already has results.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Like --resume, and also try failed cases again.")
    ] = False,
    redo_edited: Annotated[
        bool,
        typer.Option(
            "--redo-edited",
            help="Also redo cases whose masks were edited by hand; a copy of each edited mask is kept.",
        ),
    ] = False,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Process only shard I of N (every N-th case), I from 1.")
    ] = None,
    merge: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Segment nothing; merge the tables of all shards in OUT."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Worker processes.", show_default="one per core, as memory allows"),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="Memory for all processes together, such as 8G.", show_default="free memory"),
    ] = None,
    case_minutes: Annotated[
        float, typer.Option(min=0.01, help="Time limit for each case, in minutes.")
    ] = 120.0,
    overlays: Annotated[bool, typer.Option("--overlays", help="Also draw a picture of every mask.")] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write a probability map for every label.")
    ] = False,
    per_label: Annotated[
        bool, typer.Option("--per-label", help="Also write a binary mask of each label to per_label/CASE/.")
    ] = False,
    dicom: Annotated[
        DicomFormat | None,
        typer.Option(help="For DICOM scans, also write masks in this DICOM format to dicom/."),
    ] = None,
    store: Annotated[
        bool,
        typer.Option(
            "--store",
            help="With --dicom: also store these masks on the DICOMweb server that the scans came from.",
        ),
    ] = False,
    measure: Annotated[
        Literal["lung"] | None,
        typer.Option(help="lung: also measure the lungs in every mask, as `medseg measure` does."),
    ] = None,
    aerated_only: AeratedOnly = False,
    roi: Roi = None,
    bom: Annotated[
        bool, typer.Option("--bom", help="Start results.csv with a byte order mark, so that Excel reads it.")
    ] = False,
    data_root: DataRoot = None,
    trust: Trust = None,
    nonfinite: Nonfinite = None,
    device: Device = "auto",
    engine: Annotated[
        str, typer.Option(help="Inference engine: auto, torch, openvino or onnx; ray for a cluster.")
    ] = "auto",
    address: Annotated[
        str | None, typer.Option(help="Address of the Ray cluster, such as auto or ray://host:10001.")
    ] = None,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs per worker in a Ray cluster, such as 0.5.")] = 0.0,
    any_modality: Annotated[
        bool, typer.Option("--any-modality", help="Skip the check that the scan fits the model's modality.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Segment a folder or manifest of scans. Can be resumed; one bad scan never stops the rest."""
    if merge is None and source is not None:
        if output is not None:
            check_output_folder(output)
        check_cases(source)
        for each in model or ():
            check_model(each)
    from medseg.batch_processing import launcher, settings, summary
    from medseg.inference.registry import DEFAULT

    if merge is not None:
        if source or output:
            raise UsageError(
                "--merge takes only its folder, without cases or -o", where="--merge", reason="usage"
            )
        _end(summary.merge_batch(merge, bom=bom), as_json)
        return
    if source is None or output is None:
        raise UsageError(
            "no scans are named"
            if source is None
            else f"no output folder is named for {source}: -o is missing",
            remedy="use: medseg batch FOLDER -o OUT, or medseg batch MANIFEST -o OUT",
            reason="usage",
        )
    options = settings.BatchOptions(
        device=device,
        engine="auto" if engine == RAY else engine,
        any_modality=any_modality,
        trust=trust,
        nonfinite=nonfinite,
        overlays=overlays,
        probabilities=probabilities,
        per_label=per_label,
        dicom=dicom,
        store=store,
        measure=measure,
        aerated_only=aerated_only,
        roi=roi_of(roi),
        data_root=data_root,
        bom=bom,
        redo_edited=redo_edited,
    )
    cluster = settings.RayCluster(address, gpus) if engine == RAY else None
    with Cases(as_json=as_json) as shown, _stopping() as stop:
        command = shlex.join(["medseg", *sys.argv[1:]])
        ended = launcher.batch(
            source,
            output,
            model=model or DEFAULT,
            resume=resume,
            retry_failed=retry_failed,
            options=options,
            resources=settings.BatchResources(workers, memory, case_minutes, shard, cluster),
            progress=settings.BatchMonitor(shown.show, stop, command),
        )
    _end(ended, as_json)
    if stop.asked:
        sys.exit(128 + stop.number)  # not typer.Exit: 130 would be reported as an error once more
    if ended.failed:
        raise typer.Exit(1)


def _end(summary: BatchSummary, as_json: bool) -> None:
    if as_json:
        return
    counts = [f"{summary.done} done"]
    counts += [f"{summary.skipped} already done"] if summary.skipped else []
    counts += [f"{summary.failed} failed"] if summary.failed else []
    counts += [f"{summary.left} left: continue with --resume"] if summary.left else []
    print(", ".join(counts))
    named = {"failed": summary.failures, "with warnings": summary.warned, "edited, kept": summary.edited}
    for word, cases in named.items():
        if cases:
            print(f"{word}: {listed(cases, NAMED)}", file=sys.stderr)
    if summary.failures:
        print("retry them with --retry-failed", file=sys.stderr)
    if summary.waited is not None:
        text = f"networks waited for scans {summary.waited:.0%} of the time"
        print(f"speed was bounded by {_LIMITS[summary.limit]}: {text}", file=sys.stderr)
    print(f"wrote {summary.results}. {RESEARCH}", file=sys.stderr)
    print_next("report", summary.results.parent)


@contextmanager
def _stopping() -> Iterator[StopRequest]:
    """Stops after the current cases on the first Ctrl-C or SIGTERM, and immediately on the second."""
    from medseg.batch_processing.messages import StopRequest

    stop = StopRequest()

    def ask(number: int, frame: object) -> None:
        stop.ask(number)
        if stop.asked == 1:
            again = "press Ctrl-C again" if number == signal.SIGINT else "send the signal again"
            print(f"stopping after the current cases; {again} to stop immediately", file=sys.stderr)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
