"""The hardware of a training, and the precisions that it supports."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from medseg.errors import UsageError
from medseg.system.devices import resolved
from medseg.system.notices import notify

# Torch's names of processors without AVX-512 or anything newer.
_WITHOUT_BF16 = ("DEFAULT", "NO AVX", "AVX2")


@dataclass(frozen=True)
class Hardware:
    """The devices and processes of a training.

    ``devices * nodes`` processes share every step. Each takes ``batch_size`` patches, and the result is
    that of one process with a batch ``devices * nodes`` times as large.

    Attributes:
        device: ``auto`` (a GPU if there is one), ``cpu``, ``gpu``, ``cuda``, ``cuda:1`` or ``mps``.
        devices: Number of GPUs, or of processes on the CPU, per node.
        nodes: Number of machines. Each runs the same command, see docs/cluster.md.
        workers: Number of processes per device that cut and augment patches; 0 does both in the training
            process.

    Example:
        >>> medseg.Hardware("cpu", devices=2, workers=0).kind
        'cpu'
    """

    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    workers: int = 1

    def __post_init__(self) -> None:
        available = {"gpu": torch.cuda.device_count(), "mps": 1}.get(self.kind, self.devices)
        if self.kind == "gpu" and not 0 <= (self.index or 0) < available:
            raise UsageError(f"no device {self.device!r}", where="device", remedy="use cpu", reason="device")
        if (
            min(self.devices, self.nodes) < 1
            or self.devices > (available if self.index is None else 1)
            or self.workers < 0
        ):
            raise UsageError(
                f"cannot train with devices={self.devices}, nodes={self.nodes}, workers={self.workers}",
                where="hardware",
                remedy=f"this machine has {available} GPU(s)" if self.kind == "gpu" else "give at least one",
                reason="device",
            )

    @property
    def kind(self) -> str:
        """``cpu``, ``gpu`` for CUDA, or ``mps``."""
        return self.torch_device.type.replace("cuda", "gpu")

    @property
    def index(self) -> int | None:
        """The number of the only GPU to use, as in ``cuda:1``; None for any."""
        return self.torch_device.index

    @property
    def processes(self) -> int:
        """Number of processes that train."""
        return self.devices * self.nodes

    @property
    def torch_device(self) -> torch.device:
        """The device of this process."""
        return torch.device(resolved(self.device))


def is_first_process() -> bool:
    """Whether this is the first, or only, process of a training: the one that writes and reports."""
    return bool(rank_zero_only.rank == 0)


def is_started_by_srun() -> bool:
    """Whether `srun` has started this process, as one of the tasks of a SLURM job step."""
    return "SLURM_STEP_ID" in os.environ or "SLURM_STEPID" in os.environ


def check_slurm(hardware: Hardware) -> None:
    """Refuses a SLURM job step whose tasks are not the processes of the training.

    Without `srun`, a training on one machine starts its own processes, whatever the number of tasks.

    Raises:
        UsageError: the numbers differ, or several machines are used without `srun` (``slurm-tasks``).
    """
    if "SLURM_NTASKS" not in os.environ:
        return
    if not is_started_by_srun():
        if hardware.nodes > 1:
            raise _slurm_error(f"{hardware.nodes} machines need `srun`, which has not started this", hardware)
        return
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ.get("SLURM_NTASKS", "1"))
    if tasks != hardware.processes:
        raise _slurm_error(
            f"`srun` has started {tasks} task(s), but the training has {hardware.processes} process(es)",
            hardware,
        )


def _slurm_error(problem: str, hardware: Hardware) -> UsageError:
    return UsageError(
        problem,
        where="SLURM",
        remedy=f"start it with srun --ntasks={hardware.processes} --ntasks-per-node={hardware.devices}, or "
        "change --devices and --nodes",
        reason="slurm-tasks",
    )


def check_precision(precision: str, hardware: Hardware) -> None:
    """Refuses a precision that the hardware does not support; warns if it is slow there.

    Raises:
        UsageError: fp16 on a CPU (``precision``).
    """
    if precision == "fp16" and hardware.kind == "cpu":
        raise UsageError(
            "fp16 needs a GPU, and this training runs on the CPU",
            where="train.precision",
            remedy="use fp32, or bf16 where the processor has AVX-512",
            reason="precision",
        )
    # Without its own instructions bf16 takes over a hundred times as long as fp32 (measured with AVX2).
    if precision == "bf16" and hardware.kind == "cpu" and _capability() in _WITHOUT_BF16:
        notify("slow-bf16", "bf16 is very slow on this processor: train.precision fp32 is faster here")


def _capability() -> str:
    return str(torch.backends.cpu.get_cpu_capability())
