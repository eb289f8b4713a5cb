"""Labels that the patches of an epoch contain, and that a network finds in none of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from medseg.inference.label_decision import LabelDecision
from medseg.recipe import Recipe

FEWEST_STEPS = 100
"""After fewer steps a training is a trial, of which nobody expects a mask."""
FEWEST_PATCHES = 10
"""A label in fewer patches of an epoch may only have been cut by their borders."""


class EpochLabels:
    """What was in the patches of an epoch, and what was found there.

    Masks can be empty although the loss has fallen: with 8 cases of the hippocampus, one training of five
    ended with a probability of at most 0.42 for each part (docs/results.md). Validation shows it, but not
    every training has validation cases.

    Attributes:
        patches: How many patches contained each label, int64 (L,).
        found: Whether the network decided for each label anywhere, bool (L,).
    """

    def __init__(self, recipe: Recipe) -> None:
        self._decision = LabelDecision.from_recipe(recipe)
        self.patches = torch.zeros(len(recipe.labels), dtype=torch.int64)
        self.found = self.patches > 0

    @torch.no_grad()
    def add(self, logits: torch.Tensor, classes: torch.Tensor, table: torch.Tensor) -> None:
        """Counts a batch; nothing waits for a GPU.

        Args:
            logits: Logits, float (N, L, ...).
            classes: Number of each voxel's class in ``table``, integers (N, 1, ...).
            table: For each class whether it is in each label: 1, 0, or -1 if not known; (N, K, L).
        """
        present = torch.stack([_occurring(one, len(rows)) for one, rows in zip(classes, table, strict=True)])
        self.patches = self.patches.to(logits.device) + (present[..., None] & (table == 1)).any(1).sum(0)
        self.found = self.found.to(logits.device) | self._decided(logits)

    def missed(self, everywhere: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[bool]:
        """Whether each label was in enough patches of all processes, and found by none.

        Args:
            everywhere: :attr:`patches` and :attr:`found` of every process.
        """
        patches, found = (torch.stack([each.cpu() for each in one]) for one in zip(*everywhere, strict=True))
        missed: list[bool] = ((patches.sum(0) >= FEWEST_PATCHES) & ~found.any(0)).tolist()
        return missed

    def _decided(self, logits: torch.Tensor) -> torch.Tensor:
        labels = logits.shape[1]
        if self._decision.exclusive:  # the background has a logit of 0
            largest, label = logits.max(1)
            return _occurring(torch.where(largest > 0, label + 1, 0), labels + 1)[1:]
        largest = logits.movedim(1, 0).reshape(labels, -1).amax(1)
        return self._decision.reached(self._decision.probabilities(largest))


def _occurring(numbers: torch.Tensor, count: int) -> torch.Tensor:
    """Whether each number from 0 to ``count`` - 1 occurs, bool (count,)."""
    occurring = torch.zeros(count, dtype=torch.bool, device=numbers.device)
    return occurring.index_fill_(0, numbers.flatten().to(torch.int64), True)
