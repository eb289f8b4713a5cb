"""``medseg batch``."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.options import AsJson, DataRoot, Device, Nonfinite, Trust
from medseg.cli.progress import Cases
from medseg.errors import UsageError
from medseg.io import DicomFormat
from medseg.io.sidecar import RESEARCH

if TYPE_CHECKING:
    from medseg.batch_processing.messages import StopRequest
    from medseg.batch_processing.summary import BatchSummary

RAY = "ray"

NAMED = 5
"""So many failed cases are named at the end; the table has all."""


def batch(
    source: Annotated[
        Path | None,
        typer.Argument(help="Manifest, or a folder with scans and DICOM series at any depth."),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder of the outputs.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="File, or name of `medseg models`; lung_ct if none. Several: once each."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on in a folder that has results.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Go on, and try failed cases again.")
    ] = False,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Do every n-th case from the i-th on: one run of n.")
    ] = None,
    merge: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Only write the table of all shards in OUT.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; one a core by default, as memory allows.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="For all processes together, such as 8G; what is free by default.")
    ] = None,
    case_minutes: Annotated[float, typer.Option(min=0.01, help="A case that takes longer fails.")] = 120.0,
    overlays: Annotated[bool, typer.Option("--overlays", help="Also a picture of every mask.")] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also a map of every label's probability.")
    ] = False,
    dicom: Annotated[
        DicomFormat | None, typer.Option(help="For DICOM scans also masks of this kind, in dicom/.")
    ] = None,
    data_root: DataRoot = None,
    trust: Trust = None,
    nonfinite: Nonfinite = None,
    device: Device = "cpu",
    engine: Annotated[
        str, typer.Option(help="What runs the network: auto, torch, openvino, onnx; ray for a cluster.")
    ] = "auto",
    address: Annotated[
        str | None, typer.Option(help="Of the Ray cluster, such as auto or ray://host:10001.")
    ] = None,
    gpus: Annotated[float, typer.Option(min=0, help="Of each worker in a Ray cluster, such as 0.5.")] = 0.0,
    any_modality: Annotated[
        bool, typer.Option("--any-modality", help="Also where the scan is MR and the model for CT, say.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Segment thousands of scans: resumable, and one bad scan never stops the rest."""
    from medseg.batch_processing import launcher, settings, summary
    from medseg.inference.registry import DEFAULT

    if merge is not None:
        if source or output:
            raise UsageError("--merge takes its folder alone", where="--merge", reason="usage")
        _end(summary.merge_batch(merge), as_json)
        return
    if source is None or output is None:
        raise UsageError(
            "need cases and -o OUT", remedy="medseg batch MANIFEST|FOLDER -o OUT", reason="usage"
        )
    options = settings.BatchOptions(
        device=device,
        engine="auto" if engine == RAY else engine,
        any_modality=any_modality,
        trust=trust,
        nonfinite=nonfinite,
        overlays=overlays,
        probabilities=probabilities,
        dicom=dicom,
        data_root=data_root,
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
        raise typer.Exit(128 + stop.number)
    if ended.failed:
        raise typer.Exit(1)


def _end(summary: BatchSummary, as_json: bool) -> None:
    if as_json:
        return
    told = [f"{summary.done} done"]
    told += [f"{summary.skipped} done before"] if summary.skipped else []
    told += [f"{summary.failed} failed"] if summary.failed else []
    told += [f"{summary.left} left: --resume goes on"] if summary.left else []
    print(", ".join(told))
    for word, cases in (("failed", summary.failures), ("warned of", summary.warned)):
        if cases:
            more = f" and {len(cases) - NAMED} more" if len(cases) > NAMED else ""
            print(f"{word}: {', '.join(cases[:NAMED])}{more}", file=sys.stderr)
    if summary.failures:
        print("--retry-failed tries the failed ones again", file=sys.stderr)
    print(
        f"wrote {summary.results}; to look at them all: medseg report {summary.results.parent}",
        file=sys.stderr,
    )
    print(RESEARCH, file=sys.stderr)


@contextmanager
def _stopping() -> Iterator[StopRequest]:
    """Ctrl-C or SIGTERM once: the cases at hand are finished; twice: at once."""
    from medseg.batch_processing.messages import StopRequest

    stop = StopRequest()

    def ask(number: int, frame: object) -> None:
        stop.ask(number)
        if stop.asked == 1:
            print("stopping: the cases at hand are finished; once more stops at once", file=sys.stderr)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
