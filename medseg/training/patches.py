"""Training patches drawn from prepared cases.

Every random choice is a function of (seed, epoch, number of the patch) alone. Therefore the order of the
workers does not matter, and a resumed training sees the patches of an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from medseg.inference.window_gathering import stacked_slices
from medseg.preprocessing.augmentation import augment, movement
from medseg.preprocessing.augmentation.interpolation import read_at
from medseg.recipe import Recipe
from medseg.training.case_cache import CachedCase


class Sample(TypedDict):
    """A training patch: float32 ``image`` (in_channels, *patch) and integer ``label`` (1, *patch).

    ``label`` holds the class of each voxel, and ``table``, int8 (K, L), which labels a class belongs to; see
    :class:`medseg.preprocessing.label_classes.LabelClasses`. ``case`` is the id of its case, and ``seed``
    determines its augmentation.
    """

    image: torch.Tensor
    label: torch.Tensor
    table: torch.Tensor
    case: str
    seed: int


class Patches(Dataset[Sample]):
    """Training patches, indexed by (epoch, number).

    A fraction ``foreground_fraction`` of them is centred on a voxel of a label, every label of the case
    equally often; the others lie anywhere, as do all patches of a case without any label. Every case is
    used equally often, or drawn at random with ``forced_foreground``.

    Args:
        cases: Prepared cases to cut the patches from.
        recipe: Defines the size, choice and augmentation of the patches.
        augmented: Whether they are augmented here; otherwise :meth:`augmented_patch` does it later. Patches
            that are cut larger in order to be moved are moved here in any case.
    """

    def __init__(self, cases: Sequence[CachedCase], recipe: Recipe, *, augmented: bool = True) -> None:
        self.cases = tuple(cases)
        self.recipe = recipe
        self.augmented = augmented
        self._augmentation = augment(recipe)
        self._movement = movement(recipe)

    def __getitem__(self, at: tuple[int, int]) -> Sample:
        """The patch of this number in this epoch."""
        case, centre, seed = self._choice(at)
        patch = self._cut(case, centre, seed)
        return self.augmented_patch(patch) if self.augmented else patch

    def variant(self, at: tuple[int, int], seed: int | None) -> Sample:
        """The patch of this number in this epoch, augmented with another seed; None: unchanged."""
        case, centre, own = self._choice(at)
        if seed is None:
            return self._cut(case, centre, own, moved=False)
        return self.augmented_patch(self._cut(case, centre, seed))

    def augmented_patch(self, patch: Sample) -> Sample:
        """The patch after augmentation, on its own device."""
        self._augmentation.set_random_state(seed=patch["seed"])
        tensors = {"image": patch["image"], "label": patch["label"], "table": patch["table"]}
        changed = self._augmentation(tensors)
        image, label, table = (torch.as_tensor(changed[key]).contiguous() for key in tensors)
        return Sample(image=image, label=label, table=table, case=patch["case"], seed=patch["seed"])

    def _choice(self, at: tuple[int, int]) -> tuple[CachedCase, npt.NDArray[np.int64], int]:
        """Case, centre and seed of the augmentation of the patch of this number in this epoch."""
        (epoch, number), rules = at, self.recipe.train
        rng = np.random.default_rng([rules.seed, epoch, number])
        if rules.forced_foreground:
            # nnU-Net's rule. Cases in turn would give some of them the same place in each batch.
            case = self.cases[int(rng.integers(len(self.cases)))]
            first = round(rules.batch_size * (1 - rules.foreground_fraction))
            centre = self._centre(case, case.shape, rng, number % rules.batch_size >= first)
        else:
            order = np.random.default_rng([rules.seed, epoch]).permutation(len(self.cases))
            case = self.cases[order[number % len(self.cases)]]
            centre = self._centre(case, case.shape, rng)
        return case, centre, int(rng.integers(2**31))

    def _cut(
        self, case: CachedCase, centre: npt.NDArray[np.int64], seed: int, *, moved: bool = True
    ) -> Sample:
        prepared, labels = case.load(), case.labels()
        image, label = torch.from_numpy(prepared.image), torch.from_numpy(labels.classes)[None]
        channels = len(image)
        size = self.recipe.patch.size
        if self.recipe.spatial_dims == 2:
            neighbours = self.recipe.patch.neighbours
            image = stacked_slices(image, int(centre[2]), neighbours)
            label = label[..., int(centre[2])]
        # The channels repeat for each neighbouring slice, and so do their minima.
        low = case.minimum().repeat(len(image) // channels)
        beyond = torch.tensor([labels.outside_class], dtype=label.dtype)
        start = window_start(image.shape[1:], centre[: len(size)], size)
        if self._movement is not None:
            self._movement.set_random_state(seed=seed)
            self._movement.place(size)
        if self._movement is None or self._movement.control is None or not moved:
            image, label = box(image, start, size, fill=low), box(label, start, size, fill=beyond)
        else:
            first = np.floor(self._movement.reach[0]).astype(int)
            larger = (np.ceil(self._movement.reach[1]).astype(int) - first + 1).tolist()
            control = self._movement.control - first.reshape(-1, *[1] * len(size))
            image = box(image, start + first, larger, fill=low)
            label = box(label, start + first, larger, fill=beyond)
            image, label = read_at(image, label, control, self._movement.distances, size)
        table = torch.from_numpy(labels.table)
        return Sample(image=image, label=label, table=table, case=case.id, seed=seed)

    def _centre(
        self, case: CachedCase, shape: Sequence[int], rng: np.random.Generator, forced: bool | None = None
    ) -> npt.NDArray[np.int64]:
        anywhere = rng.integers(0, shape)
        wanted = rng.random() < self.recipe.train.foreground_fraction if forced is None else forced
        present = case.present_labels
        if not present:
            return anywhere
        voxels = case.foreground(present[int(rng.integers(len(present)))])
        row = int(rng.integers(len(voxels)))
        return voxels[row].astype(np.int64) if wanted else anywhere


def window_start(
    shape: Sequence[int], centre: npt.NDArray[np.int64], size: Sequence[int]
) -> npt.NDArray[np.int64]:
    """First voxel of a window around ``centre``, moved inside an array of this shape.

    Along an axis on which the array is smaller than the window, it is negative and lies in the middle.
    """
    starts = [
        int(np.clip(at - length // 2, 0, n - length)) if n >= length else -((length - n) // 2)
        for n, at, length in zip(shape, centre, size, strict=True)
    ]
    return np.array(starts, np.int64)


def box(
    values: torch.Tensor, start: npt.NDArray[np.int64], size: Sequence[int], *, fill: torch.Tensor
) -> torch.Tensor:
    """A copy of a box of an array, (C, *size) of (C, ...), with one value per channel beyond the array."""
    sources, targets = [slice(None)], [slice(None)]
    for n, first, length in zip(values.shape[1:], start.tolist(), size, strict=True):
        begin, end = min(max(first, 0), n), min(max(first + length, 0), n)
        sources.append(slice(begin, end))
        targets.append(slice(begin - first, end - first))
    inner = values[tuple(sources)]
    if inner.shape[1:] == tuple(size):
        return inner.clone()
    out = fill.reshape(-1, *[1] * len(size)).expand(len(values), *size).clone()
    out[tuple(targets)] = inner
    return out


def window(
    values: torch.Tensor, centre: npt.NDArray[np.int64], size: Sequence[int], *, fill: torch.Tensor
) -> torch.Tensor:
    """A window of an array around ``centre``: (C, *size) of (C, ...).

    A window that would reach beyond the array is moved inside. An array smaller than the window is padded
    on both sides with ``fill``, one value per channel, as the sliding window pads.
    """
    return box(values, window_start(values.shape[1:], centre, size), size, fill=fill)
