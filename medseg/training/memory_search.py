"""Patch and batch sizes that fit into memory, found by trial."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator

import torch

from medseg.errors import ResourceError, UsageError
from medseg.networks import build as build_network
from medseg.networks import channels_last
from medseg.recipe import Recipe
from medseg.system.error_conversion import is_out_of_memory
from medseg.training.losses import build as build_loss
from medseg.training.optimizer import build as build_optimizer


def out_of_memory(recipe: Recipe, device: torch.device) -> ResourceError:
    """The error for a training that ran out of memory, with sizes that fit.

    The candidates are smaller batches of the same patches, and the same batch of smaller patches. On a
    GPU each is tested with training steps on random numbers, beside whatever else the device holds. On
    a CPU the next smaller ones are named untested: a process at the limit of its address space cannot
    grow its stack, so that a trial could end it before the error is shown.

    Args:
        recipe: Recipe of the training.
        device: Device of the training.
    """
    return ResourceError(
        f"out of memory on {device} with train.batch_size {recipe.train.batch_size} and "
        f"patch.size {list(recipe.patch.size)}",
        where="training",
        remedy=_untested(recipe) if device.type == "cpu" else _tested(recipe, device),
        reason="memory",
    )


def _untested(recipe: Recipe) -> str:
    sizes = _sizes(next(each, None) for each in _smaller(recipe))
    return f"try {sizes}" if sizes else "use a smaller network"


def _tested(recipe: Recipe, device: torch.device) -> str:
    sizes = _sizes(_first_that_fits(each, device) for each in _smaller(recipe))
    return f"this fits: {sizes}" if sizes else "nothing smaller fits either: use a smaller network"


def _sizes(recipes: Iterable[Recipe | None]) -> str:
    return " or ".join(
        f"train.batch_size {r.train.batch_size} with patch.size {list(r.patch.size)}" for r in recipes if r
    )


def fits(recipe: Recipe, device: torch.device) -> bool:
    """Whether training steps of this recipe fit into memory.

    Two are tried, because only the first one allocates what the optimiser keeps beside the weights: once
    their size with ``sgd``, twice with ``adamw``.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            network = channels_last(build_network(recipe)).to(device)
            optimizer = build_optimizer(network.parameters(), recipe.train)
            shape = (recipe.train.batch_size, recipe.in_channels, *recipe.patch.size)
            truth = (recipe.train.batch_size, len(recipe.labels), *recipe.patch.size)
            measure = build_loss(recipe)
            for _ in range(2):
                optimizer.zero_grad()
                outputs = network(torch.rand(shape, device=device))
                measure(outputs, torch.zeros(truth, device=device)).backward()
                optimizer.step()
    except RuntimeError as error:
        # oneDNN reports this when memory runs out, but also for unsupported operations.
        if not is_out_of_memory(error) and "could not create a primitive" not in str(error):
            raise
        return False
    finally:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return True


def _first_that_fits(recipes: Iterator[Recipe], device: torch.device) -> Recipe | None:
    return next((recipe for recipe in recipes if fits(recipe, device)), None)


def _smaller(recipe: Recipe) -> tuple[Iterator[Recipe], Iterator[Recipe]]:
    """Smaller batches of the same patches, and the same batch of smaller patches, largest first."""
    return _smaller_batches(recipe), _smaller_patches(recipe)


def _smaller_batches(recipe: Recipe) -> Iterator[Recipe]:
    batch = recipe.train.batch_size // 2
    while batch:
        yield recipe.model_copy(update={"train": recipe.train.model_copy(update={"batch_size": batch})})
        batch //= 2


def _smaller_patches(recipe: Recipe) -> Iterator[Recipe]:
    size = list(recipe.patch.size)
    while True:
        # Shorten the longest side that can be shortened.
        for axis in sorted(range(len(size)), key=lambda axis: -size[axis]):
            shorter = _shorter(recipe, size, axis)
            if shorter:
                break
        else:
            return
        size = list(shorter.patch.size)
        yield shorter


def _shorter(recipe: Recipe, size: list[int], axis: int) -> Recipe | None:
    # By a fifth at least, because each candidate costs a training step.
    for length in range(int(size[axis] * 0.8), 0, -1):
        data = recipe.model_dump(mode="json")
        data["patch"]["size"] = [*size[:axis], length, *size[axis + 1 :]]
        try:
            return Recipe.checked(data)
        except UsageError:
            continue
    return None
