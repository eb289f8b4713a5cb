"""Base classes of the augmentations, which are random MONAI transforms, and rows of their table."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from monai.transforms.transform import Randomizable, Transform

from medseg.recipe import Augment, Recipe

Patch = dict[str, torch.Tensor]
"""``image`` float32 (in_channels, *patch), and ``label``.

The labels are either one integer map (1, *patch) of classes with ``table``, int8 (K, L), of the labels that
each class belongs to, or float32 channels (L, *patch) of 1, 0 and -1 (unknown).
"""

Drawn = TypeVar("Drawn")


class RandomTransform(Randomizable, Transform):  # type: ignore[misc]  # monai has no types
    """A random change of a patch that ``set_random_state`` alone determines.

    ``randomize`` draws all numbers with numpy on the CPU; ``__call__`` draws and applies them. Subclasses
    never change their input, never read voxels back from the device, and never use global random states.

    Args:
        probability: Probability of a change, 0..1.
    """

    def __init__(self, probability: float) -> None:
        self.probability = probability

    def happens(self) -> bool:
        """True with ``probability``, drawn anew in every call."""
        return bool(self.R.random_sample() < self.probability)

    def within(self, most: float) -> float:
        """A random number, uniform in -most..most."""
        return float(self.R.uniform(-most, most))

    def up_to(self, most: float) -> float:
        """A random number, uniform in 0..most."""
        return float(self.R.uniform(0, most))

    @abstractmethod
    def randomize(self, data: Mapping[str, torch.Tensor]) -> None:
        """Draws the numbers of the next application."""

    @abstractmethod
    def __call__(self, data: Mapping[str, torch.Tensor]) -> Patch:
        """The changed patch."""


class ChannelTransform(RandomTransform, Generic[Drawn]):
    """A change of intensity, drawn independently for each scan channel; the label is unchanged.

    For a 2D network, neighbouring slices of one scan channel change together. Their channels are in the
    order of :func:`medseg.inference.sliding_window.stacked_slices`: slices outside, scan channels inside.

    Args:
        most: Largest change; its meaning depends on the subclass.
        probability: Probability of a change in each scan channel.
        channels: Number of scan channels of the image.
    """

    def __init__(self, most: float, probability: float, *, channels: int = 1) -> None:
        super().__init__(probability)
        self.most = most
        self.channels = channels
        self.drawn: list[Drawn | None] = []

    @abstractmethod
    def draw(self, dims: int) -> Drawn:
        """Random numbers for one scan channel with ``dims`` spatial axes."""

    @abstractmethod
    def change(self, values: torch.Tensor, drawn: Drawn) -> torch.Tensor:
        """A new tensor: ``values``, float32 (slices, *patch) of one scan channel, changed as drawn."""

    def randomize(self, data: Mapping[str, torch.Tensor]) -> None:
        """Draws whether and how each scan channel changes."""
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
        fields: Fields in the recipe's section ``augment``; the transform is left out if all of them are off.
        build: Returns the transform of a recipe.
    """

    fields: tuple[str, ...]
    build: Callable[[Recipe], RandomTransform]


def by_amount(transform: Callable[..., RandomTransform], field: str) -> Augmentation:
    """The row of a :class:`ChannelTransform` whose largest change is one field of the recipe."""

    def build(recipe: Recipe) -> RandomTransform:
        rules = recipe.augment
        assert isinstance(rules, Augment)
        return transform(getattr(rules, field), rules.probability, channels=len(recipe.channels))

    return Augmentation((field,), build)
