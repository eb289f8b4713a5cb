"""The networks of a pipeline ``lungmask``, ready to segment scans."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from medseg.images.volume import Volume
from medseg.inference.label_decision import empty_label_map
from medseg.inference.lungmask.cleaning import Labels, cleaned
from medseg.inference.nnunet.restoring import softmax
from medseg.inference.uncertainty import Entropy
from medseg.preprocessing.lungmask import BodySlice, body_slice
from medseg.preprocessing.nnunet import oriented_view
from medseg.recipe import Recipe
from medseg.recipe.pipeline import LungmaskPipeline
from medseg.system.progress import show_step

Floats: TypeAlias = npt.NDArray[np.float32]
Network: TypeAlias = Callable[[Floats], Floats]


class LungmaskRuntime:
    """The network of a recipe with a pipeline ``lungmask``, and its fill model.

    Args:
        recipe: The recipe.
        networks: For each of its networks, that of each fold, which maps float32 (N, 1, 256, 256) to logits
            float32 (N, classes, 256, 256). N is at most its attribute ``batch``, or 1 if it has none.
    """

    def __init__(self, recipe: Recipe, networks: Sequence[Sequence[Network]]) -> None:
        self.recipe = recipe
        self.networks = networks
        self.clean = cast(LungmaskPipeline, recipe.pipeline).clean

    def prepare(self, volumes: Sequence[Volume], roi: Sequence[str] = ()) -> LungmaskCase:
        """See :meth:`medseg.inference.pipelines.PipelineRuntime.prepare`; cleaning needs all labels."""
        return LungmaskCase(self, volumes[0])


class LungmaskCase:
    """A scan, prepared for lungmask's network.

    Args:
        runtime: The networks.
        scan: The scan.
    """

    def __init__(self, runtime: LungmaskRuntime, scan: Volume) -> None:
        self._runtime, self._grid = runtime, scan.grid
        axial = self._axial(np.asarray(scan.array))
        self._shape = axial.shape
        self._slices: list[BodySlice] = [body_slice(each) for each in axial]

    def label_map(
        self, *, entropy: Entropy | None = None, maps: Mapping[str, Floats] | None = None
    ) -> npt.NDArray[np.uint8 | np.uint16]:
        """See :meth:`medseg.inference.pipelines.PipelineCase.label_map`."""
        painted = empty_label_map(self._grid.shape, [1])
        maps = maps or {}
        names = [label.name for label in self._runtime.recipe.labels]
        views = [self._axial(maps[name]) if name in maps else None for name in names] if maps else []
        first, *others = self._runtime.networks
        found = [self._labels(first, entropy, views), *(self._labels(each) for each in others)]
        self._paint(found[0], self._axial(painted))
        if len(found) > 1:
            self._fuse(found[1], painted)
        return painted

    def _axial(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """An array (X, Y, Z) of the scan as slices from the feet up, rows to posterior, columns to left."""
        return oriented_view(array, self._grid, "LPS").transpose(2, 1, 0)

    def _labels(
        self, folds: Sequence[Network], entropy: Entropy | None = None, maps: Sequence[Floats | None] = ()
    ) -> Labels:
        """Labels of all slices, uint8 (slices, 256, 256).

        Args:
            folds: The network of each fold.
            entropy: Uncertainty to add to.
            maps: For each label, probabilities to write (slices, rows, columns); None for one not wanted.
        """
        labels = np.empty((len(self._slices), 256, 256), dtype=np.uint8)
        for number, (each, logits) in enumerate(zip(self._slices, self._logits(folds), strict=True)):
            labels[number] = logits.argmax(0)
            if entropy is not None or maps:
                values = softmax(logits / np.float32(len(folds)))[1:]
                if entropy is not None:
                    entropy.add(values)
                for whole, one in zip(maps, values, strict=False):
                    if whole is not None:
                        whole[number][each.box] = each.restored(one)
        return cleaned(labels) if self._runtime.clean else labels

    def _logits(self, folds: Sequence[Network]) -> Iterator[Floats]:
        """The sum over folds of the logits (classes, 256, 256) of each slice."""
        batch = getattr(folds[0], "batch", 1)
        for first in range(0, len(self._slices), batch):
            windows = np.stack([each.image for each in self._slices[first : first + batch]])[:, None]
            total = np.asarray(folds[0](windows))
            for network in folds[1:]:
                total = total + network(windows)
            show_step(first + len(windows), len(self._slices), "slices")
            yield from total

    def _paint(self, labels: Labels, view: npt.NDArray[np.uint8 | np.uint16]) -> None:
        for each, part, target in zip(self._slices, labels, view, strict=True):
            target[each.box] = each.restored(part)

    def _fuse(self, fill: Labels, painted: npt.NDArray[np.uint8 | np.uint16]) -> None:
        """Fills the labels with what the fill model found, in place (``LMInferer.apply``)."""
        lung = empty_label_map(self._grid.shape, [1])
        self._paint(fill, self._axial(lung))
        spare = int(painted.max()) + 1
        painted[(painted == 0) & (lung > 0)] = spare
        painted[lung == 0] = 0
        del lung
        # As SimpleITK's array lies in memory, which decides between components of equal size.
        stored = np.ascontiguousarray(painted.transpose(2, 1, 0), dtype=np.uint8)
        painted[...] = cleaned(stored, spare=spare).transpose(2, 1, 0)
