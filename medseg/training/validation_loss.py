"""The loss of a validation scan, from logits that its segmentation computes anyway."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from medseg.recipe import Recipe
from medseg.training.dataloaders import Scan
from medseg.training.deep_supervision import Supervised


class ValidationPatch:
    """One patch of a scan, of the size of a training patch, whose logits are collected plane by plane.

    Its centre is labelled, unless nothing is. A 2D recipe takes as many slices as a batch has. A patch costs
    no run of the network, the memory of one patch of logits, and a few bytes for each voxel of the scan while
    its centre is found. The recipe's loss of it is comparable with the training loss, which the loss of a
    whole scan, mostly background, is not. With deep supervision the training loss is a mean over resolutions,
    this one is that of the finest.

    Args:
        scan: The scan.
        recipe: Recipe of the training.
    """

    def __init__(self, scan: Scan, recipe: Recipe) -> None:
        self._flat = len(recipe.patch.size) == 2
        width, height, *depth = recipe.patch.size
        size = (width, height, depth[0] if depth else recipe.train.batch_size)
        label = scan["label"]
        # Indexing with [] would convert the numbers of all voxels to 64 bits.
        inside = (
            (scan["table"] == 1).any(1).index_select(0, label.flatten().to(torch.int32)).view(label.shape)
        )
        self._box = _box_around(labelled_voxel(inside), inside.shape, size)
        self._truth = label[self._box][None, None]
        self._table = scan["table"][None]
        self._logits = scan["image"].new_zeros((1, len(recipe.labels), *self._truth.shape[2:]))

    def take(self, first: int, values: torch.Tensor) -> None:
        """Copies what lies in the patch from the logits (L, X, Y, planes) of planes from ``first`` on."""
        x, y, z = self._box
        low, high = max(first, z.start), min(first + values.shape[-1], z.stop)
        if low < high:
            part = values[:, x, y, low - first : high - first]
            self._logits[0, ..., low - z.start : high - z.start] = part

    def loss(self, loss: Supervised) -> float:
        """The recipe's loss of the patch; NaN if no truth is known in it."""
        classes = self._truth.to(torch.int32)
        if not bool((self._table[0] >= 0).any(1)[classes].any()):
            return float("nan")
        logits, truth, table = self._logits, self._truth, self._table
        if self._flat:  # slices are a batch
            logits, truth = (each[0].movedim(-1, 0) for each in (logits, truth))
            table = table.expand(len(truth), *table.shape[1:])
        return float(loss(logits, truth, table))


def labelled_voxel(inside: torch.Tensor) -> tuple[int, int, int]:
    """A voxel of bool ``inside`` (X, Y, Z) in its middle: half of it lies before it; the centre if empty."""
    if not bool(inside.any()):
        x, y, z = (n // 2 for n in inside.shape)
        return x, y, z
    # The median along one axis after the other: the voxel itself is inside, wherever the middle of all is.
    x = _median(inside.sum((1, 2)))
    y = _median(inside[x].sum(1))
    return x, y, _median(inside[x, y].to(torch.int64))


def _median(counts: torch.Tensor) -> int:
    total = counts.cumsum(0)
    return int((2 * total >= total[-1]).to(torch.uint8).argmax())


def _box_around(
    voxel: Sequence[int], shape: Sequence[int], size: Sequence[int]
) -> tuple[slice, slice, slice]:
    """A box of at most ``size`` around a voxel, moved into the scan."""
    starts = [max(0, min(at - n // 2, whole - n)) for at, whole, n in zip(voxel, shape, size, strict=True)]
    x, y, z = (
        slice(start, min(start + n, whole)) for start, n, whole in zip(starts, size, shape, strict=True)
    )
    return x, y, z
