"""The probabilities of the networks of one recipe on its prepared grid, from the mean logits of the folds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from medseg.inference.backends import Engine
from medseg.inference.label_decision import LabelDecision
from medseg.inference.sliding_window import planes
from medseg.recipe import Recipe
from medseg.system.arrays import Array
from medseg.system.memory import trim_heap

if TYPE_CHECKING:
    import torch


def probability_planes(
    recipe: Recipe, engines: Sequence[Engine], image: npt.NDArray[np.float32], device: str
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Probabilities on the prepared grid as soon as they are final.

    Args:
        recipe: A recipe without ``context`` and ``pipeline``.
        engines: The engine of each fold.
        image: float32 (C, X, Y, Z), the prepared scan.
        device: Device of the engines.

    Yields:
        The number of the first plane along the third axis, and float32 (L, X, Y, planes).
    """
    if device == "cpu":
        yield from _planes(recipe, engines, image)
        return
    import torch

    from medseg.inference.device_transfer import on_cpu

    yield from on_cpu(device_probability_planes(recipe, engines, image, torch.device(device)))


def device_probability_planes(
    recipe: Recipe, engines: Sequence[Engine], image: npt.NDArray[np.float32], device: torch.device
) -> Iterator[tuple[int, torch.Tensor]]:
    """The same probabilities as tensors on the device, where the scan is sent once.

    Arguments as in :func:`probability_planes`; windows are run in batches of the size that the engine of the
    first fold prefers.
    """
    import torch

    batch = getattr(engines[0], "batch", recipe.predict.window_batch)
    yield from _planes(recipe, engines, torch.from_numpy(image), batch=batch, device=device)


def _planes(
    recipe: Recipe,
    engines: Sequence[Engine],
    image: Array,
    *,
    batch: int | None = None,
    device: torch.device | None = None,
) -> Iterator[tuple[int, Array]]:
    decision = LabelDecision.from_recipe(recipe)
    trim_heap()  # memory that reading and preparing used temporarily
    predict = recipe.predict if batch is None else recipe.predict.model_copy(update={"window_batch": batch})

    def mean(windows: Array) -> Array:
        run = cast("Sequence[Callable[[Array], Array]]", engines)  # torch's takes tensors, too
        logits: Any = run[0](windows)
        for engine in run[1:]:
            logits = logits + engine(windows)
        found: Array = logits / len(run)
        return found

    found = planes(
        image,
        mean,
        labels=len(recipe.labels),
        patch=recipe.patch,
        predict=predict,
        divisor=recipe.network.divisor,
        device=device,
    )
    yield from ((first, decision.probabilities(values)) for first, values in found)
