"""The networks of a pipeline ``nnunet``, ready to segment scans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt

from medseg.images.volume import Volume
from medseg.inference.device_transfer import sent
from medseg.inference.label_decision import empty_label_map
from medseg.inference.nnunet.label_probabilities import LabelProbabilities
from medseg.inference.nnunet.restoring import Tile, paint_classes, paint_mean, paint_regions, tiles
from medseg.inference.nnunet.windows import Network, logit_planes
from medseg.inference.uncertainty import Entropy
from medseg.preprocessing.nnunet import (
    Floats,
    Frame,
    frame,
    network_input,
    nonzero_mask,
    previous_labels,
)
from medseg.recipe import Recipe
from medseg.recipe.pipeline import Configuration, NnunetPipeline
from medseg.system.memory import trim_heap

LabelMap: TypeAlias = npt.NDArray[np.uint8 | np.uint16]


@dataclass(frozen=True)
class Stage:
    """One configuration with its networks.

    Attributes:
        rules: The configuration.
        window: Size of its windows.
        heads: Number of output channels.
        labels: Names of the labels, in the order of the output channels without the background.
        values: The value in a label map of each output channel.
        networks: The network of each fold.
    """

    rules: Configuration
    window: tuple[int, ...]
    heads: int
    labels: tuple[str, ...]
    values: npt.NDArray[np.int64]
    networks: Sequence[Network]


class NnunetRuntime:
    """The configurations of a recipe with a pipeline ``nnunet``.

    Args:
        recipe: The recipe.
        networks: For each configuration, the network of each fold, which maps float32 (1, C, *window) to
            logits float32 (1, heads, *window).
        device: Device of the networks. If it is not the CPU, they take and return tensors.
    """

    def __init__(self, recipe: Recipe, networks: Sequence[Sequence[Network]], device: str = "cpu") -> None:
        self.recipe, self.device = recipe, device
        self.pipeline = cast(NnunetPipeline, recipe.pipeline)
        value_of = {label.name: label.value for label in recipe.labels}
        self.stages = []
        sizes = recipe.network_sizes()
        for rules, (_, _, _, heads), each in zip(self.pipeline.configurations, sizes, networks, strict=True):
            names = rules.labels or tuple(label.name for label in recipe.labels)
            values = [*([0] if recipe.exclusive else []), *(value_of[name] for name in names)]
            window = rules.patch_size or recipe.patch.size
            self.stages.append(Stage(rules, window, heads, names, np.array(values), each))

    def prepare(self, volumes: Sequence[Volume]) -> NnunetCase:
        """The scan, prepared for the first configuration."""
        return NnunetCase(self, volumes)


class NnunetCase:
    """A scan, prepared for the first configuration of a pipeline.

    The scan itself is kept only if there are further configurations.

    Args:
        runtime: The pipeline.
        volumes: The channels of the scan, on one grid.
    """

    def __init__(self, runtime: NnunetRuntime, volumes: Sequence[Volume]) -> None:
        self._recipe, self._pipeline, self._stages = runtime.recipe, runtime.pipeline, runtime.stages
        self._shape, self._device = volumes[0].grid.shape, runtime.device
        orientation = self._pipeline.orientation
        self._frames = [frame(volumes, stage.rules, orientation=orientation) for stage in self._stages]
        self._first: Floats | None = network_input(volumes, self._stages[0].rules, self._frames[0])
        self._volumes = tuple(volumes) if len(self._stages) > 1 else ()

    def label_map(
        self, *, entropy: Entropy | None = None, maps: Mapping[str, Floats] | None = None
    ) -> LabelMap:
        """See :meth:`medseg.inference.pipelines.PipelineCase.label_map`."""
        painted = self._empty()
        stages = list(enumerate(zip(self._stages, self._frames, strict=True)))
        if len(stages) > 1 and self._pipeline.combine == "mean":
            found = [self._tiles(*pair, self._input(number)) for number, pair in stages]
            target, values = self._target(painted, self._frames[0]), self._stages[0].values
            mean = self._probabilities(0, entropy, maps)
            paint_mean(zip(*found, strict=True), target, values, mean.add_mean)
            return painted
        paint = paint_classes if self._recipe.exclusive else paint_regions
        for number, (stage, place) in stages:
            image, watched = self._input(number), self._probabilities(number)
            if number and self._pipeline.combine == "cascade":
                image = np.concatenate([image, self._previous(painted, number)])
                painted = self._empty()
            if self._pipeline.combine != "cascade" or number == len(stages) - 1:
                watched = self._probabilities(number, entropy, maps)
            passing = self._tiles(stage, place, image, watched)
            del image  # the windows keep a padded one
            paint(passing, self._target(painted, place), stage.values)
            del passing
            trim_heap()
        return painted

    def _probabilities(
        self, number: int, entropy: Entropy | None = None, maps: Mapping[str, Floats] | None = None
    ) -> LabelProbabilities:
        """Where the probabilities of a configuration go; nowhere if neither is given."""
        stage, place = self._stages[number], self._frames[number]
        views = [place.view(maps[name])[place.box] for name in stage.labels] if maps else []
        return LabelProbabilities(stage.labels, self._recipe.exclusive, entropy, views)

    def _tiles(
        self, stage: Stage, place: Frame, image: Floats, watched: LabelProbabilities | None = None
    ) -> Iterator[Tile]:
        planes = logit_planes(
            sent(image, self._device),
            stage.networks,
            window=stage.window,
            heads=stage.heads,
            step=self._pipeline.step,
            mirror_axes=stage.rules.mirror_axes if self._pipeline.tta == "mirror" else (),
            batch=1 if self._device == "cpu" else getattr(stage.networks[0], "batch", 1),
        )
        if watched is None:
            return tiles(planes, place, stage.rules)
        return watched.watch_tiles(tiles(watched.watch_planes(planes), place, stage.rules))

    def _empty(self) -> LabelMap:
        return empty_label_map(self._shape, [label.value for label in self._recipe.labels])

    def _target(self, painted: LabelMap, place: Frame) -> LabelMap:
        return cast(LabelMap, place.view(painted)[place.box])

    def _input(self, number: int) -> Floats:
        if number == 0 and self._first is not None:
            image, self._first = self._first, None
            return image
        return network_input(self._volumes, self._stages[number].rules, self._frames[number])

    def _previous(self, painted: LabelMap, number: int) -> Floats:
        """One channel per label of the previous configuration's mask, 1 inside and 0 outside."""
        rules, place = self._stages[number].rules, self._frames[number]
        labels = previous_labels(painted, ~nonzero_mask(self._volumes, place), rules, place)
        return np.stack([labels == label.value for label in self._recipe.labels]).astype(np.float32)
