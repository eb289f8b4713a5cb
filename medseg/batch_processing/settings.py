"""How a batch is run: options, resources and what follows its progress."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from medseg.batch_processing.journal import Record
from medseg.batch_processing.messages import StopRequest
from medseg.errors import UsageError
from medseg.io import DicomFormat
from medseg.io.read_options import Trust


@dataclass(frozen=True)
class BatchOptions:
    """How the scans of a batch are read and segmented, and which files are written for each.

    Attributes:
        device: Device of the networks, as in :class:`medseg.Runtime`; several, such as ``cuda:0,cuda:1``, are
            shared out to the workers. ``auto`` takes all GPUs.
        engine: Inference engine: ``auto``, ``torch``, ``openvino`` or ``onnx``.
        any_modality: Accept scans of another modality than the model's, and CT that is not in HU.
        trust: NIfTI: which geometry to use if two disagree.
        nonfinite: Replacement for NaN and infinite voxels; without it such scans are refused.
        overlays: Also write a picture of every mask.
        probabilities: Also write a probability map for every label.
        per_label: Also write a binary mask of each label, ``per_label/<case>/<label>.nii.gz``.
        dicom: For DICOM scans also write ``dicom-seg`` or ``rtstruct``.
        store: Also store these DICOM masks on the DICOMweb server that the scans came from; a case counts as
            done only when they are stored.
        measure: ``lung``: also measure the lungs of every mask, see :func:`medseg.measure`. Whole lungs are
            columns of the table, all their parts are in ``measures/<case>.csv``.
        aerated_only: Leave out voxels of the lungs that are not darker than -500 HU.
        roi: Names of the labels to write, or text with commas between them; all if empty. Every model must
            have them.
        data_root: Folder that the paths of a manifest are relative to, instead of the manifest's own root.
        bom: Start ``results.csv`` with a byte order mark, so that Excel reads it as UTF-8.
        redo_edited: Continue, and also redo cases whose masks were edited by hand; a copy of each edited mask
            is kept beside the new one.

    Example:
        >>> medseg.BatchOptions(overlays=True).engine
        'auto'
    """

    device: str = "auto"
    engine: str = "auto"
    any_modality: bool = False
    trust: Trust | None = None
    nonfinite: float | None = None
    overlays: bool = False
    probabilities: bool = False
    per_label: bool = False
    dicom: DicomFormat | None = None
    measure: Literal["lung"] | None = None
    aerated_only: bool = False
    roi: Sequence[str] = ()
    data_root: Path | None = None
    bom: bool = False
    redo_edited: bool = False
    store: bool = False


@dataclass(frozen=True)
class RayCluster:
    """A Ray cluster that does the work, instead of processes of this machine.

    Attributes:
        address: Such as ``auto`` or ``ray://host:10001``; None to start a cluster on this machine.
        gpus: GPUs per worker, such as 0.5.

    Example:
        >>> medseg.BatchResources(cluster=medseg.RayCluster("auto", gpus=0.5)).cluster.gpus
        0.5
    """

    address: str | None = None
    gpus: float = 0.0


@dataclass(frozen=True)
class BatchResources:
    """What a batch may use of the machine or cluster, and which share of the cases it processes.

    Attributes:
        workers: Number of processes; by default one per core, as far as memory allows.
        memory: Limit for all of them together: bytes, or text such as ``8G``; by default nine tenths of the
            free memory.
        case_minutes: Time limit in minutes; a case that takes longer fails.
        shard: ``3/10`` does every tenth case from the third on, as one of ten runs.
        cluster: A cluster that does the work instead of this machine.

    Raises:
        UsageError: the memory cannot be parsed (``usage``).

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
        """The memory limit in bytes."""
        return bytes_of(self.memory)

    @property
    def shard_name(self) -> str | None:
        """The shard as part of a file name, such as ``3-of-10``."""
        # 01/2 is the same shard as 1/2.
        return self.shard and "-of-".join(str(int(n)) if n.isdecimal() else n for n in self.shard.split("/"))


@dataclass(frozen=True)
class BatchMonitor:
    """Follows a batch, instead of the progress bar.

    Attributes:
        show: Called at the start, after every case and at the end, with a JSON object each.
        stop: Lets the caller end the batch.
        command: The command line, for the journal.

    Example:
        >>> events = []
        >>> summary = medseg.batch(
        ...     "dataset/labels",
        ...     "monitored",
        ...     model="threshold",
        ...     resources=medseg.BatchResources(workers=1),
        ...     options=medseg.BatchOptions(any_modality=True),
        ...     progress=medseg.BatchMonitor(show=events.append),
        ... )
        >>> events[0]["event"], events[-1]["event"]
        ('start', 'end')
    """

    show: Callable[[Record], None] = lambda event: None
    stop: StopRequest = field(default_factory=StopRequest)
    command: str = ""


def bytes_of(text: int | str | None) -> int | None:
    """Bytes of ``8G``, ``1500M`` or a plain number; K, M, G and T are powers of 1024, with or without iB.

    Raises:
        UsageError: it is not a size (``usage``).
    """
    if not isinstance(text, str):
        return text
    # pydantic's ByteSize ignores what follows the number: 8,5G would be 8 bytes.
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", text.strip(), re.IGNORECASE)
    if not match:
        raise UsageError(
            f"cannot parse the size {text!r}", where="--memory", remedy="write 8G or 1500M", reason="usage"
        )
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))
