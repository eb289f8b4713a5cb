"""Whether voxels in which medseg and nnU-Net differ are ties, which the rounding of sums may decide."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

import medseg
from medseg.inference.nnunet.restoring import SURE, Tile, softmax, tiles
from medseg.inference.nnunet.runtime import NnunetCase, Stage
from medseg.inference.nnunet.windows import importance, starts
from medseg.preprocessing.nnunet import Frame


class Ties:
    """The logits of a model on a scan, beside the mask that nnU-Net made with the same weights.

    Each method returns bool (differing voxels), whether each of them is a tie.

    Args:
        model: The model file.
        scans: Its channels.
    """

    def __init__(self, model: Path, scans: list[medseg.Volume]) -> None:
        self.case: NnunetCase = medseg.Segmenter(model, engine="torch")._runtime.prepare(scans)
        self._runs: dict[int, Run] = {}

    def of_classes(
        self, truth: np.ndarray, number: int = 0, previous: np.ndarray | None = None
    ) -> np.ndarray:
        """Of the classes of one configuration.

        Args:
            truth: nnU-Net's mask.
            number: The configuration.
            previous: nnU-Net's mask of the configuration before, which a cascade is given.
        """
        found = []
        for (logits,), (limit,), theirs in self._tiles([number], truth, previous):
            wanted = np.take_along_axis(logits, theirs[None].astype(int), axis=0)[0]
            # Two classes may be off in opposite directions.
            tie = logits.max(axis=0) - wanted <= 2 * limit
            found.append(tie[logits.argmax(axis=0) != theirs])
        return np.concatenate(found)

    def of_regions(self, truth: np.ndarray) -> np.ndarray:
        """Of regions: those that are certain allow the value that nnU-Net painted."""
        found = []
        for (logits,), (limit,), theirs in self._tiles([0], truth):
            present, certain = logits >= SURE, np.abs(logits) > limit
            ours, possible = np.zeros(theirs.shape, int), np.zeros(theirs.shape, bool)
            covered = np.zeros(theirs.shape, bool)  # for certain, by a later region
            for head in reversed(range(len(logits))):
                value = self.case._stages[0].values[head]
                possible |= (theirs == value) & ~covered & (present[head] | ~certain[head])
                covered |= present[head] & certain[head]
                ours[(ours == 0) & present[head]] = value
            possible |= (theirs == 0) & ~covered
            found.append(possible[ours != theirs])
        return np.concatenate(found)

    def of_mean(self, truth: np.ndarray) -> np.ndarray:
        """Of the mean probabilities of several configurations.

        If no logit is off by more than e, a probability p lies between p * exp(-2 e) and p * exp(2 e).
        """
        found = []
        for several, limits, theirs in self._tiles(range(len(self.case._stages)), truth):
            shares = [softmax(logits.copy()) for logits in several]
            mean = sum(shares) / len(shares)
            off = sum(p * np.expm1(2 * e) for p, e in zip(shares, limits, strict=True)) / len(shares) + 1e-6
            best, wanted = mean.argmax(axis=0)[None], theirs[None].astype(int)
            gap = np.take_along_axis(mean, best, 0) - np.take_along_axis(mean, wanted, 0)
            reach = np.take_along_axis(off, best, 0) + np.take_along_axis(off, wanted, 0)
            found.append((gap <= reach)[best != wanted])
        return np.concatenate(found)

    def _tiles(self, numbers, truth, previous=None):
        """Of each tile: the logits of each configuration, how far they may be off, and the truth."""
        for number in numbers:
            if number not in self._runs:
                self._runs[number] = self._run(number, previous)
        runs = [self._runs[number].tiles for number in numbers]
        bounds = [self._runs[number].bounds() for number in numbers]
        theirs = truth_view(self.case._frames[numbers[0]], truth)
        for group in zip(*runs, strict=True):
            place = group[0].place
            logits = [np.stack([tile.logits(head) for head in range(len(tile.stack))]) for tile in group]
            limits = [next(each) for each in bounds]
            yield logits, limits, theirs[place]

    def _run(self, number, previous):
        case, largest = self.case, [0.0]
        stage, place = case._stages[number], case._frames[number]
        image = case._input(number)
        if previous is not None:
            image = np.concatenate([image, case._previous(previous, number)])
        found = list(case._tiles(watched(stage, largest), place, image))
        rounding = rounding_of_sums(place.shape, stage, largest[0], case._pipeline.step)
        return Run(found, stage, place, rounding, float(spacing(largest[0])))


@dataclass(frozen=True)
class Run:
    """The tiles of a configuration, and how far the logits of its windows' mean may be off."""

    tiles: list[Tile]
    stage: Stage
    place: Frame
    rounding: np.ndarray
    last_digit: float

    def bounds(self):
        """Of each tile, how far its logits may be off; they are rounded once more."""
        for tile in tiles([(0, self.rounding[None])], self.place, self.stage.rules):
            yield 1.001 * tile.logits(0) + self.last_digit


def truth_view(place: Frame, truth: np.ndarray) -> np.ndarray:
    """A mask with the axes of the network, cropped to the non-zero voxels."""
    return place.view(truth)[place.box]


def watched(stage: Stage, largest: list[float]) -> Stage:
    """The configuration; the largest logit of any window is kept."""

    def kept(network):
        def run(window):
            logits = network(window)
            largest[0] = max(largest[0], float(np.abs(logits).max()))
            return logits

        return run

    return replace(stage, networks=[kept(each) for each in stage.networks])


def rounding_of_sums(shape: tuple, stage: Stage, largest: float, step: float) -> np.ndarray:
    """How far two programs' mean logits in 16 bits can be apart, although they add up the same windows.

    A voxel in n windows has n rounded additions. Where the terms differ in their last bit, each addition may
    round to neighbouring numbers; no partial sum exceeds W times the largest logit of a window, W being the
    sum of its weights. Then come the division by W, and the mean of the folds.
    """
    window = (1, *stage.window) if len(stage.window) == 2 else tuple(stage.window)
    folds, weight = len(stage.networks), importance(tuple(stage.window)).reshape(window).astype(np.float32)
    size = np.maximum(shape, window)
    weights, count = np.zeros(size, np.float32), np.zeros(size, np.float32)
    along = [starts(n, w, step) if w > 1 else range(n) for n, w in zip(size.tolist(), window, strict=True)]
    for at in product(*along):
        part = tuple(slice(first, first + w) for first, w in zip(at, window, strict=True))
        weights[part] += weight
        count[part] += 1
    off = count * spacing(weights * largest) / weights + spacing(largest)
    off += (folds - 1) * spacing(folds * largest) / folds + (folds > 1) * spacing(largest)
    inner = tuple(slice((n - old) // 2, (n - old) // 2 + old) for n, old in zip(size, shape, strict=True))
    return off[inner]


def spacing(values: float | np.ndarray) -> np.ndarray:
    """Distance of neighbouring 16-bit numbers at these values."""
    return np.spacing(np.asarray(values).astype(np.float16)).astype(np.float32)
