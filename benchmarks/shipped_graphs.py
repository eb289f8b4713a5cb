"""Exports the graphs of the models that are used most, so that medseg ships them: `make graphs`.

Run it after `lung_ct.safetensors` has changed. A graph is named after the weights and all else
that decides its function, so that one that was forgotten is never used for other weights.
"""

from __future__ import annotations

from medseg.inference.backends import graph_cache, onnx_export
from medseg.inference.backends.network_source import window_shape
from medseg.inference.model import Model

SHIPPED = ("lung_ct",)

folder = graph_cache.shipped_folder()
folder.mkdir(exist_ok=True)
for old in folder.glob("*.onnx"):
    old.unlink()
for name in SHIPPED:
    model = Model.load(name)
    shape, free = window_shape(model.recipe), model.recipe.predict.whole_planes
    for network, weights in zip(model.networks(), model.fold_digests(), strict=True):
        path = folder / f"{graph_cache.graph_key(model.recipe, weights, shape, free=free)}.onnx"
        path.write_bytes(onnx_export.export(network, shape, free=free))
        print(name, path, f"{path.stat().st_size / 1e6:.1f} MB")
