"""Base class of the engines that run an exported graph, in batches of a fixed size."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from medseg.inference.backends.network_source import NetworkSource


class GraphEngine(ABC):
    """An engine that compiles the network's ONNX graph for batches of one size, and runs it on the CPU.

    A subclass compiles a graph and runs one batch; see :class:`medseg.inference.backends.Engine`.
    """

    name: str

    def __init__(
        self,
        network: NetworkSource,
        shape: tuple[int, ...],
        device: str,
        *,
        free: bool = False,
    ) -> None:
        self._batch = shape[0]
        sides = (-1 for _ in shape[2:]) if free else shape[2:]
        self._compile(network.graph(shape, free=free), (*shape[:2], *sides))

    def __call__(self, windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:  # noqa: D102
        return self._run(filled(windows, self._batch))[: len(windows)]

    def release_memory(self) -> None:
        """Frees what a run has left for the next one, which then allocates it again."""
        return

    @abstractmethod
    def _compile(self, graph: bytes, shape: tuple[int, ...]) -> None:
        """Prepares an ONNX file for inputs of a shape, in which -1 is a side of any length."""

    @abstractmethod
    def _run(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits of a full batch, in an array that later calls leave alone; called by several threads."""


def filled(windows: npt.NDArray[np.float32], batch: int) -> npt.NDArray[np.float32]:
    """Contiguous (batch, C, ...): the windows, padded with zeros to a full batch."""
    if len(windows) < batch:
        rest = np.zeros((batch - len(windows), *windows.shape[1:]), dtype=np.float32)
        windows = np.concatenate([windows, rest])
    return np.ascontiguousarray(windows)
