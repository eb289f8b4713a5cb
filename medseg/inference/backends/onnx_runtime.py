"""ONNX Runtime, the portable engine, on the CPU."""

from __future__ import annotations

import torch
from torch import nn

from medseg.inference.backends.batches import filled
from medseg.inference.backends.onnx_export import graph


class OnnxRuntime:
    """See :class:`medseg.inference.backends.Engine`."""

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        device: torch.device,
        *,
        free: bool = False,
    ) -> None:
        import onnxruntime

        onnxruntime.disable_telemetry_events()
        self.name = f"onnxruntime {onnxruntime.__version__}"
        self._batch = shape[0]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        content = graph(network, shape, free=free)
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common base class
            raise RuntimeError(str(error)) from error
        self._input = self._session.get_inputs()[0].name

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:  # noqa: D102
        # A session may be run by several threads at once.
        (logits,) = self._session.run(None, {self._input: filled(windows, self._batch).numpy()})
        return torch.from_numpy(logits[: len(windows)])
