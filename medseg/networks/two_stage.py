"""The two networks of a recipe with a section ``context``, as one module with one state dict."""

from __future__ import annotations

import torch
from torch import nn


class TwoStage(nn.Module):
    """A coarse and a fine network; :mod:`medseg.inference.two_stage` runs one after the other.

    Args:
        coarse: Maps the scan to logits of the labels.
        fine: Maps the scan and the coarse network's probabilities to logits of the labels.
    """

    def __init__(self, coarse: nn.Module, fine: nn.Module) -> None:
        super().__init__()
        self.coarse = coarse
        self.fine = fine

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits of the fine network for its own input, float32 (N, labels, X, Y, Z)."""
        logits: torch.Tensor = self.fine(image)
        return logits
