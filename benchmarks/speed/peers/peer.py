"""Shared by all pipelines in this folder: the network, the settings, and the timing of stages."""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import time
from pathlib import Path
from typing import Any

SPACING_MM = (1.5, 1.5, 1.5)
WINDOW = (96, 96, 96)
OVERLAP = 0.5
LOW_HU, HIGH_HU = -1024.0, 276.0
THREADS = 2


class Stages:
    """Seconds per stage, printed as one JSON line at the end; CPU seconds are printed on standard error."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        self._last, self._last_cpu = time.perf_counter(), 0.0

    def done(self, name: str) -> None:
        if (cuda := _cuda()) is not None:
            cuda.synchronize()
        now, cpu = time.perf_counter(), time.process_time()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self.cpu_seconds[name] = self.cpu_seconds.get(name, 0.0) + cpu - self._last_cpu
        self._last, self._last_cpu = now, cpu

    def tell(self) -> None:
        if (cuda := _cuda()) is not None:
            self.seconds["gpu_mb"] = cuda.max_memory_allocated() / 2**20
        print(
            json.dumps({name: round(value, 2) for name, value in self.cpu_seconds.items()}), file=sys.stderr
        )
        print(json.dumps(self.seconds))


def _cuda() -> Any:
    """torch's module for GPUs if it is in use."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def arguments() -> argparse.Namespace:
    """Arguments scan, model and mask; ``--allocator`` sets the allocator thresholds that medseg uses."""
    parser = argparse.ArgumentParser()
    parser.add_argument("scan", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("mask", type=Path)
    parser.add_argument("--allocator", action="store_true")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--device", default="cpu")
    found = parser.parse_args()
    if found.allocator:
        libc = ctypes.CDLL("libc.so.6")
        for option in (-3, -1):
            libc.mallopt(option, 2**31 - 1)
    return found


def network(path: Path) -> Any:
    """The trained network with the background logit, which medseg omits, added as channel 0."""
    import torch

    from medseg.inference.model import Model

    torch.set_num_threads(THREADS)
    inner = Model.load(path).networks()[0]

    class WithBackground(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            logits = self.inner(image)
            return torch.cat([torch.zeros_like(logits[:, :1]), logits], 1)

    return WithBackground().eval().requires_grad_(False)


sys.path.insert(0, str(Path(__file__).parents[3]))
