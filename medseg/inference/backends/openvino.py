"""OpenVINO on the CPU: 1.5 to 2.2 times as fast as eager torch, logits equal to about 1e-5 of the largest."""

from __future__ import annotations

import functools
import hashlib
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from medseg.errors import ResourceError
from medseg.inference.backends.graph_engine import GraphEngine
from medseg.inference.backends.instance_norms import replace_norms
from medseg.system.processes import thread_count
from medseg.system.quiet_libraries import without_package

if TYPE_CHECKING:
    import openvino


@functools.cache
def _core() -> openvino.Core:
    """The runtime of this process, which is kept until the process ends.

    Its CPU plugin gives the thread that loads it a signal stack and frees that memory when it is unloaded,
    from whichever thread. The next signal with a handler, Ctrl-C for one, would then end the process (seen
    with OpenVINO 2026.4; ``SigAltStackSetup`` in its CPU plugin).
    """
    # If its telemetry package cannot be imported, OpenVINO uses a stub that reports nothing.
    with without_package("openvino_telemetry"):
        import openvino

    return openvino.Core()


class OpenVino(GraphEngine):
    """See :class:`medseg.inference.backends.Engine`."""

    def _compile(self, graph: bytes, shape: tuple[int, ...]) -> None:
        core = _core()
        import openvino

        self.name = f"openvino {openvino.__version__.split('-')[0]}"
        settings = {
            # The default is bfloat16 if the processor has it, so that masks would differ between machines.
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": thread_count(),
            # With pinning, every process would use the same first cores.
            "ENABLE_CPU_PINNING": False,
            "PERFORMANCE_HINT": "LATENCY",
        }
        model = core.read_model(graph, b"")
        if -1 in shape:
            model.reshape([*shape])
        replace_norms(model)
        self._compiled = core.compile_model(model, "CPU", settings)
        self._request = self._compiled.create_infer_request()
        # A request has one input and one output: a second thread would overwrite them.
        self._lock = threading.Lock()

    def release_memory(self) -> None:
        """Frees the network's feature maps, which OpenVINO keeps from one run to the next."""
        with self._lock:
            self._compiled.release_memory()

    def _run(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with self._lock:
            # The output's memory belongs to the request and is overwritten by the next call, so it is copied.
            return np.asarray(self._request.infer([batch], share_inputs=True, share_outputs=False)[0])


def write_intermediate(graph: bytes, path: Path) -> dict[str, str]:
    """Writes an ONNX file in OpenVINO's own format; returns the name and SHA-256 of both files.

    Its normalisations are those that medseg runs, so that other programs get the same logits.

    Args:
        graph: The ONNX file.
        path: The ``.xml`` file to write; the weights, as float32, are in a ``.bin`` file beside it.

    Raises:
        ResourceError: OpenVINO is not installed (``missing-extra``).
    """
    if find_spec("openvino") is None:
        raise ResourceError(
            "OpenVINO's format needs the package openvino",
            where="openvino",
            remedy="pip install 'medseg[fast]'",
            reason="missing-extra",
        )
    core = _core()
    import openvino

    model = core.read_model(graph, b"")
    replace_norms(model)
    openvino.save_model(model, path, compress_to_fp16=False)
    files = (path, path.with_suffix(".bin"))
    return {each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in files}
