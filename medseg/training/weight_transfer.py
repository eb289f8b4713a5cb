"""The weights that a network takes from a trained model with other labels or channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from medseg.errors import UsageError
from medseg.inference.model import weight_kinds
from medseg.networks import channel_axes
from medseg.recipe import NnunetPipeline, Recipe

Weights: TypeAlias = Mapping[str, torch.Tensor]
BACKGROUND = "(background)"  # no label has parentheses in its name
"""Name of the first output of a network of nnU-Net with exclusive labels."""


@dataclass(frozen=True)
class WeightTransfer:
    """What a recipe's network takes from the network of another recipe, by the names of weights.

    Attributes:
        source: Recipe of the trained model.
        target: Recipe to train.
        taken: Taken unchanged: same name, same shape, same meaning.
        by_label: Weights of output layers, of which the rows of common labels are taken.
        by_channel: Weights of first layers, of which the kernels are adapted to the channels.
        new: Not in the trained model: they keep their random values.
        unused: In the trained model only.
    """

    source: Recipe
    target: Recipe
    taken: tuple[str, ...]
    by_label: tuple[str, ...]
    by_channel: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]

    @classmethod
    def between(cls, source: Recipe, target: Recipe) -> WeightTransfer:
        """What a network of ``target`` can take from one of ``source``; nothing is allocated.

        Raises:
            UsageError: the networks differ in more than their first and last layers
                (``fine-tune-network``).
        """
        _refuse_several_networks(source)
        settings, *size = source.network_sizes()[0]
        own_settings, *own_size = target.network_sizes()[0]
        old = {name: shape for name, (_, shape) in weight_kinds(source).items()}
        new = {name: shape for name, (_, shape) in weight_kinds(target).items()}
        axes = channel_axes(settings, *size) | channel_axes(own_settings, *own_size)
        common = old.keys() & new.keys()
        stem, head = _same_channels(source, target), outputs(source) == outputs(target)
        wrong = [
            *(name for name in old.keys() ^ new.keys() if not axes.get(name, ((), ()))[1]),
            *(name for name in common if name not in axes and old[name] != new[name]),
            *(name for name in common & axes.keys() if _others(old, axes, name) != _others(new, axes, name)),
        ]
        if wrong or size[0] != own_size[0]:
            raise _misfit(source, target, min(wrong, default=""))
        by_label = [name for name in new if name in common and axes.get(name, ((), ()))[1] and not head]
        by_channel = [name for name in new if name in common and axes.get(name, ((), ()))[0] and not stem]
        changed = {*by_label, *by_channel}
        return cls(
            source,
            target,
            tuple(name for name in new if name in common and name not in changed),
            tuple(by_label),
            tuple(by_channel),
            tuple(name for name in new if name not in old),
            tuple(name for name in old if name not in new),
        )

    def apply(self, weights: Weights, fresh: Weights) -> dict[str, torch.Tensor]:
        """The weights that the training begins with, float32 where they are floating-point numbers.

        Args:
            weights: Weights of the trained model.
            fresh: Weights of the new network, randomly drawn; they remain for new labels and new layers.
        """
        axes = channel_axes(*self.source.network_sizes()[0]) | channel_axes(*self.target.network_sizes()[0])
        result = dict(fresh)
        for name in (*self.taken, *self.by_label, *self.by_channel):
            value = weights[name].to(fresh[name].dtype)
            first, last = axes.get(name, ((), ()))
            if name in self.by_channel:
                for axis in first:
                    value = _with_channels(value, axis, self.source, self.target)
            if name in self.by_label:
                value = rows_by_name(value, fresh[name], last, outputs(self.source), outputs(self.target))
            result[name] = value
        return result

    def facts(self) -> dict[str, Any]:
        """What was and was not taken, as plain data."""
        old, new = outputs(self.source), outputs(self.target)
        return {
            "recipe": self.source.name,
            "recipe_digest": self.source.digest,
            "labels_kept": [name for name in new if name in old],
            "labels_new": [name for name in new if name not in old],
            "labels_left_out": [name for name in old if name not in (*new, BACKGROUND)],
            "channels": {"source": list(self.source.channels), "now": list(self.target.channels)},
            "taken": list(self.taken),
            "by_label": list(self.by_label),
            "by_channel": list(self.by_channel),
            "new": list(self.new),
            "unused": list(self.unused),
        }


def outputs(recipe: Recipe) -> tuple[str, ...]:
    """The name of each output channel of a recipe's network: its labels, and a background before them."""
    names = tuple(label.name for label in recipe.labels)
    return (BACKGROUND, *names) if recipe.out_channels > len(names) else names


def rows_by_name(
    old: torch.Tensor, fresh: torch.Tensor, axes: Sequence[int], source: Sequence[str], target: Sequence[str]
) -> torch.Tensor:
    """The weights ``fresh`` with the rows of those names that ``old`` also has.

    If only ``source`` has a background, its row is subtracted from the others: a softmax does not depend on
    what is added to all logits, and afterwards the background has the logit 0 that medseg assumes.

    Args:
        old: Weights of the trained network.
        fresh: Weights of the new one, of the same shape but for ``axes``.
        axes: Axes along which the rows have names; along each the same.
        source: Names of the rows of ``old``.
        target: Names of the rows of ``fresh``.
    """
    pairs = [(new, source.index(name)) for new, name in enumerate(target) if name in source]
    if BACKGROUND in source and BACKGROUND not in target and len(axes) == 1:
        background = torch.tensor([source.index(BACKGROUND)], device=old.device)
        old = old - old.index_select(axes[0], background)
    into = torch.tensor([new for new, _ in pairs], dtype=torch.long)
    out_of = torch.tensor([index for _, index in pairs], dtype=torch.long)
    for axis in axes:
        old = old.index_select(axis, out_of)
    places = [into if axis in axes else torch.arange(n) for axis, n in enumerate(fresh.shape)]
    result = fresh.clone()
    result[torch.meshgrid(*places, indexing="ij")] = old
    return result


def redistributed(kernels: torch.Tensor, source: Sequence[object], target: Sequence[object]) -> torch.Tensor:
    """Kernels of the channels ``target``, whose sum is that of the kernels of ``source``.

    An image whose channels are equal therefore gives the same response as before. A channel that both have
    keeps its kernel. If channels are replaced, the new ones share the sum of those that are gone; if channels
    are only removed, their sum is divided among the others; if channels are only added, each begins with the
    mean kernel, and all are scaled by the old number of channels divided by the new one.

    Args:
        kernels: Kernels by channel along axis 0, in the order of ``source``.
        source: Names of the channels of the trained network.
        target: Names of the channels of the new one.
    """
    gone = [index for index, name in enumerate(source) if name not in target]
    added = [name for name in target if name not in source]
    kept = {name: kernels[index] for index, name in enumerate(source)}
    lost = kernels[gone].sum(0)
    if gone and added:
        kept |= dict.fromkeys(added, lost / len(added))
        return torch.stack([kept[name] for name in target])
    if gone:
        return torch.stack([kept[name] + lost / len(target) for name in target])
    mean = kernels.mean(0)
    together = torch.stack([kept.get(name, mean) for name in target])
    return together * (len(source) / len(target)) if added else together


def _others(
    shapes: Mapping[str, tuple[int, ...]],
    axes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
    name: str,
) -> list[int]:
    """The shape of a weight without the axes of channels and labels."""
    first, last = axes[name]
    return [n for axis, n in enumerate(shapes[name]) if axis not in (*first, *last)]


def _with_channels(weights: torch.Tensor, axis: int, source: Recipe, target: Recipe) -> torch.Tensor:
    """First-layer weights for the channels and neighbouring slices of ``target``."""
    slices, wanted = (_offsets(recipe) for recipe in (source, target))
    stacked = weights.movedim(axis, 0)  # slice by slice, each with its channels
    stacked = stacked.reshape(len(slices), len(source.channels), *stacked.shape[1:])
    stacked = redistributed(stacked, slices, wanted)
    stacked = redistributed(stacked.movedim(1, 0), source.channels, target.channels).movedim(0, 1)
    return stacked.flatten(0, 1).movedim(0, axis).contiguous()


def _offsets(recipe: Recipe) -> range:
    return range(-recipe.patch.neighbours, recipe.patch.neighbours + 1)


def _same_channels(source: Recipe, target: Recipe) -> bool:
    return source.channels == target.channels and _offsets(source) == _offsets(target)


def _refuse_several_networks(source: Recipe) -> None:
    several = len(source.network_sizes()) > 1 or source.context is not None
    partial = isinstance(source.pipeline, NnunetPipeline) and any(
        each.labels is not None for each in source.pipeline.configurations
    )
    if several or partial:
        raise UsageError(
            f"model {source.name} consists of several networks that run one after the other",
            where="--from",
            remedy="give a model with a single network",
            reason="fine-tune-network",
        )


def _misfit(source: Recipe, target: Recipe, weight: str) -> UsageError:
    old, new = source.network_sizes()[0], target.network_sizes()[0]
    ours, theirs = new[0].model_dump(mode="json"), old[0].model_dump(mode="json")
    fields = ("kind",) if ours["kind"] != theirs["kind"] else tuple(dict.fromkeys([*ours, *theirs]))
    differences = [
        f"network.{field} is {ours.get(field)} in the recipe, {theirs.get(field)} in the model"
        for field in fields
        if ours.get(field) != theirs.get(field)
    ]
    if old[1] != new[1]:
        differences.insert(0, f"the recipe is {new[1]}D, the model {old[1]}D")
    return UsageError(
        f"the recipe's network cannot take the weights of model {source.name}: "
        f"{'; '.join(differences) or f'weight {weight} differs'}",
        where="--from",
        remedy=f"give the recipe the model's network ({theirs['kind']}) with the same fields, "
        "or train without --from",
        reason="fine-tune-network",
    )
