"""Loaders of training patches and validation scans; the epoch alone determines their order."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TypedDict

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Sampler, default_collate
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from medseg.errors import ResourceError
from medseg.recipe import Recipe
from medseg.training.case_cache import CachedCase
from medseg.training.patches import Patches, Sample

# What torch reports if a worker cannot place a batch in shared memory.
_SHARED_MEMORY_ERRORS = (
    "killed by signal: Bus error",
    "unable to write to file </torch_",
    "unable to allocate shared memory",
    "unable to mmap",
    "out of shared memory",
)


class Batch(TypedDict):
    """A batch of patches; see :class:`medseg.training.patches.Sample`.

    float32 ``image`` (N, in_channels, *patch), integer ``label`` (N, 1, *patch), int8 ``table`` (N, K, L).
    """

    image: torch.Tensor
    label: torch.Tensor
    table: torch.Tensor
    case: list[str]
    seed: torch.Tensor


class EpochSampler(Sampler[tuple[int, int]]):
    """Indices (epoch, number) of the patches of one epoch; each iteration is the next epoch.

    The sampler counts epochs itself: Lightning passes the epoch to samplers only after the workers have
    begun, so that a resumed training would see the patches of epoch 0 again.

    With several processes each takes its part of every step, patches ``batch * rank`` to
    ``batch * (rank + 1)``, so that together they see the patches of one process with the larger batch.

    Args:
        steps: Number of steps in an epoch.
        batch: Number of patches in a step of this process.
        first: Epoch of the first iteration, from 0.
        rank: Number of this process, from 0.
        world_size: Number of processes.
    """

    def __init__(self, steps: int, batch: int, first: int = 0, *, rank: int = 0, world_size: int = 1) -> None:
        self.steps, self.batch, self.rank, self.world_size = steps, batch, rank, world_size
        self.next = first

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, self.next = self.next, self.next + 1
        for step in range(self.steps):
            start = (step * self.world_size + self.rank) * self.batch
            yield from ((epoch, number) for number in range(start, start + self.batch))

    def __len__(self) -> int:
        return self.steps * self.batch


class Loader:
    """Batches of training patches, with a measurement of the time spent waiting for them.

    Attributes:
        waited_seconds: Total time spent waiting for batches.

    Args:
        patches: Data set of patches.
        sampler: Indices of the patches of each epoch.
        workers: Number of processes that cut and augment patches; 0 does both in this process.
    """

    def __init__(self, patches: Patches, sampler: EpochSampler, *, workers: int) -> None:
        self.waited_seconds = 0.0
        self._loader: DataLoader[Sample] = DataLoader(
            patches,
            batch_size=sampler.batch,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=collated,
            worker_init_fn=_initialise_worker,
            # The loader draws a seed for its workers; drawn from torch's global state it would shift dropout.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self._loader)
        while True:
            started = time.monotonic()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self.waited_seconds += time.monotonic() - started
            yield batch

    def close(self) -> None:
        """Ends the worker processes, which otherwise live as long as this object is referred to."""
        iterator, self._loader._iterator = self._loader._iterator, None
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            iterator._shutdown_workers()


class Scan(TypedDict):
    """A whole prepared validation case: ``image`` (C, X, Y, Z), ``label`` (X, Y, Z) and ``table`` (K, L)."""

    image: torch.Tensor
    label: torch.Tensor
    table: torch.Tensor
    case: str
    spacing_mm: tuple[float, float, float]


def patches(
    cases: Sequence[CachedCase],
    recipe: Recipe,
    *,
    workers: int,
    first_epoch: int,
    augmented: bool,
    rank: int,
    world_size: int,
) -> Loader:
    """The training batches of this process; see :class:`EpochSampler` for ``rank`` and ``world_size``."""
    rules = recipe.train
    sampler = EpochSampler(
        rules.steps_per_epoch * rules.accumulate,
        rules.batch_size,
        first_epoch,
        rank=rank,
        world_size=world_size,
    )
    return Loader(Patches(cases, recipe, augmented=augmented), sampler, workers=workers)


def scans(cases: Sequence[CachedCase], *, rank: int, world_size: int) -> DataLoader[Scan]:
    """The validation scans of this process, one at a time, memory-mapped.

    If there are more processes than scans, several processes get the last scan: a process without a scan
    would not take part in the validation, and the others would wait for it forever.
    """
    whole = []
    for case in cases[rank::world_size] or cases[-1:]:
        prepared, labels = case.load(), case.labels()
        whole.append(
            Scan(
                image=torch.from_numpy(prepared.image),
                label=torch.from_numpy(labels.classes),
                table=torch.from_numpy(labels.table),
                case=case.id,
                spacing_mm=prepared.grid.spacing_mm,
            )
        )
    return DataLoader(whole, batch_size=None, collate_fn=_as_is)  # type: ignore[arg-type]  # a list is a dataset


def collated(samples: Sequence[Sample]) -> Batch:
    """The batch of patches; tables get the same number of classes, and labels the same type."""
    classes = max(len(each["table"]) for each in samples)
    dtype = max((each["label"].dtype for each in samples), key=lambda one: one.itemsize)
    alike = [
        each
        | {
            "label": each["label"].to(dtype),
            "table": F.pad(each["table"], (0, 0, 0, classes - len(each["table"]))),
        }
        for each in samples
    ]
    batch: Batch = default_collate(alike)
    return batch


def raise_worker_error(error: BaseException) -> None:
    """Raises the error that explains the death of a worker, if ``error`` is about one.

    Raises:
        ResourceError: shared memory is too small for the batches of workers (``shared-memory``), or the
            system ended a worker because memory ran out (``memory``).
    """
    text = str(error)
    if any(each in text for each in _SHARED_MEMORY_ERRORS):
        raise ResourceError(
            "shared memory (/dev/shm) is too small for the batches of the workers",
            where="training",
            remedy="give --workers 0, or enlarge it: docker run --shm-size=2g, or --ipc=host",
            reason="shared-memory",
        ) from None
    if "DataLoader worker" in text and "killed by signal: Killed" in text:
        raise ResourceError(
            "the system ended a worker that augments patches, most likely because memory ran out",
            where="training",
            remedy="give fewer --workers, or use a machine with more memory",
            reason="memory",
        ) from None


def _initialise_worker(worker: int) -> None:
    """Leaves Ctrl-C to the main process, and prints no traceback when the main process ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # not SIGTERM, by which the main process ends its workers
    original = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not isinstance(error, ConnectionError):  # errors in patches reach the main process
            original(kind, error, trace)

    sys.excepthook = hook


def _as_is(scan: Scan) -> Scan:
    return scan
