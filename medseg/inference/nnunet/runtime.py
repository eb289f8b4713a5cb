"""The networks of a pipeline ``nnunet``, ready to segment scans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt

from medseg.images.volume import Volume
from medseg.inference.label_decision import empty_label_map
from medseg.inference.nnunet.restoring import Tile, paint_classes, paint_mean, paint_regions, tiles
from medseg.inference.nnunet.windows import Network, logit_planes
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
        values: The value in a label map of each output channel.
        networks: The network of each fold.
    """

    rules: Configuration
    window: tuple[int, ...]
    heads: int
    values: npt.NDArray[np.int64]
    networks: Sequence[Network]


class NnunetRuntime:
    """The configurations of a recipe with a pipeline ``nnunet``.

    Args:
        recipe: The recipe.
        networks: For each configuration, the network of each fold, which maps float32 (1, C, *window) to
            logits float32 (1, heads, *window).
    """

    def __init__(self, recipe: Recipe, networks: Sequence[Sequence[Network]]) -> None:
        self.recipe = recipe
        self.pipeline = cast(NnunetPipeline, recipe.pipeline)
        value_of = {label.name: label.value for label in recipe.labels}
        self.stages = []
        sizes = recipe.network_sizes()
        for rules, (_, _, _, heads), each in zip(self.pipeline.configurations, sizes, networks, strict=True):
            names = rules.labels or tuple(label.name for label in recipe.labels)
            values = [*([0] if recipe.exclusive else []), *(value_of[name] for name in names)]
            window = rules.patch_size or recipe.patch.size
            self.stages.append(Stage(rules, window, heads, np.array(values), each))

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
        self._shape = volumes[0].grid.shape
        orientation = self._pipeline.orientation
        self._frames = [frame(volumes, stage.rules, orientation=orientation) for stage in self._stages]
        self._first: Floats | None = network_input(volumes, self._stages[0].rules, self._frames[0])
        self._volumes = tuple(volumes) if len(self._stages) > 1 else ()

    def label_map(self) -> LabelMap:
        """The label map (X, Y, Z) on the scan's grid."""
        painted = self._empty()
        stages = list(enumerate(zip(self._stages, self._frames, strict=True)))
        if len(stages) > 1 and self._pipeline.combine == "mean":
            inputs = [self._input(number) for number, _ in stages]
            found = [self._tiles(*pair, image) for (_, pair), image in zip(stages, inputs, strict=True)]
            target = self._target(painted, self._frames[0])
            paint_mean(zip(*found, strict=True), target, self._stages[0].values)
            return painted
        paint = paint_classes if self._recipe.exclusive else paint_regions
        for number, (stage, place) in stages:
            image = self._input(number)
            if number and self._pipeline.combine == "cascade":
                image = np.concatenate([image, self._previous(painted, number)])
                painted = self._empty()
            paint(self._tiles(stage, place, image), self._target(painted, place), stage.values)
            del image
            trim_heap()
        return painted

    def _tiles(self, stage: Stage, place: Frame, image: Floats) -> Iterator[Tile]:
        planes = logit_planes(
            image,
            stage.networks,
            window=stage.window,
            heads=stage.heads,
            step=self._pipeline.step,
            mirror_axes=stage.rules.mirror_axes if self._pipeline.tta == "mirror" else (),
        )
        return tiles(planes, place, stage.rules)

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
