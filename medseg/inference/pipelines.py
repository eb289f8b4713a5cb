"""Pipelines of other tools as methods of segmentation: what a recipe's section ``pipeline`` asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from medseg.errors import UsageError
from medseg.images.label import Label
from medseg.images.volume import Mask, Volume
from medseg.inference.cleaning_steps import clean
from medseg.inference.lobe_checks import lobe_findings
from medseg.inference.prediction import Prediction
from medseg.recipe import Recipe
from medseg.recipe.pipeline import EnsemblePipeline, LungmaskPipeline
from medseg.system.memory import trim_heap
from medseg.system.notices import Notice, collect_notices, send

if TYPE_CHECKING:
    from medseg.inference.backends import Engine

LabelMap: TypeAlias = npt.NDArray[np.uint8 | np.uint16]


class PipelineCase(Protocol):
    """A scan that a pipeline has prepared; it can be used once."""

    def label_map(self) -> LabelMap:
        """The label map (X, Y, Z) on the scan's grid."""
        ...


class PipelineRuntime(Protocol):
    """A pipeline with its networks.

    Attributes:
        recipe: The recipe.
    """

    recipe: Recipe

    def prepare(self, volumes: Sequence[Volume]) -> PipelineCase:
        """A scan, prepared for the networks."""
        ...


def pipeline_windows(recipe: Recipe) -> tuple[tuple[int, ...], ...]:
    """The size of the windows of each network of a pipeline."""
    if isinstance(recipe.pipeline, EnsemblePipeline):
        return tuple(each.patch.size for each in recipe.pipeline.members for _ in range(each.folds))
    if recipe.pipeline is None or isinstance(recipe.pipeline, LungmaskPipeline):
        return (recipe.patch.size,) * len(recipe.network_sizes())
    return tuple(each.patch_size or recipe.patch.size for each in recipe.pipeline.configurations)


def pipeline_runtime(recipe: Recipe, engines: Sequence[Sequence[Engine]]) -> PipelineRuntime:
    """The pipeline of a recipe.

    Args:
        recipe: A recipe with a section ``pipeline``.
        engines: For each of its networks, the engine of each fold.
    """
    if isinstance(recipe.pipeline, LungmaskPipeline):
        from medseg.inference.lungmask.runtime import LungmaskRuntime

        return LungmaskRuntime(recipe, engines)
    from medseg.inference.nnunet.runtime import NnunetRuntime

    return NnunetRuntime(recipe, engines)


class PreparedPipeline:
    """A scan that a pipeline has prepared; see :class:`medseg.inference.prediction.PreparedScan`."""

    def __init__(self, runtime: PipelineRuntime, volumes: Sequence[Volume], notices: list[Notice]) -> None:
        self._labels: tuple[Label, ...] = runtime.recipe.labels
        self._steps = runtime.recipe.postprocess.steps
        self._grid, self._source = volumes[0].grid, volumes[0].source
        self._case: PipelineCase | None = runtime.prepare(volumes)
        self._notices = notices

    def predict(self, *, probabilities: bool = False) -> Prediction:
        """The mask; pipelines give neither probabilities nor entropy."""
        case, self._case = self._case, None
        if case is None:
            raise UsageError(
                "this prepared scan was already segmented", remedy="prepare the scan again", reason="used-up"
            )
        with collect_notices(pass_on=True) as notices:
            trim_heap()  # memory that reading and preparing used temporarily
            painted = case.label_map()
            clean(painted, self._grid, self._labels, self._steps)
            mask = Mask(painted, self._grid, self._labels, self._source)
            send(each.at(self._source.path) for each in lobe_findings(mask))
        return Prediction(mask, notices=(*self._notices, *notices))
