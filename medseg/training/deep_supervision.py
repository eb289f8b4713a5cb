"""The loss of several outputs of decreasing resolution (deep supervision)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F


class Supervised(nn.Module):
    """A loss of one output, or of several outputs of decreasing resolution (deep supervision).

    Lee et al. 2015, arXiv:1409.5185. Each output is compared with the truth at its own resolution (nearest
    voxel, as in nnU-Net). Lengths in voxels (``sigma_voxels``) refer to that resolution.

    Args:
        loss: Loss of one output.
        weights: One per output, finest first; only their ratios matter.
    """

    def __init__(self, loss: nn.Module, weights: Sequence[float]) -> None:
        super().__init__()
        self.loss = loss
        self.weights = [weight / sum(weights) for weight in weights]

    def forward(
        self,
        logits: torch.Tensor | tuple[torch.Tensor, ...],
        truth: torch.Tensor,
        table: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The loss, a float32 scalar.

        Args:
            logits: (N, L, ...), or a tuple of them.
            truth: Classes (N, 1, ...) if there is a ``table``, otherwise channels (N, L, ...) of 1, 0 and -1.
            table: int8 (N, K, L), which labels each class belongs to.
        """
        outputs = (logits,) if isinstance(logits, torch.Tensor) else logits
        truth = truth.to(torch.float32)
        weights = self.weights if len(outputs) > 1 else [1.0]
        total = torch.zeros((), device=truth.device)
        # Always in float32: in half precision, sums over a patch overflow.
        with torch.autocast(truth.device.type, enabled=False):
            for weight, out in zip(weights, outputs, strict=True):
                target = truth
                if out.shape[2:] != truth.shape[2:]:
                    target = F.interpolate(truth, out.shape[2:], mode="nearest-exact")
                if table is not None:
                    target = label_channels(target, table)
                total = total + weight * self.loss(out.float(), target)
        return total


def label_channels(classes: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Channels float32 (N, L, ...) of 1, 0 and -1, from classes (N, 1, ...) and their table (N, K, L)."""
    rows = table.to(torch.float32).transpose(1, 2)  # (N, L, K)
    return torch.stack(
        [
            row.index_select(1, one.flatten().to(torch.int32)).reshape(-1, *one.shape[1:])
            for one, row in zip(classes, rows, strict=True)
        ]
    )
