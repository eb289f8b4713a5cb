"""The networks of a pipeline ``lungmask``, ready to segment scans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt

from medseg.images.volume import Volume
from medseg.inference.label_decision import empty_label_map
from medseg.inference.lungmask.cleaning import Labels, cleaned
from medseg.preprocessing.lungmask import BodySlice, body_slice
from medseg.preprocessing.nnunet import oriented_view
from medseg.recipe import Recipe
from medseg.recipe.pipeline import LungmaskPipeline

Floats: TypeAlias = npt.NDArray[np.float32]
Network: TypeAlias = Callable[[Floats], Floats]


class LungmaskRuntime:
    """The network of a recipe with a pipeline ``lungmask``, and its fill model.

    Args:
        recipe: The recipe.
        networks: For each of its networks, that of each fold, which maps float32 (1, 1, 256, 256) to logits
            float32 (1, classes, 256, 256).
    """

    def __init__(self, recipe: Recipe, networks: Sequence[Sequence[Network]]) -> None:
        self.recipe = recipe
        self.networks = networks
        self.clean = cast(LungmaskPipeline, recipe.pipeline).clean

    def prepare(self, volumes: Sequence[Volume]) -> LungmaskCase:
        """The scan, prepared for the network."""
        return LungmaskCase(self, volumes[0])


class LungmaskCase:
    """A scan, prepared for lungmask's network.

    Args:
        runtime: The networks.
        scan: The scan.
    """

    def __init__(self, runtime: LungmaskRuntime, scan: Volume) -> None:
        self._runtime, self._grid = runtime, scan.grid
        axial = oriented_view(np.asarray(scan.array), scan.grid, "LPS").transpose(2, 1, 0)
        self._shape = axial.shape
        self._slices: list[BodySlice] = [body_slice(each) for each in axial]

    def label_map(self) -> npt.NDArray[np.uint8 | np.uint16]:
        """The label map (X, Y, Z) on the scan's grid."""
        painted = empty_label_map(self._grid.shape, [1])
        found = [self._labels(folds) for folds in self._runtime.networks]
        view = oriented_view(painted, self._grid, "LPS").transpose(2, 1, 0)
        self._paint(found[0], view)
        if len(found) > 1:
            self._fuse(found[1], painted)
        return painted

    def _labels(self, folds: Sequence[Network]) -> Labels:
        """Labels of all slices, uint8 (slices, 256, 256)."""
        labels = np.empty((len(self._slices), 256, 256), dtype=np.uint8)
        for number, each in enumerate(self._slices):
            window = each.image[None, None]
            logits = np.asarray(folds[0](window))
            for network in folds[1:]:
                logits = logits + network(window)
            labels[number] = logits[0].argmax(0)
        return cleaned(labels) if self._runtime.clean else labels

    def _paint(self, labels: Labels, view: npt.NDArray[np.uint8 | np.uint16]) -> None:
        for each, part, target in zip(self._slices, labels, view, strict=True):
            target[each.box] = each.restored(part)

    def _fuse(self, fill: Labels, painted: npt.NDArray[np.uint8 | np.uint16]) -> None:
        """Fills the labels with what the fill model found, in place (``LMInferer.apply``)."""
        lung = empty_label_map(self._grid.shape, [1])
        self._paint(fill, oriented_view(lung, self._grid, "LPS").transpose(2, 1, 0))
        spare = int(painted.max()) + 1
        painted[(painted == 0) & (lung > 0)] = spare
        painted[lung == 0] = 0
        del lung
        # As SimpleITK's array lies in memory, which decides between components of equal size.
        stored = np.ascontiguousarray(painted.transpose(2, 1, 0), dtype=np.uint8)
        painted[...] = cleaned(stored, spare=spare).transpose(2, 1, 0)
