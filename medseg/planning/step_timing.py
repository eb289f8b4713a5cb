"""How long a training takes: three real steps of it, measured."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

import torch
from torch import nn

from medseg.datasets.manifest import Case
from medseg.recipe import Recipe
from medseg.training.case_cache import cached
from medseg.training.dataloaders import patches
from medseg.training.lightning_module import SegmentationModule
from medseg.training.optimizer import build as build_optimizer

_STEPS = 3
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class StepTiming:
    """What three steps of a training took.

    Attributes:
        parameters: Number of weights.
        step_s: Seconds of the fastest step, with cutting and augmenting its patches.
        prepare_s: Seconds to prepare one case, once.
        device: Where they were measured.
        threads: Number of threads.
    """

    parameters: int
    step_s: float
    prepare_s: float
    device: str
    threads: int

    def epoch_s(self, recipe: Recipe) -> float:
        """Seconds of an epoch without validation."""
        return self.step_s * recipe.train.steps_per_epoch * recipe.train.accumulate


def time_steps(recipe: Recipe, cases: Sequence[Case], device: str) -> StepTiming:
    """The time of three real steps on one case: its patches, forward, backward and optimiser.

    The case is prepared in a temporary folder, so that whatever is wrong with it shows here.

    Args:
        recipe: The recipe.
        cases: Cases of the training; the one with the smallest files is used.
        device: Device of torch.

    Raises:
        InputRefused: `medseg check` finds an error in the case (``data-errors``).
        ResourceError: memory is short.
    """
    smallest = min(cases, key=_size)
    with tempfile.TemporaryDirectory() as place, torch.random.fork_rng(devices=[]):
        started = time.perf_counter()
        case = cached(smallest, recipe, Path(place))
        prepared = time.perf_counter() - started
        loader = patches([case], recipe, workers=0, first_epoch=0, augmented=True, rank=0, world_size=1)
        module = SegmentationModule(recipe, "")
        network = module.network.to(device).train()
        optimiser = build_optimizer(network.parameters(), recipe.train)
        dtype = _TYPES[recipe.train.precision]
        taken = []
        batches = chain.from_iterable(repeat(loader))  # an epoch may have fewer steps
        for _ in range(_STEPS):
            started = time.perf_counter()
            batch = next(batches)
            with torch.autocast(torch.device(device).type, dtype, enabled=dtype != torch.float32):
                outputs = network(batch["image"].to(device))
            loss = module.loss(outputs, batch["label"].to(device), batch["table"].to(device))
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), recipe.train.gradient_clip)
            optimiser.step()
            optimiser.zero_grad()
            float(loss.detach())  # waits for a GPU
            taken.append(time.perf_counter() - started)
        weights = sum(each.numel() for each in network.parameters())
    return StepTiming(weights, min(taken), prepared, device, torch.get_num_threads())


def _size(case: Case) -> int:
    files = [path for image in case.images for path in ([image] if image.is_file() else image.glob("*"))]
    return sum(path.stat().st_size for path in files)
