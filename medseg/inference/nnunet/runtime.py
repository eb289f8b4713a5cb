"""The networks of a pipeline ``nnunet``, ready to segment scans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt

from medseg.images.label_selection import select_labels
from medseg.images.run_length import Runs
from medseg.images.volume import Volume
from medseg.inference.device_transfer import sent
from medseg.inference.label_decision import empty_label_map
from medseg.inference.nnunet.label_probabilities import LabelProbabilities
from medseg.inference.nnunet.restoring import (
    Box,
    Heads,
    Tile,
    paint_classes,
    paint_mean,
    paint_regions,
    source_box,
    tiles,
)
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

    def prepare(self, volumes: Sequence[Volume], roi: Sequence[str] = ()) -> NnunetCase:
        """See :meth:`medseg.inference.pipelines.PipelineRuntime.prepare`."""
        return NnunetCase(self, volumes, roi)


class NnunetCase:
    """A scan, prepared for the first configuration of a pipeline that is needed.

    The scan itself is kept only if there are further configurations. Of parts, those before the first one
    that has a label of ``roi`` are left out: they decide nothing about it. Later ones may cover its voxels,
    and those without such a label run only around them.

    Args:
        runtime: The pipeline.
        volumes: The channels of the scan, on one grid.
        roi: Names of the labels that are wanted; all if empty.
    """

    def __init__(self, runtime: NnunetRuntime, volumes: Sequence[Volume], roi: Sequence[str] = ()) -> None:
        self._recipe, self._pipeline, self._stages = runtime.recipe, runtime.pipeline, runtime.stages
        self._shape, self._device = volumes[0].grid.shape, runtime.device
        self._kept = select_labels(self._recipe.labels, roi).painted != 0 if roi else None
        self._begin = self._first_stage()
        orientation = self._pipeline.orientation
        self._frames = {
            number: frame(volumes, stage.rules, orientation=orientation)
            for number, stage in enumerate(self._stages[self._begin :], self._begin)
        }
        first = self._stages[self._begin].rules
        self._first: Floats | None = network_input(volumes, first, self._frames[self._begin])
        self._volumes = tuple(volumes) if len(self._frames) > 1 else ()

    def label_map(
        self, *, entropy: Entropy | None = None, maps: Mapping[str, Floats] | None = None
    ) -> LabelMap:
        """See :meth:`medseg.inference.pipelines.PipelineCase.label_map`."""
        painted = self._empty()
        stages = [(number, (self._stages[number], place)) for number, place in self._frames.items()]
        if len(stages) > 1 and self._pipeline.combine == "mean":
            found = [self._tiles(*pair, self._input(number)) for number, pair in stages]
            target, values = self._target(painted, self._frames[0]), self._stages[0].values
            mean = self._probabilities(0, entropy, maps)
            paint_mean(zip(*found, strict=True), target, values, mean.add_mean)
            return painted
        paint = paint_classes if self._recipe.exclusive else paint_regions
        for number, (stage, place) in stages:
            part: Box | None = None
            if number > self._begin and not self._is_wanted(stage):
                part = Runs.of(self._target(painted, place) != 0).box()
                if part is None:
                    continue
            image, watched = self._input(number), self._probabilities(number)
            if number and self._pipeline.combine == "cascade":
                image = np.concatenate([image, self._previous(painted, number)])
                painted = self._empty()
            last = self._pipeline.combine != "cascade" or number == len(stages) - 1
            if last and part is None:
                watched = self._probabilities(number, entropy, maps)
            passing = self._tiles(stage, place, image, watched, part)
            del image  # the windows keep a padded one
            wanted = self._wanted(stage, covers=number > self._begin) if last else None
            paint(passing, self._target(painted, place), stage.values, wanted)
            del passing
            trim_heap()
        return painted

    def _probabilities(
        self, number: int, entropy: Entropy | None = None, maps: Mapping[str, Floats] | None = None
    ) -> LabelProbabilities:
        """Where the probabilities of a configuration go; nowhere if neither is given."""
        stage, place = self._stages[number], self._frames[number]
        maps = maps or {}
        views = [place.view(maps[name])[place.box] if name in maps else None for name in stage.labels]
        return LabelProbabilities(stage.labels, self._recipe.exclusive, entropy, views if maps else [])

    def _first_stage(self) -> int:
        """The number of the first configuration that decides about a label that is wanted."""
        if self._pipeline.combine != "parts":
            return 0
        return next(number for number, stage in enumerate(self._stages) if self._is_wanted(stage))

    def _is_wanted(self, stage: Stage) -> bool:
        """Whether a configuration has a label that is wanted."""
        return self._kept is None or self._pipeline.combine != "parts" or bool(self._kept[stage.values].any())

    def _wanted(self, stage: Stage, *, covers: bool) -> Heads | None:
        """Which output channels of the last configuration, or of a part, decide about labels that are wanted.

        Args:
            stage: The configuration.
            covers: Whether it is a further part, which covers the labels of earlier ones where it has any.
        """
        covers = covers and self._pipeline.combine == "parts"
        if self._kept is None or (covers and not self._recipe.exclusive):
            return None
        wanted: Heads = self._kept[stage.values]
        wanted[0] |= covers
        return wanted

    def _tiles(
        self,
        stage: Stage,
        place: Frame,
        image: Floats,
        watched: LabelProbabilities | None = None,
        part: Box | None = None,
    ) -> Iterator[Tile]:
        if self._device != "cpu":
            part = None  # on a device, other batches would be rounded in another way
        planes = logit_planes(
            sent(image, self._device),
            stage.networks,
            window=stage.window,
            heads=stage.heads,
            step=self._pipeline.step,
            mirror_axes=stage.rules.mirror_axes if self._pipeline.tta == "mirror" else (),
            batch=1 if self._device == "cpu" else getattr(stage.networks[0], "batch", 1),
            part=None if part is None else source_box(place, stage.rules, part),
        )
        if watched is None:
            return tiles(planes, place, stage.rules, part)
        return watched.watch_tiles(tiles(watched.watch_planes(planes), place, stage.rules, part))

    def _empty(self) -> LabelMap:
        return empty_label_map(self._shape, [label.value for label in self._recipe.labels])

    def _target(self, painted: LabelMap, place: Frame) -> LabelMap:
        return cast(LabelMap, place.view(painted)[place.box])

    def _input(self, number: int) -> Floats:
        if number == self._begin and self._first is not None:
            image, self._first = self._first, None
            return image
        return network_input(self._volumes, self._stages[number].rules, self._frames[number])

    def _previous(self, painted: LabelMap, number: int) -> Floats:
        """One channel per label of the previous configuration's mask, 1 inside and 0 outside."""
        rules, place = self._stages[number].rules, self._frames[number]
        labels = previous_labels(painted, ~nonzero_mask(self._volumes, place), rules, place)
        return np.stack([labels == label.value for label in self._recipe.labels]).astype(np.float32)
