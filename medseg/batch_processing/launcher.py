"""A whole batch in one call: finds the cases and segments them with local processes or a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from medseg.batch_processing import results, runner
from medseg.batch_processing.case_discovery import items
from medseg.batch_processing.case_discovery import shard as part_of
from medseg.batch_processing.journal import NAME, Record
from medseg.batch_processing.messages import BatchConfig
from medseg.batch_processing.runner import Workers
from medseg.batch_processing.settings import BatchMonitor, BatchOptions, BatchResources
from medseg.batch_processing.summary import BatchSummary
from medseg.batch_processing.thumbnail_log import NAME as THUMBNAILS
from medseg.errors import UsageError
from medseg.images.label_selection import label_names
from medseg.inference.registry import DEFAULT
from medseg.io import output_checks
from medseg.io.dicomweb.address import is_address
from medseg.io.formats import picture_ending
from medseg.io.overwrite_guard import OverwriteGuard
from medseg.system import devices
from medseg.system.progress import progress_bar


def batch(
    source: str | Path,
    output: str | Path,
    *,
    model: str | Path | Sequence[str | Path] = DEFAULT,
    resume: bool = False,
    retry_failed: bool = False,
    options: BatchOptions | None = None,
    resources: BatchResources | None = None,
    progress: bool | BatchMonitor | None = None,
) -> BatchSummary:
    """Segments many scans and returns a summary; one bad scan does not stop the rest.

    The output folder gets ``masks/``, the table ``results.csv`` and a journal, from which an interrupted
    batch is resumed. :func:`medseg.report` turns it into an HTML page.

    Args:
        source: A manifest, or a folder with scans and DICOM series at any depth; or the ``dicomweb://``
            address of a study or a series, or a ``.txt`` file with one of them per line.
        output: The output folder; created if it does not exist.
        model: Name or file of a model, or several; each case is segmented by all of them.
        resume: Continue in a folder that holds results; without it such a folder is refused.
        retry_failed: Continue, and try failed cases again.
        options: How scans are read and segmented, and which files are written.
        resources: Processes, memory and time.
        progress: Whether to show a progress bar; None for a terminal or a notebook only.

    Raises:
        UsageError: no case is found (``no-cases``), the folder holds results (``has-results``) or is in use
            (``in-use``), an output would replace an input (``overwrites-input``) or a file that no batch
            wrote (``foreign-file``), a model lacks a label of ``options.roi`` (``no-such-label``), or the
            folder holds masks of another model (``other-model``).
        ModelRefused: a model is damaged.
        ResourceError: the disk fails (``disk``), or no worker can be started.

    Example:
        >>> summary = medseg.batch("dataset/images", "segmented", model="threshold",
        ...                        resources=medseg.BatchResources(workers=1))
        >>> summary.done, summary.failures, summary.results.name
        (4, (), 'results.csv')
    """
    options, resources = options or BatchOptions(), resources or BatchResources()
    if options.dicom == "dicom-seg":
        output_checks.check_highdicom()
    if options.store and options.dicom is None:
        raise _no_store(
            "a server takes DICOM masks only, and without --dicom masks are NIfTI files",
            "add --dicom dicom-seg, or --dicom rtstruct",
        )
    found = items(Path(source), root=options.data_root, without=Path(output))
    pictures = all(picture_ending(path) for item in found for path in item.images[:1])
    if options.store and not all(is_address(path) for item in found for path in item.images):
        raise _no_store(
            "masks go back to the server of their scans, but scans of this batch are files",
            "name the scans by addresses, dicomweb://SERVER/studies/UID/series/UID, or leave out --store",
        )
    if resources.shard:
        found = part_of(found, resources.shard)
    guard = OverwriteGuard([source] if Path(source).is_file() else [])
    for name in (results.NAME, NAME, THUMBNAILS):
        guard.check(Path(output) / name)
    device = options.device
    if resources.cluster is None:
        device = _devices(options)
        if device != "cpu" and resources.workers is None:
            resources = replace(resources, workers=device.count(",") + 1)  # each owns a GPU
    models = [model] if isinstance(model, str | Path) else model
    config = replace(_config(options, models, output, device), pictures=pictures)
    with _monitor(progress) as monitor:
        return runner.run(
            found,
            config,
            resume=resume,
            retry_failed=retry_failed,
            redo_edited=options.redo_edited,
            resources=resources,
            monitor=monitor,
            start=_starter(resources),
        )


def _config(
    options: BatchOptions, models: Sequence[str | Path], output: str | Path, device: str
) -> BatchConfig:
    return BatchConfig(
        models=tuple(_absolute(str(name)) for name in models),
        folder=str(output),
        scratch="",
        device=device,
        engine=options.engine,
        any_modality=options.any_modality,
        trust=options.trust,
        nonfinite=options.nonfinite,
        overlays=options.overlays,
        probabilities=options.probabilities,
        per_label=options.per_label,
        dicom=options.dicom,
        store=options.store,
        measure=options.measure,
        aerated_only=options.aerated_only,
        roi=label_names(options.roi),
        bom=options.bom,
    )


def _no_store(problem: str, remedy: str) -> UsageError:
    return UsageError(
        f"no mask can be stored on a server: {problem}", where="--store", remedy=remedy, reason="usage"
    )


def _devices(options: BatchOptions) -> str:
    """The devices to use, separated by commas: ``auto`` is all GPUs, or the CPU."""
    cpu_only = options.engine not in ("auto", "torch")
    names = [devices.resolved(name, cpu_only=cpu_only) for name in options.device.split(",")]
    if options.device == "auto" and names == ["cuda"]:
        names = [f"cuda:{number}" for number in range(devices.cuda_devices())]
    return ",".join(names)


def _starter(resources: BatchResources) -> Callable[[BatchConfig, int], Workers] | None:
    cluster = resources.cluster
    if cluster is None:
        return None

    def start(config: BatchConfig, cases: int) -> Workers:
        from medseg.batch_processing.ray_pool import RayPool

        return RayPool(
            config,
            cases=cases,
            address=cluster.address,
            workers=resources.workers,
            gpus=cluster.gpus,
            memory_bytes=resources.memory_bytes,
            case_seconds=60 * resources.case_minutes,
        )

    return start


@contextmanager
def _monitor(progress: bool | BatchMonitor | None) -> Iterator[BatchMonitor]:
    """The given monitor, or one that moves a progress bar."""
    if isinstance(progress, BatchMonitor):
        yield progress
        return
    with progress_bar("segmenting", progress) as advance:
        finished: set[str] = set()
        failed: set[str] = set()
        todo = 0

        def show(event: Record) -> None:
            nonlocal todo
            if event["event"] == "start":
                todo = event["todo"]
            elif event["event"] == "case":
                finished.add(event["case"])
                if event["status"] == "failed":
                    failed.add(event["case"])
                advance(len(finished), todo, f"{len(failed)} failed")

        yield BatchMonitor(show)


def _absolute(model: str) -> str:
    """A model file as an absolute path, since workers may run in another folder."""
    is_file = os.path.sep in model or model.endswith(".safetensors")
    return os.path.abspath(model) if is_file else model  # noqa: PTH100 - without links resolved
