"""What a training runs on, and which numbers it computes with there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from medseg.errors import UsageError
from medseg.system.notices import notify

# What torch calls processors without AVX-512 or anything newer.
_WITHOUT_BF16 = ("DEFAULT", "NO AVX", "AVX2")


@dataclass(frozen=True)
class Hardware:
    """What a training runs on.

    Several processes (``devices * nodes`` of them) share every step: each takes ``batch_size``
    patches, and the result is that of one process with a batch that many times as large.

    Attributes:
        accelerator: ``cpu``, ``gpu`` or ``auto``: a GPU where there is one.
        devices: GPUs, or processes on the CPU, of each node.
        nodes: Machines; each runs the same command, see docs/cluster.md.
        workers: Processes that cut and augment patches, for each device; 0 does it in the training process.
    """

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    nodes: int = 1
    workers: int = 1

    def __post_init__(self) -> None:
        if self.accelerator == "gpu" and not torch.cuda.is_available():
            raise UsageError("no GPU here", where="accelerator", remedy="use cpu", reason="device")
        there = torch.cuda.device_count() if self.kind == "gpu" else self.devices
        if min(self.devices, self.nodes) < 1 or self.devices > there or self.workers < 0:
            raise UsageError(
                f"cannot train on {self.devices} devices of {self.nodes} nodes with {self.workers} workers",
                where="hardware",
                remedy=f"this machine has {there} GPU(s)" if self.kind == "gpu" else "give at least one",
                reason="device",
            )

    @property
    def kind(self) -> str:
        """``gpu`` or ``cpu``."""
        gpu = self.accelerator == "gpu" or (self.accelerator == "auto" and torch.cuda.is_available())
        return "gpu" if gpu else "cpu"

    @property
    def processes(self) -> int:
        """How many take part."""
        return self.devices * self.nodes


def check_precision(precision: str, hardware: Hardware) -> None:
    """Refuses what the hardware cannot compute, and warns of what it computes slowly.

    Raises:
        UsageError: fp16 on a CPU (``precision``).
    """
    if precision == "fp16" and hardware.kind == "cpu":
        raise UsageError(
            "fp16 is for GPUs, and this training runs on the CPU",
            where="train.precision",
            remedy="use fp32, or bf16 where the processor has AVX-512",
            reason="precision",
        )
    # Without instructions for it bf16 takes over a hundred times as long as fp32 (measured with AVX2).
    if precision == "bf16" and hardware.kind == "cpu" and _capability() in _WITHOUT_BF16:
        notify("slow-bf16", "this processor computes bf16 very slowly: train.precision fp32 is faster here")


def _capability() -> str:
    return str(torch.backends.cpu.get_cpu_capability())
