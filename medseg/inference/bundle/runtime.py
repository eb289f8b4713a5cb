"""The network of a pipeline ``bundle``, ready to segment scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt

from medseg.images.volume import Volume
from medseg.inference.bundle.windows import Floats, Network, mean_logits
from medseg.inference.label_decision import empty_label_map
from medseg.inference.nnunet.restoring import softmax
from medseg.inference.uncertainty import Entropy
from medseg.preprocessing.bundle import bundle_input, resampled, sampling, turned, turned_spacing
from medseg.recipe import Recipe
from medseg.recipe.bundle_pipeline import BundlePipeline

LabelMap: TypeAlias = npt.NDArray[np.uint8 | np.uint16]


class BundleRuntime:
    """The network of a recipe with a pipeline ``bundle``.

    Args:
        recipe: The recipe.
        networks: For its one network, that of each fold. On a device, it is given as many windows at once as
            its attribute ``batch`` says.
        device: Device of the networks.
    """

    def __init__(self, recipe: Recipe, networks: Sequence[Sequence[Network]], device: str = "cpu") -> None:
        self.recipe = recipe
        self.batch = 1 if device == "cpu" else getattr(networks[0][0], "batch", 1)
        self.rules = cast(BundlePipeline, recipe.pipeline)
        self.networks = networks[0]

    def prepare(self, volumes: Sequence[Volume], roi: Sequence[str] = ()) -> BundleCase:
        """See :meth:`medseg.inference.pipelines.PipelineRuntime.prepare`; all labels are restored."""
        return BundleCase(self, volumes)


class BundleCase:
    """A scan, prepared for the network of a bundle.

    Args:
        runtime: The network.
        volumes: The channels of the scan, on one grid.
    """

    def __init__(self, runtime: BundleRuntime, volumes: Sequence[Volume]) -> None:
        self._runtime, self._grid = runtime, volumes[0].grid
        self._image = bundle_input(volumes, runtime.rules)

    def label_map(
        self, *, entropy: Entropy | None = None, maps: Mapping[str, Floats] | None = None
    ) -> LabelMap:
        """See :meth:`medseg.inference.pipelines.PipelineCase.label_map`."""
        rules, recipe = self._runtime.rules, self._runtime.recipe
        found = mean_logits(
            self._image,
            self._runtime.networks,
            window=recipe.patch.size,
            overlap=rules.overlap,
            gaussian=rules.gaussian,
            fill=rules.fill,
            batch=self._runtime.batch,
        )
        del self._image
        labels = [label.value for label in recipe.labels]
        painted = empty_label_map(self._grid.shape, labels)
        target = turned(painted, self._grid, rules)
        if entropy is not None:
            entropy.add(self._probabilities(found.copy())[len(found) - len(labels) :])
        if rules.restored == "probabilities":
            found = self._probabilities(found)
        if rules.threshold is None:
            self._paint_largest(found, cast(LabelMap, target))
        else:
            values = self._restored(found[0])
            if rules.restored == "logits":
                values = self._probabilities(values[None])[0]
            cast(LabelMap, target)[values >= np.float32(rules.threshold)] = labels[0]
        self._write_maps(found, maps or {})
        return painted

    def _probabilities(self, logits: Floats) -> Floats:
        """Softmax or sigmoid, in place."""
        if self._runtime.recipe.exclusive:
            return cast(Floats, softmax(logits))
        np.negative(logits, out=logits)
        np.exp(logits, out=logits)
        logits += 1
        return np.reciprocal(logits, out=logits)

    def _restored(self, values: Floats) -> Floats:
        """Values on the network's grid, on the scan's, with the axes of the network."""
        rules = self._runtime.rules
        shape = turned(np.broadcast_to(np.uint8(0), self._grid.shape), self._grid, rules).shape
        _, steps = sampling(shape, turned_spacing(self._grid, rules), rules)
        return resampled(values, shape, [1 / step for step in steps], nearest=rules.nearest)

    def _paint_largest(self, found: Floats, target: LabelMap) -> None:
        """Paints the largest class, one class at a time, so that memory does not grow with their number."""
        best = self._restored(found[0]).copy()
        for label, values in zip(self._runtime.recipe.labels, found[1:], strict=True):
            here = self._restored(values)
            larger = here > best
            np.copyto(best, here, where=larger)
            target[larger] = label.value

    def _write_maps(self, found: Floats, maps: Mapping[str, Floats]) -> None:
        if not maps:
            return
        recipe, rules = self._runtime.recipe, self._runtime.rules
        values = found if rules.restored == "probabilities" else self._probabilities(found)
        labels = recipe.labels
        for label, each in zip(labels, values[len(values) - len(labels) :], strict=True):
            if label.name in maps:
                cast(Floats, turned(maps[label.name], self._grid, rules))[...] = self._restored(each)
