"""The probabilities of the networks of one recipe on its prepared grid, from the mean logits of the folds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from medseg.inference.backends import Engine
from medseg.inference.label_decision import LabelDecision
from medseg.inference.sliding_window import planes
from medseg.recipe import Recipe
from medseg.system.arrays import Array
from medseg.system.memory import trim_heap


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
    decision = LabelDecision.from_recipe(recipe)
    trim_heap()  # memory that reading and preparing used temporarily
    rules: dict[str, Any] = {
        "labels": len(recipe.labels),
        "patch": recipe.patch,
        "predict": recipe.predict,
        "divisor": recipe.network.divisor,
    }

    def mean(windows: Array) -> Array:
        run = cast("Sequence[Callable[[Array], Array]]", engines)  # torch's takes tensors, too
        logits: Any = run[0](windows)
        for engine in run[1:]:
            logits = logits + engine(windows)
        found: Array = logits / len(run)
        return found

    if device == "cpu":
        yield from ((first, decision.probabilities(values)) for first, values in planes(image, mean, **rules))
        return
    import torch

    from medseg.inference.device_transfer import on_cpu

    on_device = planes(torch.from_numpy(image), mean, **rules, device=torch.device(device))
    yield from on_cpu((first, decision.probabilities(values)) for first, values in on_device)
