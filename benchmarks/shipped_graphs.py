"""Exports the graphs of the models that are used most, so that medseg ships them: `make graphs`.

Run it after the weights of one of them have changed. A graph is named after the weights and all else
that decides its function, so that one that was forgotten is never used for other weights.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from medseg.inference.backends import graph_cache, onnx_export
from medseg.inference.backends.network_source import graph_forms, submodule
from medseg.inference.model import Model

SHIPPED = ("lung_ct", "lung_ct_context")


def halved(graph: bytes) -> bytes:
    """The same graph, with those weights in half precision that are equal in it, for a smaller file."""
    model = onnx.load_from_string(graph)
    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        half = values.astype(np.float16)
        if values.dtype == np.float32 and np.array_equal(half.astype(np.float32), values):
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
            casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return bytes(model.SerializeToString())


folder = graph_cache.shipped_folder()
folder.mkdir(exist_ok=True)
for old in folder.glob("*.onnx"):
    old.unlink()
for name in SHIPPED:
    model = Model.load(name)
    for network, weights in zip(model.networks(), model.fold_digests(), strict=True):
        for stage, shape, free in graph_forms(model.recipe):
            key = graph_cache.graph_key(model.recipe, weights, shape, free=free, stage=stage)
            path = folder / f"{key}.onnx"
            graph = onnx_export.export(submodule(network, stage), shape, free=free)
            # Batch norms are folded into the weights of lung_ct, which are then not equal in half precision.
            path.write_bytes(graph if stage is None else halved(graph))
            print(name, path, f"{path.stat().st_size / 1e6:.1f} MB")
