"""Pipelines of other tools as methods of segmentation: what a recipe's section ``pipeline`` asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from medseg.errors import UsageError
from medseg.images.label import Label
from medseg.images.label_selection import label_names, select_labels
from medseg.images.volume import Mask, Volume
from medseg.inference.cleaning_steps import clean
from medseg.inference.lobe_checks import lobe_findings
from medseg.inference.prediction import Prediction
from medseg.inference.uncertainty import Entropy
from medseg.recipe import Recipe
from medseg.recipe.bundle_pipeline import BundlePipeline
from medseg.recipe.pipeline import EnsemblePipeline, LungmaskPipeline
from medseg.system.memory import trim_heap
from medseg.system.notices import Notice, collect_notices, send

if TYPE_CHECKING:
    from medseg.inference.backends import Engine

LabelMap: TypeAlias = npt.NDArray[np.uint8 | np.uint16]
Maps: TypeAlias = Mapping[str, npt.NDArray[np.float32]]


class PipelineCase(Protocol):
    """A scan that a pipeline has prepared; it can be used once."""

    def label_map(self, *, entropy: Entropy | None = None, maps: Maps | None = None) -> LabelMap:
        """The label map (X, Y, Z) on the scan's grid.

        Args:
            entropy: Uncertainty, to which the case's is added.
            maps: For each label that is wanted, an array float32 (X, Y, Z) of zeros, into which its
                probability is written.
        """
        ...


class PipelineRuntime(Protocol):
    """A pipeline with its networks.

    Attributes:
        recipe: The recipe.
    """

    recipe: Recipe

    def prepare(self, volumes: Sequence[Volume], roi: Sequence[str] = ()) -> PipelineCase:
        """A scan, prepared for the networks.

        Args:
            volumes: The channels of the scan, on one grid.
            roi: Names of the labels that are wanted; all if empty. The label map may lack the others.
        """
        ...


def pipeline_windows(recipe: Recipe) -> tuple[tuple[int, ...], ...]:
    """The size of the windows of each network of a pipeline."""
    if isinstance(recipe.pipeline, EnsemblePipeline):
        return tuple(each.patch.size for each in recipe.pipeline.members for _ in range(each.folds))
    if recipe.pipeline is None or isinstance(recipe.pipeline, LungmaskPipeline | BundlePipeline):
        return (recipe.patch.size,) * len(recipe.network_sizes())
    return tuple(each.patch_size or recipe.patch.size for each in recipe.pipeline.configurations)


def pipeline_runtime(
    recipe: Recipe, engines: Sequence[Sequence[Engine]], device: str = "cpu"
) -> PipelineRuntime:
    """The pipeline of a recipe.

    Args:
        recipe: A recipe with a section ``pipeline``.
        engines: For each of its networks, the engine of each fold.
        device: Device of the engines.
    """
    if isinstance(recipe.pipeline, LungmaskPipeline):
        from medseg.inference.lungmask.runtime import LungmaskRuntime

        return LungmaskRuntime(recipe, engines)
    if isinstance(recipe.pipeline, BundlePipeline):
        from medseg.inference.bundle.runtime import BundleRuntime

        return BundleRuntime(recipe, engines, device)
    from medseg.inference.nnunet.runtime import NnunetRuntime

    return NnunetRuntime(recipe, engines, device)


class PreparedPipeline:
    """A scan that a pipeline has prepared; see :class:`medseg.inference.prediction.PreparedScan`.

    Args:
        runtime: The pipeline.
        volumes: The channels of the scan, on one grid.
        notices: What was told about the scan before.
        roi: Names of the labels that are wanted, or text with commas between them; all if empty.

    Raises:
        UsageError: a name of ``roi`` is not among the labels (``no-such-label``).
    """

    def __init__(
        self,
        runtime: PipelineRuntime,
        volumes: Sequence[Volume],
        notices: list[Notice],
        roi: str | Sequence[str] = (),
    ) -> None:
        self._labels: tuple[Label, ...] = runtime.recipe.labels
        self._steps = runtime.recipe.postprocess.steps
        self._asked = label_names(roi) if roi else ()
        if self._asked:
            select_labels(self._labels, self._asked, "roi")  # refuses others
        self._roi = () if self._steps else self._asked  # steps clean a mask of all labels
        self._grid, self._source = volumes[0].grid, volumes[0].source
        self._case: PipelineCase | None = runtime.prepare(volumes, self._roi)
        self._notices = notices

    def predict(self, *, probabilities: bool = False) -> Prediction:
        """See :meth:`medseg.inference.prediction.PreparedScan.predict`.

        Entropy and probabilities are those of the networks, before the mask is cleaned: the mean of several
        configurations; of a cascade, those of its last one; of parts that share a label, the larger
        probability; of lungmask's fused mode, those of the first network. Outside the box of non-zero voxels,
        or of the body, probabilities are 0.
        """
        case, self._case = self._case, None
        if case is None:
            raise UsageError(
                "this prepared scan was already segmented", remedy="prepare the scan again", reason="used-up"
            )
        with collect_notices(pass_on=True) as notices:
            trim_heap()  # memory that reading and preparing used temporarily
            names = [label.name for label in self._labels]
            entropy = Entropy(names)
            mapped = (self._roi or names) if probabilities else ()
            maps = {name: np.zeros(self._grid.shape, np.float32) for name in mapped}
            painted = case.label_map(entropy=entropy, maps=maps or None)
            clean(painted, self._grid, self._labels, self._steps)
            mask = Mask(painted, self._grid, self._labels, self._source)
            # With some labels only, the others may be missing from the mask, and were not asked for.
            known = tuple(label for label in self._labels if not self._asked or label.name in self._asked)
            send(each.at(self._source.path) for each in lobe_findings(replace(mask, labels=known)))
        return Prediction(mask, entropy.bits(), maps, (*self._notices, *notices))
