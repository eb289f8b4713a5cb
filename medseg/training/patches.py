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

from medseg.inference.sliding_window import stacked_slices
from medseg.preprocessing.augmentation import augment
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
    used equally often.

    Args:
        cases: Prepared cases to cut the patches from.
        recipe: Defines the size, choice and augmentation of the patches.
        augmented: Whether they are augmented here; otherwise :meth:`augmented_patch` does it later.
    """

    def __init__(self, cases: Sequence[CachedCase], recipe: Recipe, *, augmented: bool = True) -> None:
        self.cases = tuple(cases)
        self.recipe = recipe
        self.augmented = augmented
        self._augmentation = augment(recipe)

    def __getitem__(self, at: tuple[int, int]) -> Sample:
        """The patch of this number in this epoch."""
        epoch, number = at
        seed = self.recipe.train.seed
        rng = np.random.default_rng([seed, epoch, number])
        order = np.random.default_rng([seed, epoch]).permutation(len(self.cases))
        case = self.cases[order[number % len(self.cases)]]
        image, label, table = self._cut(case, rng)
        patch = Sample(image=image, label=label, table=table, case=case.id, seed=int(rng.integers(2**31)))
        return self.augmented_patch(patch) if self.augmented else patch

    def augmented_patch(self, patch: Sample) -> Sample:
        """The patch after augmentation, on its own device."""
        self._augmentation.set_random_state(seed=patch["seed"])
        tensors = {"image": patch["image"], "label": patch["label"], "table": patch["table"]}
        changed = self._augmentation(tensors)
        image, label, table = (torch.as_tensor(changed[key]).contiguous() for key in tensors)
        return Sample(image=image, label=label, table=table, case=patch["case"], seed=patch["seed"])

    def _cut(
        self, case: CachedCase, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        prepared, labels = case.load(), case.labels()
        image, label = torch.from_numpy(prepared.image), torch.from_numpy(labels.classes)[None]
        channels, *shape = image.shape
        centre = self._centre(case, shape, rng)
        size = self.recipe.patch.size
        if self.recipe.spatial_dims == 2:
            neighbours = self.recipe.patch.neighbours
            image = stacked_slices(image, int(centre[2]), neighbours)
            label = label[..., int(centre[2])]
        at = centre[: len(size)]
        # The channels repeat for each neighbouring slice, and so do their minima.
        low = case.minimum().repeat(len(image) // channels)
        beyond = torch.tensor([labels.outside_class], dtype=label.dtype)
        table = torch.from_numpy(labels.table)
        return window(image, at, size, fill=low), window(label, at, size, fill=beyond), table

    def _centre(
        self, case: CachedCase, shape: Sequence[int], rng: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        anywhere = rng.integers(0, shape)
        wanted = rng.random() < self.recipe.train.foreground_fraction
        present = case.present_labels
        if not present:
            return anywhere
        voxels = case.foreground(present[int(rng.integers(len(present)))])
        row = int(rng.integers(len(voxels)))
        return voxels[row].astype(np.int64) if wanted else anywhere


def window(
    values: torch.Tensor, centre: npt.NDArray[np.int64], size: Sequence[int], *, fill: torch.Tensor
) -> torch.Tensor:
    """A window of an array around ``centre``: (C, *size) of (C, ...).

    A window that would reach beyond the array is moved inside. An array smaller than the window is padded
    on both sides with ``fill``, one value per channel, as the sliding window pads.
    """
    sources, targets = [slice(None)], [slice(None)]
    for n, at, length in zip(values.shape[1:], centre, size, strict=True):
        start = int(np.clip(at - length // 2, 0, max(n - length, 0)))
        sources.append(slice(start, start + min(n, length)))
        before = max(length - n, 0) // 2
        targets.append(slice(before, before + min(n, length)))
    inner = values[tuple(sources)]
    if inner.shape[1:] == tuple(size):
        return inner.clone()
    out = fill.reshape(-1, *[1] * len(size)).expand(len(values), *size).clone()
    out[tuple(targets)] = inner
    return out
