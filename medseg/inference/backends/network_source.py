"""Where an engine gets its network from: as a torch module, or as an exported graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from medseg.inference.backends import graph_cache
from medseg.inference.pipelines import pipeline_windows
from medseg.recipe import EnsemblePipeline, Recipe

if TYPE_CHECKING:
    from torch import nn


def window_shape(recipe: Recipe) -> tuple[int, ...]:
    """(N, C, ...) of the windows that a network is given; whole planes may have other sides."""
    return (recipe.predict.window_batch, recipe.in_channels, *recipe.patch.size)


class GraphForm(NamedTuple):
    """A graph that a model's recipe needs.

    Attributes:
        stage: Which network of a model with several; None if there is one.
        shape: (N, C, ...) of the windows.
        free: Whether the sides of a window may differ from those in ``shape``.
    """

    stage: graph_cache.Stage | None
    shape: tuple[int, ...]
    free: bool


def graph_forms(recipe: Recipe) -> tuple[GraphForm, ...]:
    """The graphs that are needed to run each fold of a recipe."""
    if isinstance(recipe.pipeline, EnsemblePipeline):
        forms = [
            (window_shape(each), each.predict.whole_planes)
            for member, each in zip(recipe.pipeline.members, recipe.member_recipes(), strict=True)
            for _ in range(member.folds)
        ]
        return tuple(GraphForm(f"networks.{number}", *form) for number, form in enumerate(forms))
    windows = pipeline_windows(recipe)
    if len(windows) > 1:
        return tuple(
            GraphForm(f"networks.{number}", (1, size[2], *window), False)
            for number, (size, window) in enumerate(zip(recipe.network_sizes(), windows, strict=True))
        )
    if recipe.context is None:
        return (GraphForm(None, window_shape(recipe), recipe.predict.whole_planes),)
    coarse = (1, len(recipe.channels), *recipe.context.size)
    return (GraphForm("coarse", coarse, False), GraphForm("fine", (1, *window_shape(recipe)[1:]), False))


def submodule(networks: nn.Module, stage: graph_cache.Stage | None) -> nn.Module:
    """One of a fold's networks; None: the only one."""
    return networks if stage is None else networks.get_submodule(stage)


class NetworkSource(Protocol):
    """A network in evaluation mode, on the CPU.

    Attributes:
        packaged: The graph of a key, if there are only exported graphs; None if torch can build the network.
    """

    @property
    def packaged(self) -> Callable[[str], bytes] | None: ...  # noqa: D102

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
        packaged: None.
    """

    module: nn.Module
    packaged: None = None

    def network(self) -> nn.Module:  # noqa: D102
        return self.module

    def graph(self, shape: tuple[int, ...], *, free: bool = False) -> bytes:  # noqa: D102
        from medseg.inference.backends import onnx_export

        return onnx_export.graph(self.module, shape, free=free)


@dataclass(frozen=True)
class FoldNetwork:
    """A network of one fold of a model, which is built only if no graph of it is found.

    Attributes:
        recipe: Defines the network.
        weights: Digest of the fold's weights.
        build: Builds the networks of the fold, with their weights.
        stage: Which network of a model with several this is; None if there is one.
        packaged: The graph of a key, for a package of exported networks, which needs no others.
    """

    recipe: Recipe
    weights: str
    build: Callable[[], nn.Module]
    stage: graph_cache.Stage | None = None
    packaged: Callable[[str], bytes] | None = None

    def network(self) -> nn.Module:  # noqa: D102
        return submodule(self.build(), self.stage)

    def graph(self, shape: tuple[int, ...], *, free: bool = False) -> bytes:  # noqa: D102
        key = graph_cache.graph_key(self.recipe, self.weights, shape, free=free, stage=self.stage)
        if self.packaged is not None:
            return self.packaged(key)
        found = graph_cache.find(key)
        if found is None:
            from medseg.inference.backends import onnx_export

            network = self.network()
            found = onnx_export.graph(network, shape, free=free)
            graph_cache.link(key, onnx_export.cache_name(network, shape, free=free))
        return found
