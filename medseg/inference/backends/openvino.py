"""OpenVINO on the CPU: 1.5 to 2.2 times as fast as eager torch, logits equal to about 1e-4."""

from __future__ import annotations

import threading

import torch
from torch import nn

from medseg.inference.backends.batches import filled
from medseg.inference.backends.onnx_export import graph
from medseg.system.quiet_libraries import without_package


class OpenVino:
    """See :class:`medseg.inference.backends.Engine`."""

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        device: torch.device,
        *,
        free: bool = False,
    ) -> None:
        # If its telemetry package cannot be imported, OpenVINO uses a stub that reports nothing.
        with without_package("openvino_telemetry"):
            import openvino

        self.name = f"openvino {openvino.__version__.split('-')[0]}"
        self._batch = shape[0]
        settings = {
            # The default is bfloat16 if the processor has it, so that masks would differ between machines.
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            # With pinning, every process would use the same first cores.
            "ENABLE_CPU_PINNING": False,
            "PERFORMANCE_HINT": "LATENCY",
        }
        core = openvino.Core()
        model = core.read_model(graph(network, shape, free=free), b"")
        if free:
            model.reshape([*shape[:2], *(-1 for _ in shape[2:])])
        compiled = core.compile_model(model, "CPU", settings)
        self._request = compiled.create_infer_request()
        # A request has one input and one output: a second thread would overwrite them.
        self._lock = threading.Lock()

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:  # noqa: D102
        batch = filled(windows, self._batch).numpy()
        with self._lock:
            # The output's memory belongs to the request and is overwritten by the next call, so it is copied.
            result = self._request.infer([batch], share_inputs=True, share_outputs=False)
        return torch.from_numpy(result[0][: len(windows)])
