"""Base classes of the augmentations, random MONAI transforms of a patch, and rows of their table."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from monai.transforms.transform import Randomizable, Transform

from medseg.recipe import Recipe

Patch = dict[str, torch.Tensor]
"""``image`` float32 (in_channels, *patch) and ``label`` float32 (L, *patch) of 1, 0 and -1 (unknown)."""

Drawn = TypeVar("Drawn")


class RandomTransform(Randomizable, Transform):  # type: ignore[misc]  # monai has no types
    """A random change of a patch, decided by ``set_random_state`` alone.

    ``randomize`` draws every number with numpy on the CPU; ``__call__`` draws and applies. It
    never changes its input, never reads a voxel back from the device it is on, and leaves all
    global random states alone.

    Args:
        probability: How often it changes anything, in 0..1.
    """

    def __init__(self, probability: float) -> None:
        self.probability = probability

    def happens(self) -> bool:
        """Drawn anew with every call: True in a share of ``probability``."""
        return bool(self.R.random_sample() < self.probability)

    def within(self, most: float) -> float:
        """A number drawn evenly from -most..most."""
        return float(self.R.uniform(-most, most))

    def up_to(self, most: float) -> float:
        """A number drawn evenly from 0..most."""
        return float(self.R.uniform(0, most))

    @abstractmethod
    def randomize(self, data: Mapping[str, torch.Tensor]) -> None:
        """Draws what the next application needs."""

    @abstractmethod
    def __call__(self, data: Mapping[str, torch.Tensor]) -> Patch:
        """The changed patch."""


class ChannelTransform(RandomTransform, Generic[Drawn]):
    """A change of intensity, drawn for each scan channel on its own; the label stays.

    A 2D network's neighbouring slices of one scan channel change together: their channels lie in
    the order of :func:`medseg.inference.sliding_window.stacked_slices`, slices outside, scan channels inside.

    Args:
        most: The largest change; each row of the table says of what.
        probability: How often each scan channel changes.
        channels: Scan channels of the image.
    """

    def __init__(self, most: float, probability: float, *, channels: int = 1) -> None:
        super().__init__(probability)
        self.most = most
        self.channels = channels
        self.drawn: list[Drawn | None] = []

    @abstractmethod
    def draw(self, dims: int) -> Drawn:
        """The numbers of one application to one scan channel with so many spatial axes."""

    @abstractmethod
    def change(self, values: torch.Tensor, drawn: Drawn) -> torch.Tensor:
        """``values``, float32 (slices, *patch) of one scan channel, changed as drawn; a new tensor."""

    def randomize(self, data: Mapping[str, torch.Tensor]) -> None:
        """Draws for each scan channel whether it changes, and how."""
        dims = data["image"].ndim - 1
        self.drawn = [self.draw(dims) if self.happens() else None for _ in range(self.channels)]

    def __call__(self, data: Mapping[str, torch.Tensor]) -> Patch:
        """The patch with some of its scan channels changed."""
        self.randomize(data)
        image = data["image"]
        if all(drawn is None for drawn in self.drawn):
            return dict(data)
        each = image.reshape(-1, self.channels, *image.shape[1:]).unbind(1)
        changed = [
            values if drawn is None else self.change(values, drawn)
            for values, drawn in zip(each, self.drawn, strict=True)
        ]
        return dict(data) | {
            "image": torch.stack(changed, 1).flatten(0, 1) if len(changed) > 1 else changed[0]
        }


@dataclass(frozen=True)
class Augmentation:
    """A row of the table.

    Attributes:
        fields: Of the recipe's section ``augment``; the row is left out when all of them are off.
        build: Makes the transform of a recipe.
    """

    fields: tuple[str, ...]
    build: Callable[[Recipe], RandomTransform]


def by_amount(transform: Callable[..., RandomTransform], field: str) -> Augmentation:
    """The row of a transform of intensities whose largest change is one field of the recipe."""

    def build(recipe: Recipe) -> RandomTransform:
        rules = recipe.augment
        return transform(getattr(rules, field), rules.probability, channels=len(recipe.channels))

    return Augmentation((field,), build)
