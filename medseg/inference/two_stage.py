"""Lungs by three networks: a coarse one for the whole chest, a fine one that refines it, and one of slices.

The coarse and the fine network are those of a model whose recipe has a section ``context``. They look only
around the lungs found by thresholds, so that the coarse one sees a chest as in training, without abdomen or
head. The slice network, ``lung_ct``, looks everywhere. It adds airless lung that the coarse network does not
rule out, and decides alone if it finds other aerated lungs than the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from medseg.images.grid import Grid
from medseg.images.run_length import Binary
from medseg.images.volume import Mask
from medseg.inference.backends import Engine, load
from medseg.inference.backends.graph_engine import GraphEngine
from medseg.inference.backends.network_source import FoldNetwork, graph_forms
from medseg.inference.device_transfer import sent
from medseg.inference.label_decision import LabelDecision
from medseg.inference.lung_evidence import Evidence, combine_evidence
from medseg.inference.restored_tile import Planes
from medseg.inference.sliding_window import logits
from medseg.inference.threshold_segmenter import threshold_lungs
from medseg.preprocessing.preparation import Prepared
from medseg.preprocessing.resampling import axis_maps, resample, resampled_grid
from medseg.recipe import Patch, Predict, Recipe, Window
from medseg.recipe.context import Context
from medseg.system.memory import trim_heap
from medseg.system.notices import Notice, collect_notices, in_context, notify

_LEAST_PROBABILITY = 0.1
"""The fine network sees the box of the voxels with a higher probability than this of the coarse network."""

_MARGIN = 8
"""Margin of that box in voxels of the prepared grid, to show the lung's edge from both sides."""

Floats = npt.NDArray[np.float32]
Box = tuple[slice, slice, slice]

_SIDES_ML = 20.0
"""From this volume on, a difference of the networks from the position of the lungs is worth a notice."""


@dataclass(frozen=True)
class Found:
    """Probabilities on a prepared grid, from which a mask is made.

    Attributes:
        planes: Probabilities of each label, float32 (L, X, Y, Z), in portions.
        grid: Grid of the probabilities, in RAS order.
        rather_right: Whether the networks hold each voxel for right rather than left lung; None if they do
            not tell the sides.
    """

    planes: Planes
    grid: Grid
    rather_right: Binary | None = None

    def check_sides(self, mask: Mask) -> tuple[Notice, ...]:
        """A notice if the networks see much of a mask of both lungs on the other side than its position.

        Args:
            mask: The mask of both lungs on the scan's grid, split by position.
        """
        if self.rather_right is None:
            return ()
        values = {label.side: label.value for label in mask.labels}
        upright = mask.oriented("RAS")
        indices = []
        for axis, (row, first, step) in enumerate(axis_maps(upright.grid, self.grid)):
            at = np.rint(first + step * np.arange(self.grid.shape[axis])).astype(int)
            indices.append(at.clip(0, upright.grid.shape[row] - 1))
        painted = np.asarray(upright.array)[np.ix_(*indices)]
        differing = (painted == values["right"]) & ~self.rather_right
        differing |= (painted == values["left"]) & self.rather_right
        volume_ml = np.count_nonzero(differing) * prod(self.grid.spacing_mm) / 1000
        if volume_ml < _SIDES_ML:
            return ()
        text = f"the networks see {volume_ml:.0f} ml on the other side than the position of the lungs"
        return (Notice("sides-disagree", text, remedy="check that right and left are correct"),)


class _Sum(NamedTuple):
    """Probabilities of lung by the coarse and the fine network, and where they hold it for right lung."""

    coarse: Floats
    fine: Floats
    rather_right: Binary


class TwoStage:
    """The two networks of each fold of a model whose recipe has a section ``context``, ready to run.

    Args:
        recipe: A recipe with a section ``context``.
        folds: The networks of each fold.
        device: Device of the networks, as torch names it.
        engine: A key of :data:`medseg.inference.backends.REGISTRY`, or ``auto``.

    Attributes:
        fine: Engines of the fine network, one per fold.
    """

    def __init__(self, recipe: Recipe, folds: Sequence[FoldNetwork], *, device: str, engine: str) -> None:
        self.recipe, self._device = recipe, device
        self.context = cast(Context, recipe.context)
        self.coarse, self.fine = (
            load(engine, [replace(fold, stage=stage) for fold in folds], shape, device)
            for stage, shape, _ in graph_forms(recipe)
        )

    def __call__(
        self,
        prepared: Prepared,
        slices: Callable[[], Floats],
        slice_grid: Grid,
        path: str | Path | None = None,
    ) -> Found:
        """The lungs of a scan, as probabilities on a prepared grid.

        Args:
            prepared: The scan, prepared for this model.
            slices: Gives the probability of lung by the slice network, float32 (1, X, Y, Z). It is called in
                another thread while thresholds and the 3D networks look for lungs.
            slice_grid: Grid of ``slices``.
            path: The scan's path for notices.
        """
        grid = prepared.grid
        with ThreadPoolExecutor(1) as beside:
            found_by_slices = beside.submit(in_context(slices))
            hu, dark, networks = self._look(prepared)
            sliced = found_by_slices.result()
        flat = resample(sliced, slice_grid, grid)[0]
        trim_heap()
        found = combine_evidence(Evidence(hu, dark, networks.coarse, networks.fine, flat, grid))
        if found is None:
            text = "the 3D networks found other aerated lungs than the slice network, which is used alone"
            notify("slices-alone", text, path=path, remedy="look at the mask")
            return Found([(0, sliced)], slice_grid)
        return Found([(0, found[None])], grid, networks.rather_right)

    def _look(self, prepared: Prepared) -> tuple[Floats, tuple[Binary, Binary], _Sum]:
        """The scan in HU, its threshold masks, and what both networks find around them."""
        image, grid = prepared.image, prepared.grid
        window = cast(Window, self.recipe.prepare.intensity)
        hu = image[0] * (window.high_hu - window.low_hu) + window.low_hu
        with collect_notices():  # what thresholds leave out concerns their mask, not this one
            dark = threshold_lungs(hu, grid)
        trim_heap()
        either = dark[0] | dark[1]
        if not either.any():
            nowhere = np.zeros(grid.shape, dtype=np.float32)
            return hu, dark, _Sum(nowhere, nowhere, either)
        coarse = self._coarse(image, either, grid.spacing_mm)
        box, fine = self._fine(image, coarse)
        rather_right = coarse[0] > coarse[1]
        lung = coarse[0] + coarse[1]
        finer = np.zeros(grid.shape, dtype=np.float32)
        if box is not None:
            rather_right[box] = coarse[0][box] + fine[0] > coarse[1][box] + fine[1]
            finer[box] = fine[0] + fine[1]
        return hu, dark, _Sum(lung, finer, rather_right)

    def _coarse(self, image: Floats, dark: Binary, spacing_mm: tuple[float, float, float]) -> Floats:
        """The coarse network's probabilities on the prepared grid, 0 outside its box."""
        context, factor = self.context, self.context.factor
        low, size = [], []
        for axis, (mm, least) in enumerate(zip(spacing_mm, context.size, strict=True)):
            start, stop = _extent(dark, axis)
            wanted = stop - start + 2 * round(context.margin_mm / mm)
            size.append(factor * max(least, -(-wanted // factor)))
            low.append((start + stop - size[-1]) // 2)
        view = _averaged(_cut(image, low, size), factor)
        found = self._probabilities(view, self.coarse, Patch(size=context.size), context.network.divisor)
        return _cut(_enlarged(found, factor), [-start for start in low], image.shape[1:])

    def _fine(self, image: Floats, coarse: Floats) -> tuple[Box | None, Floats]:
        """A box of the prepared grid, and the fine network's probabilities in it; None if it sees nothing."""
        likely = coarse[0] + coarse[1] > _LEAST_PROBABILITY
        if not likely.any():
            return None, coarse[..., :0]
        extents = zip((_extent(likely, axis) for axis in range(3)), likely.shape, strict=True)
        x, y, z = (slice(max(0, a - _MARGIN), min(n, b + _MARGIN)) for (a, b), n in extents)
        channels = np.concatenate([image[:, x, y, z], coarse[:, x, y, z]])
        found = self._probabilities(channels, self.fine, self.recipe.patch, self.recipe.network.divisor)
        return (x, y, z), found

    def _probabilities(self, image: Floats, engines: list[Engine], patch: Patch, divisor: int) -> Floats:
        batch = 1 if self._device == "cpu" else getattr(engines[0], "batch", 1)
        predict = Predict(overlap=self.recipe.predict.overlap, window_batch=batch)
        labels = len(self.recipe.labels)

        def mean(windows: Any) -> Any:
            total = engines[0](windows)
            for engine in engines[1:]:
                total = total + engine(windows)
            return total / len(engines)

        given = sent(image, self._device)
        made = logits(given, mean, labels=labels, patch=patch, predict=predict, divisor=divisor)
        found = made if isinstance(made, np.ndarray) else made.cpu().numpy()
        for engine in engines:  # the feature maps of a whole chest: the next network needs the room
            if isinstance(engine, GraphEngine):
                engine.release_memory()
        return LabelDecision.from_recipe(self.recipe).probabilities(found)


def _extent(mask: Binary, axis: int) -> tuple[int, int]:
    """Start and stop, along an axis, of a mask that is not empty."""
    at = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
    return int(at[0]), int(at[-1]) + 1


def _averaged(image: Floats, factor: int) -> Floats:
    """Means (C, X, Y, Z) over cubes with sides of ``factor`` voxels."""
    channels, *shape = image.shape
    split = [part for n in shape for part in (n // factor, factor)]
    return np.asarray(image.reshape(channels, *split).mean(axis=(2, 4, 6)), dtype=np.float32)


def _enlarged(values: Floats, factor: int) -> Floats:
    """Values (C, X, Y, Z) at ``factor`` times the resolution, by linear interpolation."""
    x, y, z = values.shape[1:]
    coarse = Grid.from_spacing((x, y, z), (float(factor),) * 3)
    return resample(values, coarse, resampled_grid(coarse, (1.0, 1.0, 1.0)))


def _cut(image: Floats, low: list[int], size: Sequence[int]) -> Floats:
    """The box of an image (C, X, Y, Z) that begins at ``low``; voxels outside the image are 0."""
    box = np.zeros((len(image), *size), dtype=np.float32)
    ends = [start + n for start, n in zip(low, size, strict=True)]
    x, y, z = (slice(max(0, start), max(0, end)) for start, end in zip(low, ends, strict=True))
    inner = image[:, x, y, z]
    u, v, w = (slice(at := max(0, -start), at + n) for start, n in zip(low, inner.shape[1:], strict=True))
    box[:, u, v, w] = inner
    return box
