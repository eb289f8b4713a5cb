"""Cleaning steps chosen by the out-of-fold masks, where they improve a label and make none worse."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from medseg.cross_validation.label_overlap import overlaps, smallest_component_ml
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask
from medseg.inference.cleaning_steps import clean
from medseg.recipe import CleaningStep

MaskPair: TypeAlias = tuple[Mask, Mask, tuple[str, ...] | None]
"""A predicted mask and the truth on one grid, and the names of the labels that the truth has (None: all)."""

MIN_SHARE = 0.1
"""Components below a tenth of the largest one: the same as for the two lungs in the shipped recipes."""


@dataclass(frozen=True)
class PostprocessingChoice:
    """The steps that clean masks best, and the mean Dice of each label without and with them.

    Attributes:
        steps: The steps for a recipe's ``postprocess.steps``; empty if none helps.
        before: Mean Dice over cases of each label, without the steps; nan if it is undefined in every case.
        after: The same with the steps.
    """

    steps: tuple[CleaningStep, ...] = ()
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)


def choose_postprocessing(
    pairs: Callable[[], Iterable[MaskPair]], labels: Sequence[Label], ignore_value: int | None = None
) -> PostprocessingChoice:
    """The steps that improve the mean Dice of a label over all cases and lower that of no label.

    As in nnU-Net (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z), the largest component of all labels
    together is tried first, then each label on its own: the largest component, components above a tenth of
    the largest, or above half of the smallest component in any truth, and filled holes. Cases in which a
    label is in neither mask do not count. The same masks give the same choice.

    Args:
        pairs: Gives the masks of all cases, in the same order in each call; called up to five times.
        labels: Labels of the predicted masks.
        ignore_value: Voxels with this value in a truth do not count.
    """
    names = [label.name for label in labels]
    plain: tuple[CleaningStep, ...] = ()
    together: tuple[CleaningStep, ...] = (CleaningStep(labels=tuple(names), keep_components=1),)
    smallest = dict.fromkeys(names, math.inf)
    first = _Trial(labels, ignore_value, [plain, *([together] if len(names) > 1 else [])])
    for prediction, truth, known in pairs():
        first.add(prediction, truth, known)
        for label in labels:
            smallest[label.name] = min(smallest[label.name], smallest_component_ml(truth, label))
    before = first.mean(0)
    base = together if len(names) > 1 and _better(first.mean(1), before) else plain
    trials = [(name, (step,)) for name in names for step in _candidates(name, smallest[name])]
    second = _Trial(labels, ignore_value, [plain, *(steps for _, steps in trials)], base)
    for pair in pairs():
        second.add(*pair)
    start, found = second.mean(0), list(base)
    for name in names:
        for fills in (True, False):  # filled first: a component is measured with its holes
            best, dice = None, start[name]
            for number, (of, steps) in enumerate(trials, start=1):
                mean = second.mean(number)
                if of == name and steps[0].fill_holes == fills and mean[name] > dice and _safe(mean, start):
                    best, dice = steps[0], mean[name]
            found += [] if best is None else [best]
    for chosen in dict.fromkeys((tuple(found), base)):  # labels within labels may change each other
        last = _Trial(labels, ignore_value, [chosen])
        for pair in pairs() if chosen else ():
            last.add(*pair)
        if chosen and _better(last.mean(0), before):
            return PostprocessingChoice(chosen, before, last.mean(0))
    return PostprocessingChoice(plain, before, before)


def _candidates(name: str, smallest_ml: float) -> list[CleaningStep]:
    steps = [CleaningStep(labels=(name,), fill_holes=True), CleaningStep(labels=(name,), keep_components=1)]
    steps.append(CleaningStep(labels=(name,), min_share=MIN_SHARE))
    if math.isfinite(smallest_ml) and smallest_ml > 0:
        half = float(f"{smallest_ml / 2:.2g}")
        steps.append(CleaningStep(labels=(name,), min_volume_ml=half))
    return steps


def _safe(mean: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether no label has a lower mean Dice; one that became undefined has."""
    return all(mean[name] >= dice or math.isnan(dice) for name, dice in other.items())


def _better(mean: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return _safe(mean, other) and any(mean[name] > dice for name, dice in other.items())


class _Trial:
    """The Dice of every case and label after each of several sequences of steps."""

    def __init__(
        self,
        labels: Sequence[Label],
        ignore_value: int | None,
        choices: Sequence[tuple[CleaningStep, ...]],
        base: tuple[CleaningStep, ...] = (),
    ) -> None:
        self._labels, self._ignore_value = labels, ignore_value
        self._choices, self._base = choices, base
        self._dice: list[list[list[float]]] = []  # by case, choice and label

    def add(self, prediction: Mask, truth: Mask, known: tuple[str, ...] | None) -> None:
        """Adds a case; labels that its truth does not have are undefined."""
        start = np.array(prediction.array)
        clean(start, prediction.grid, self._labels, self._base)
        whole = overlaps(start, truth, self._labels, self._ignore_value)
        box = _foreground(start)
        part, true = start[box], truth.array[box]
        grid = Grid.from_spacing(part.shape, prediction.grid.spacing_mm)
        rows = []
        for steps in self._choices:
            array = np.array(part)
            clean(array, grid, self._labels, steps)
            changed = array != part
            if self._ignore_value is not None:
                changed &= true != self._ignore_value
            found = [
                each.changed(part[changed], array[changed], true[changed], label, truth_label)
                for each, label, truth_label in zip(whole, self._labels, self._of(truth), strict=True)
            ]
            rows.append(
                [
                    each.dice if known is None or label.name in known else math.nan
                    for each, label in zip(found, self._labels, strict=True)
                ]
            )
        self._dice.append(rows)

    def _of(self, truth: Mask) -> list[Label]:
        by_name = {label.name: label for label in truth.labels}
        return [by_name[label.name] for label in self._labels]

    def mean(self, number: int) -> dict[str, float]:
        """The mean Dice of each label over the cases that define it, after the steps of one choice."""
        means = {}
        for index, label in enumerate(self._labels):
            defined = [case[number][index] for case in self._dice if not math.isnan(case[number][index])]
            means[label.name] = math.fsum(defined) / len(defined) if defined else math.nan
        return means


def _foreground(array: npt.NDArray[np.integer]) -> tuple[slice, slice, slice]:
    """The box of all values but 0; one voxel if there are none."""
    ends = []
    for axis in range(3):
        at = np.flatnonzero(array.any(axis=tuple(other for other in range(3) if other != axis)))
        ends.append(slice(int(at[0]), int(at[-1]) + 1) if len(at) else slice(0, 1))
    x, y, z = ends
    return x, y, z
