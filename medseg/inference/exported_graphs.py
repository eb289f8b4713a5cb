"""The exported graphs of a model, with which it is used without torch."""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

from medseg.errors import UsageError
from medseg.inference.backends import graph_cache
from medseg.inference.backends.network_source import FoldNetwork, graph_forms
from medseg.inference.model_file import ModelFile

if TYPE_CHECKING:
    from medseg.inference.model import Model


def check_weights(file: ModelFile) -> None:
    """Refuses a file whose weights do not fit its recipe.

    A network that was exported has passed this check, so that torch is not needed again.

    Raises:
        ModelRefused: they do not fit (reason ``weights``).
    """
    recipe = file.recipe
    keys = [
        graph_cache.graph_key(recipe, weights, shape, free=free, stage=stage)
        for weights in file.fold_digests()
        for stage, shape, free in graph_forms(recipe)
    ]
    if any(graph_cache.find(key) is None for key in keys):
        from medseg.inference.model import Model

        Model.of_file(file)


def export(model: Model) -> None:
    """Puts the graphs of a model into the cache, so that its first use is as fast as any other.

    Does nothing if the package for it is missing, or the network has an operation that ONNX lacks.
    """
    if find_spec("onnx") is None:
        return
    networks = model.networks()
    recipe = model.recipe
    for network, weights in zip(networks, model.fold_digests(), strict=True):
        for stage, shape, free in graph_forms(recipe):
            source = FoldNetwork(recipe, weights, lambda network=network: network, stage)  # type: ignore[misc]
            with suppress(UsageError, RuntimeError):
                source.graph(shape, free=free)
