"""How torch runs a network on a GPU: measured once for a model and a card, and remembered."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import TypeAlias

import torch

from medseg.inference.backends import graph_cache

_ROUNDS = 3
_MOST_WINDOWS = 32
_GAIN = 0.95  # a larger batch or a graph must save a twentieth of the time
_TOLERANCE = 0.02
"""Largest difference of logits from single precision that is accepted, as a share of the largest logit: forty
times the rounding of half precision (2^-11)."""


@dataclass(frozen=True)
class Mode:
    """How windows are run.

    Attributes:
        channels_last: Layout of weights and windows in memory.
        half: Whether convolutions are computed in half precision, by torch's autocast.
        batch: Number of windows that are run at once.
        graph: Whether full batches replay a captured CUDA graph.
    """

    channels_last: bool = True
    half: bool = False
    batch: int = 1
    graph: bool = False


Run: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""Logits float32 (N, labels, ...) of windows float32 (N, C, ...) on the device."""


def mode_key(
    weights: str, shape: tuple[int, ...], device: torch.device, *, free: bool, stage: str | None
) -> str:
    """A digest of what decides the fastest mode: versions, weights, windows and the device's name."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    facts = [graph_cache.versions(), weights, stage, shape, free, name]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def remembered(key: str, measure: Callable[[], Mode]) -> Mode:
    """The mode that was measured for a key, now or by an earlier process."""
    path = graph_cache.folder() / f"{key}.mode"
    kept = graph_cache.read(path)
    if kept is not None:
        with suppress(ValueError, TypeError):
            return Mode(**json.loads(kept))
    found = measure()
    graph_cache.write(path, json.dumps(asdict(found)).encode())
    return found


def fastest(
    build: Callable[[Mode], Run],
    windows: Callable[[int], torch.Tensor],
    default: Mode,
    *,
    graphs: bool = False,
    seconds: Callable[[Run, torch.Tensor], float] | None = None,
) -> Mode:
    """The mode with the least time per window.

    First the layouts and, if the default computes in half precision, both precisions; with the best of them
    larger batches, and last a graph. A mode that fails, or whose logits differ too much from those in single
    precision, is not chosen.

    Args:
        build: Makes the network ready to run in a mode.
        windows: Gives so many windows on the device.
        default: The mode if no other is measured to be faster.
        graphs: Whether graphs may be used.
        seconds: Measures a call, in seconds.
    """
    measure = seconds or _seconds
    plain = replace(default, channels_last=False, half=False, graph=False)
    exact = build(plain)(windows(plain.batch))

    def cost(mode: Mode) -> float:
        try:
            run, given = build(mode), windows(mode.batch)
            if not _agrees(run(given)[: len(exact)], exact):
                return math.inf
            return measure(run, given) / mode.batch
        except RuntimeError:  # also out of memory
            return math.inf

    precisions = (True, False) if default.half else (False,)
    modes = [
        replace(default, channels_last=last, half=half) for last, half in product((True, False), precisions)
    ]
    costs = {mode: cost(mode) for mode in modes}
    best = min(modes, key=lambda mode: costs[mode])
    least = costs[best]
    if math.isinf(least):
        return default
    further = replace(best, batch=2 * best.batch)
    while further.batch <= _MOST_WINDOWS and (found := cost(further)) < _GAIN * least:
        best, least, further = further, found, replace(further, batch=2 * further.batch)
    graphed = replace(best, graph=True)
    return graphed if graphs and cost(graphed) < _GAIN * least else best


def _agrees(found: torch.Tensor, exact: torch.Tensor) -> bool:
    most = max(1.0, float(exact.abs().max()))
    return float((found - exact).abs().max()) <= _TOLERANCE * most  # also false for nan


def _seconds(run: Run, windows: torch.Tensor) -> float:
    """The shortest of a few calls, after one that is not counted."""
    synchronize: Callable[[], None] = torch.cuda.synchronize if windows.is_cuda else lambda: None
    found = []
    for _ in range(_ROUNDS + 1):
        synchronize()
        started = time.perf_counter()
        run(windows)
        synchronize()
        found.append(time.perf_counter() - started)
    return min(found[1:])
