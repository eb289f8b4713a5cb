"""Batches of a fixed size, for engines compiled for it."""

from __future__ import annotations

import torch


def filled(windows: torch.Tensor, batch: int) -> torch.Tensor:
    """Contiguous (batch, C, ...): the windows, padded with zeros to a full batch."""
    if len(windows) < batch:
        windows = torch.cat([windows, windows.new_zeros((batch - len(windows), *windows.shape[1:]))])
    return windows.contiguous()
