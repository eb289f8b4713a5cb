"""A batch in one call: the cases are found, and segmented by processes or by a cluster."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from medseg.batch_processing import runner
from medseg.batch_processing.case_discovery import items
from medseg.batch_processing.case_discovery import shard as part_of
from medseg.batch_processing.journal import Record
from medseg.batch_processing.messages import BatchConfig, StopRequest
from medseg.batch_processing.runner import BatchSummary, Workers
from medseg.errors import UsageError
from medseg.inference.registry import DEFAULT
from medseg.io import DicomFormat
from medseg.io.dicom import seg
from medseg.io.read_options import Trust
from medseg.system.progress import progress_bar


@dataclass(frozen=True)
class BatchOptions:
    """How the scans of a batch are read and segmented, and what is written of each.

    Attributes:
        device: Where networks run, as torch names it.
        engine: What runs them: ``auto``, ``torch``, ``openvino`` or ``onnx``.
        any_modality: Take scans of another modality than the model's, and CT that is not in HU.
        trust: NIfTI: which geometry to believe where it is in doubt.
        nonfinite: What NaN and infinite voxels become; they are refused without it.
        overlays: Also write a picture of every mask.
        probabilities: Also write a map of every label's probability.
        dicom: For DICOM scans also write ``dicom-seg`` or ``rtstruct``.
        data_root: Where a manifest's files lie, instead of its own root.

    Example:
        >>> medseg.BatchOptions(overlays=True).engine
        'auto'
    """

    device: str = "cpu"
    engine: str = "auto"
    any_modality: bool = False
    trust: Trust | None = None
    nonfinite: float | None = None
    overlays: bool = False
    probabilities: bool = False
    dicom: DicomFormat | None = None
    data_root: Path | None = None


@dataclass(frozen=True)
class RayCluster:
    """A Ray cluster that does the work, instead of processes of this machine.

    Attributes:
        address: Such as ``auto`` or ``ray://host:10001``.
        gpus: Of each worker, such as 0.5.
    """

    address: str | None = None
    gpus: float = 0.0


@dataclass(frozen=True)
class BatchResources:
    """What a batch may use, and which part of the cases is its own.

    Attributes:
        workers: Processes; by default one a core, as far as memory allows.
        memory: For all of them together: bytes, or text such as ``8G``; by default nine tenths of what is
            free.
        case_minutes: A case that takes longer fails.
        shard: ``3/10`` does every tenth case from the third on: one run of ten.
        cluster: Where another machine does the work.

    Raises:
        UsageError: the memory cannot be read (``usage``).

    Example:
        >>> medseg.BatchResources(memory="1.5G").memory_bytes
        1610612736
    """

    workers: int | None = None
    memory: int | str | None = None
    case_minutes: float = 120.0
    shard: str | None = None
    cluster: RayCluster | None = None

    @property
    def memory_bytes(self) -> int | None:
        """The memory as a number."""
        return bytes_of(self.memory)


@dataclass(frozen=True)
class BatchMonitor:
    """Follows a batch in the place of the bar.

    Attributes:
        show: Called with the start, every case and the end, each a JSON object.
        stop: Ends the batch when it is asked to.
        command: As it was typed, for the journal.
    """

    show: Callable[[Record], None] = lambda event: None
    stop: StopRequest = field(default_factory=StopRequest)
    command: str = ""


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
    """How many scans were segmented into ``output``, and which failed: one bad scan does not stop the rest.

    The folder gets ``masks/``, the table ``results.csv`` and a journal, by which an interrupted batch goes
    on. :func:`medseg.report` makes a page of it.

    Args:
        source: A manifest, or a folder with scans and DICOM series at any depth.
        output: Folder of the outputs; made where there is none.
        model: Name or file; of several each case goes through all of them.
        resume: Go on in a folder that holds results; without it such a folder is refused.
        retry_failed: Go on, and try failed cases again.
        options: How scans are read and segmented, and what is written.
        resources: Processes, memory and time.
        progress: Whether to show a bar; None on a terminal or in a notebook only.

    Raises:
        UsageError: no case is found (``no-cases``), the folder holds results (``has-results``) or is in use
            (``in-use``).
        ModelRefused: a model is damaged.
        ResourceError: the disk refuses (``disk``), or no worker can be started.

    Example:
        >>> summary = medseg.batch("dataset/images", "segmented", model="threshold",
        ...                        resources=medseg.BatchResources(workers=1))
        >>> summary.done, summary.failures, summary.results.name
        (4, (), 'results.csv')
    """
    options, resources = options or BatchOptions(), resources or BatchResources()
    if options.dicom == "dicom-seg":
        seg.check_installed()
    found = items(Path(source), root=options.data_root, without=Path(output))
    if resources.shard:
        found = part_of(found, resources.shard)
    models = [model] if isinstance(model, str | Path) else model
    config = BatchConfig(
        models=tuple(_place(str(name)) for name in models),
        folder=str(output),
        scratch="",
        device=options.device,
        engine=options.engine,
        any_modality=options.any_modality,
        trust=options.trust,
        nonfinite=options.nonfinite,
        overlays=options.overlays,
        probabilities=options.probabilities,
        dicom=options.dicom,
    )
    memory_bytes = resources.memory_bytes
    with _monitor(progress) as monitor:
        return runner.run(
            found,
            config,
            resume=resume,
            retry_failed=retry_failed,
            shard=resources.shard and resources.shard.replace("/", "-of-"),
            workers=resources.workers,
            memory_bytes=memory_bytes,
            case_seconds=60 * resources.case_minutes,
            command=monitor.command,
            start=_starter(resources),
            show=monitor.show,
            stop=monitor.stop,
        )


def bytes_of(text: int | str | None) -> int | None:
    """Bytes of ``8G``, ``1500M`` or a bare number; K, M, G and T are powers of 1024, with or without iB.

    Raises:
        UsageError: it is no size (``usage``).
    """
    if not isinstance(text, str):
        return text
    # Not pydantic's ByteSize: it reads what a number begins with, so that 8,5G would be 8 bytes.
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", text.strip(), re.IGNORECASE)
    if not match:
        raise UsageError(
            f"cannot read the size {text!r}", where="--memory", remedy="write 8G or 1500M", reason="usage"
        )
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def _starter(resources: BatchResources) -> Callable[[BatchConfig, int], Workers] | None:
    cluster = resources.cluster
    if cluster is None:
        return None

    def start(config: BatchConfig, cases: int) -> Workers:
        from medseg.batch_processing.ray_pool import RayPool

        return RayPool(
            config, cases=cases, address=cluster.address, workers=resources.workers, gpus=cluster.gpus
        )

    return start


@contextmanager
def _monitor(progress: bool | BatchMonitor | None) -> Iterator[BatchMonitor]:
    """What is given, or a bar of the cases that are done."""
    if isinstance(progress, BatchMonitor):
        yield progress
        return
    with progress_bar("segmenting", progress) as advance:
        seen: set[str] = set()
        failed: set[str] = set()
        todo = 0

        def show(event: Record) -> None:
            nonlocal todo
            if event["event"] == "start":
                todo = event["todo"]
            elif event["event"] == "case":
                seen.add(event["case"])
                if event["status"] == "failed":
                    failed.add(event["case"])
                advance(len(seen), todo, f"{len(failed)} failed")

        yield BatchMonitor(show)


def _place(model: str) -> str:
    """A model's file by its absolute path: workers may be started elsewhere."""
    is_file = os.path.sep in model or model.endswith(".safetensors")
    return os.path.abspath(model) if is_file else model  # noqa: PTH100 - without links resolved
