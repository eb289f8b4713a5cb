"""ONNX Runtime, the portable engine, on the CPU."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medseg.inference.backends.graph_engine import GraphEngine
from medseg.system.processes import thread_count


class OnnxRuntime(GraphEngine):
    """See :class:`medseg.inference.backends.Engine`."""

    def _compile(self, graph: bytes, shape: tuple[int, ...]) -> None:
        import onnxruntime

        onnxruntime.disable_telemetry_events()
        self.name = f"onnxruntime {onnxruntime.__version__}"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = thread_count()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common base class
            raise RuntimeError(str(error)) from error
        self._input = self._session.get_inputs()[0].name

    def _run(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        # A session may be run by several threads at once.
        (logits,) = self._session.run(None, {self._input: batch})
        return np.asarray(logits)
