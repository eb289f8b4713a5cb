"""Where an engine gets its network from: as a torch module, or as an exported graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from medseg.inference.backends import graph_cache
from medseg.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn


def window_shape(recipe: Recipe) -> tuple[int, ...]:
    """(N, C, ...) of the windows that a network is given; whole planes may have other sides."""
    return (recipe.predict.window_batch, recipe.in_channels, *recipe.patch.size)


class NetworkSource(Protocol):
    """A network in evaluation mode, on the CPU."""

    def network(self) -> nn.Module:
        """The network as a torch module."""
        ...

    def graph(self, shape: tuple[int, ...], *, free: bool = False) -> bytes:
        """The network as an ONNX file, for inputs (N, C, ...) of a shape, or with ``free`` sides.

        Raises:
            UsageError: the network has an operation that ONNX lacks (``engine``).
        """
        ...


@dataclass(frozen=True)
class LoadedNetwork:
    """A network that is in memory.

    Attributes:
        module: The network.
    """

    module: nn.Module

    def network(self) -> nn.Module:  # noqa: D102
        return self.module

    def graph(self, shape: tuple[int, ...], *, free: bool = False) -> bytes:  # noqa: D102
        from medseg.inference.backends import onnx_export

        return onnx_export.graph(self.module, shape, free=free)


@dataclass(frozen=True)
class FoldNetwork:
    """The network of one fold of a model, which is built only if no graph of it is found.

    Attributes:
        recipe: Defines the network.
        weights: Digest of the fold's weights.
        build: Builds the network, with its weights.
    """

    recipe: Recipe
    weights: str
    build: Callable[[], nn.Module]

    def network(self) -> nn.Module:  # noqa: D102
        return self.build()

    def graph(self, shape: tuple[int, ...], *, free: bool = False) -> bytes:  # noqa: D102
        key = graph_cache.graph_key(self.recipe, self.weights, shape, free=free)
        found = graph_cache.find(key)
        if found is None:
            from medseg.inference.backends import onnx_export

            network = self.build()
            found = onnx_export.graph(network, shape, free=free)
            graph_cache.link(key, onnx_export.cache_name(network, shape, free=free))
        return found
