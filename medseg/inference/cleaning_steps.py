"""The steps that clean a finished mask: a recipe's ``postprocess.steps``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from medseg.images.connected_components import filled
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.run_length import Runs
from medseg.images.volume import Mask
from medseg.inference.postprocessing import postprocess
from medseg.recipe import CleaningStep


def cleaned(mask: Mask, steps: Sequence[CleaningStep]) -> Mask:
    """The mask after all steps; the same one if there are none."""
    if not steps:
        return mask
    array = np.array(mask.array)  # keeps the order of its axes in memory
    clean(array, mask.grid, mask.labels, steps)
    return Mask(array, mask.grid, mask.labels, mask.source)


def clean(
    array: npt.NDArray[np.integer], grid: Grid, labels: Sequence[Label], steps: Sequence[CleaningStep]
) -> None:
    """Cleans a label map (X, Y, Z) in place, step by step.

    Args:
        array: The label map.
        grid: Its grid, or one with its shape and voxel size.
        labels: Its labels, with all names that the steps use.
        steps: See :class:`medseg.recipe.CleaningStep`.
    """
    by_name = {label.name: label for label in labels}
    for step in steps:
        chosen = [by_name[name] for name in step.labels]
        own = {value for label in chosen for value in label.values}
        around = _around(own, labels)
        if step.fill_holes:
            _fill(array, own, around, chosen[0].value)
        if step.removes:
            _remove(array, grid, own, around, step)


def _around(own: set[int], labels: Sequence[Label]) -> Label | None:
    """The smallest label that has all of these values and more, such as the lung around a lesion."""
    larger = [label for label in labels if set(label.values) > own and label.value not in own]
    return min(larger, key=lambda label: len(label.values), default=None)


def _member(array: npt.NDArray[np.integer], values: Iterable[int]) -> npt.NDArray[np.bool_]:
    """A table that says of each value of a label map whether it is one of these."""
    table = np.zeros(np.iinfo(array.dtype).max + 1, dtype=np.bool_)
    table[[value for value in values if value < len(table)]] = True
    return table


def _fill(array: npt.NDArray[np.integer], own: set[int], around: Label | None, value: int) -> None:
    table = _member(array, own)
    box = Runs.of(array, lambda slab: table[slab]).box()
    if box is None:
        return
    part = array[box]  # a view
    inside = table[part]
    free = _member(array, {0, *(around.values if around else ())} - own)
    part[filled(Runs.of(inside)).binary() & ~inside & free[part]] = value


def _remove(
    array: npt.NDArray[np.integer], grid: Grid, own: set[int], around: Label | None, step: CleaningStep
) -> None:
    table = _member(array, own)
    runs = Runs.of(array, lambda slab: table[slab])
    kept = postprocess(
        runs,
        grid,
        keep_components=step.keep_components,
        min_volume_ml=step.min_volume_ml,
        min_share=step.min_share,
    )
    gone = runs.kept(~np.isin(runs.start, kept.start))  # whole runs are kept or removed
    gone.paint(array, around.value if around else 0)
