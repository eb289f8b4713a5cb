"""Patches and whole scans, brought to the training loop in an order that only the epoch decides."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TypedDict

import torch
from torch.utils.data import DataLoader, Sampler

from medseg.recipe import Recipe
from medseg.training.case_cache import CachedCase, Patches, Sample


class Batch(TypedDict):
    """Patches side by side: ``image`` (N, in_channels, *patch), ``label`` (N, L, *patch)."""

    image: torch.Tensor
    label: torch.Tensor
    case: list[str]
    seed: torch.Tensor


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, number) for the patches of an epoch; each iteration is the next epoch.

    It counts by itself: Lightning tells samplers the epoch only after loaders with workers have
    begun, so that a resumed training would see the patches of epoch 0 once more.

    With several processes each takes its part of every step: of a step's patches ``batch * share``
    to ``batch * (share + 1)``, so that together they see what one process with the larger batch sees.

    Args:
        steps: Steps of an epoch.
        batch: Patches of a step, of this process.
        first: Epoch of the first iteration, counted from 0.
        share: Which process this is.
        shares: How many there are.
    """

    def __init__(self, steps: int, batch: int, first: int = 0, *, share: int = 0, shares: int = 1) -> None:
        self.steps, self.batch, self.share, self.shares = steps, batch, share, shares
        self.next = first

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, self.next = self.next, self.next + 1
        for step in range(self.steps):
            start = (step * self.shares + self.share) * self.batch
            yield from ((epoch, number) for number in range(start, start + self.batch))

    def __len__(self) -> int:
        return self.steps * self.batch


class Loader:
    """The batches of one epoch after another, and how long the training waited for them.

    Attributes:
        waited_seconds: Spent in waiting, since the loader was made.

    Args:
        patches: What to load.
        sampler: Which of them, and in which order.
        workers: Processes that cut and augment; 0 does it in this one.
    """

    def __init__(self, patches: Patches, sampler: EpochSampler, *, workers: int) -> None:
        self.waited_seconds = 0.0
        self._loader: DataLoader[Sample] = DataLoader(
            patches,
            batch_size=sampler.batch,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=_quiet,
            # The loader draws a seed for its workers; from torch's own generator that would shift dropout.
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


class Scan(TypedDict):
    """A whole prepared validation case: ``image`` (C, X, Y, Z), ``label`` (L, X, Y, Z) in 1, 0, -1."""

    image: torch.Tensor
    label: torch.Tensor
    case: str
    spacing_mm: tuple[float, float, float]


def patches(
    cases: Sequence[CachedCase],
    recipe: Recipe,
    *,
    workers: int,
    first_epoch: int,
    augmented: bool,
    share: int,
    shares: int,
) -> Loader:
    """The training batches of this process. See :class:`EpochSampler` for ``share`` and ``shares``."""
    rules = recipe.train
    sampler = EpochSampler(
        rules.steps_per_epoch * rules.accumulate, rules.batch_size, first_epoch, share=share, shares=shares
    )
    return Loader(Patches(cases, recipe, augmented=augmented), sampler, workers=workers)


def scans(cases: Sequence[CachedCase], *, share: int, shares: int) -> DataLoader[Scan]:
    """The validation scans of this process, one at a time, backed by files.

    Where there are more processes than scans some see one that another sees as well: a process
    without any would not take part in the validation, and the others would wait for it.
    """
    whole = []
    for case in cases[share::shares] or cases[-1:]:
        prepared = case.load()
        assert prepared.label is not None  # cached cases always have one
        spacing_mm = prepared.grid.spacing_mm
        whole.append(Scan(image=prepared.image, label=prepared.label, case=case.id, spacing_mm=spacing_mm))
    return DataLoader(whole, batch_size=None, collate_fn=_as_is)  # type: ignore[arg-type]  # a list is a dataset


def _quiet(worker: int) -> None:
    """A worker leaves Ctrl-C to the main process, and prints no traceback when that goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    told = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not isinstance(error, ConnectionError):  # the errors of patches go another way
            told(kind, error, trace)

    sys.excepthook = hook


def _as_is(scan: Scan) -> Scan:
    return scan
