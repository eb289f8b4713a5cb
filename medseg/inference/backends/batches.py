"""Batches of one size, for engines that are compiled for it."""

from __future__ import annotations

import torch


def filled(windows: torch.Tensor, batch: int) -> torch.Tensor:
    """Contiguous (batch, C, ...): the windows, and zeros to make up the batch."""
    if len(windows) < batch:
        windows = torch.cat([windows, windows.new_zeros((batch - len(windows), *windows.shape[1:]))])
    return windows.contiguous()
