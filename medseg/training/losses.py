"""The table of training losses. Each maps (logits, truth) to one number to minimise.

Truth is 1 (label), 0 (not), or -1: unknown, because the voxel is to be ignored or the case is not
annotated for that label. Unknown voxels take part in no sum, mean or gradient; MONAI's losses do
not know of them, so the formulas are written here and compared with MONAI's where all is known.

With several processes (data parallel) all sums are taken over the batches of all of them, so that
the loss and, after the averaging of gradients, the step are those of one process with all patches.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import distributed, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional as F

from medseg.inference.label_decision import with_background
from medseg.recipe import Recipe, loss, network

# So small that only a label of no voxel at all notices it (MONAI's default).
_SMOOTH = 1e-5
# Of a label's components; each costs a distance transform of its surroundings.
_MOST_CELLS = 32
# Where a cell no longer matters, in sigmas: exp(-5^2 / 2) is 4e-6.
_REACH = 5


class Loss(nn.Module, ABC):
    """What the losses have in common: known voxels, weights of labels, sums over all processes.

    Args:
        weights: One a label.
    """

    weights: torch.Tensor

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32), persistent=False)

    @abstractmethod
    def forward(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """The loss of float32 logits (N, L, ...) against truth (N, L, ...) in 1, 0 and -1, a scalar."""

    def mean_over_labels(self, values: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """The weighted mean of one value a label, over the labels of which any voxel is known."""
        weights = self.weights * (counts > 0)
        return (values * weights).sum() / weights.sum().clamp_min(1e-12)


class DiceBCE(Loss):
    """Soft Dice loss plus binary cross-entropy, on one sigmoid channel a label.

    BCE = -mean(y log p + (1 - y) log(1 - p)) drives every voxel and gives smooth gradients;
    Dice = 1 - (2 sum(p y) + e) / (sum(p) + sum(y) + e), e = 1e-5, drives the overlap and does not mind
    that most voxels are background (Milletari et al. 2016, doi:10.1109/3DV.2016.79, with the
    plain denominator; MONAI's DiceLoss). Dice is taken over the whole batch for each label
    (nnU-Net's batch Dice), so that a patch without the label does not dominate. Both are means over labels.

    Args:
        weights: One a label.
        dice_weight: Weight of the Dice part.
        bce_weight: Weight of the cross-entropy part.
    """

    def __init__(self, weights: Sequence[float], dice_weight: float = 1.0, bce_weight: float = 1.0) -> None:
        super().__init__(weights)
        self.dice_weight, self.bce_weight = dice_weight, bce_weight

    def forward(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """See :meth:`Loss.forward`."""
        known, y = _known(truth)
        bce = F.binary_cross_entropy_with_logits(logits, y, reduction="none") * known
        parts = _over_all(known, bce, *_overlap(torch.sigmoid(logits) * known, y))
        counts, bce_sum, both, found, true = parts
        dice = 1 - (2 * both + _SMOOTH) / (found + true + _SMOOTH)
        value = self.dice_weight * dice + self.bce_weight * bce_sum / counts.clamp_min(1)
        return self.mean_over_labels(value, counts)


class Tversky(Loss):
    """1 - TP / (TP + a FP + b FN), over the batch for each label (Salehi et al. 2017, equation 4).

    Args:
        weights: One a label.
        false_positives: a.
        false_negatives: b.
        gamma: Each label's loss is raised to 1 / gamma (Abraham and Khan 2019, equation 4).
    """

    def __init__(
        self, weights: Sequence[float], false_positives: float, false_negatives: float, gamma: float = 1.0
    ) -> None:
        super().__init__(weights)
        self.false_positives, self.false_negatives = false_positives, false_negatives
        self.gamma = gamma

    def forward(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """See :meth:`Loss.forward`."""
        known, y = _known(truth)
        counts, both, found, true = _over_all(known, *_overlap(torch.sigmoid(logits) * known, y))
        wrong = self.false_positives * (found - both) + self.false_negatives * (true - both)
        value = wrong / (both + wrong + _SMOOTH)
        if self.gamma != 1:
            # A root has no slope at 0: below this no gradient is asked for.
            value = value.clamp_min(1e-6) ** (1 / self.gamma)
        return self.mean_over_labels(value, counts)


class Focal(Loss):
    """Mean of (1 - pt)^gamma times the cross-entropy, pt the probability of the truth (Lin et al. 2017).

    With gamma 0 it is the binary cross-entropy.

    Args:
        weights: One a label.
        gamma: The exponent.
        alpha: Weight of a label's voxels, 1 - alpha of all others; None: 1 of both.
    """

    def __init__(self, weights: Sequence[float], gamma: float, alpha: float | None = None) -> None:
        super().__init__(weights)
        self.gamma, self.alpha = gamma, alpha

    def forward(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """See :meth:`Loss.forward`."""
        known, y = _known(truth)
        bce = F.binary_cross_entropy_with_logits(logits, y, reduction="none")
        # 1 - pt is the sigmoid of the logit turned against the truth; its power by way of the logarithm,
        # because a power below 1 has no slope where the sigmoid is rounded to 0.
        easy = torch.exp(self.gamma * F.logsigmoid(logits * (1 - 2 * y)))
        side = 1.0 if self.alpha is None else 1 - self.alpha + (2 * self.alpha - 1) * y
        counts, total = _over_all(known, easy * side * bce * known)
        return self.mean_over_labels(total / counts.clamp_min(1), counts)


class BorderBCE(Loss):
    """Cross-entropy times 1 + w0 exp(-(d1 + d2)^2 / (2 sigma^2)). See :func:`border_weights`.

    Args:
        weights: One a label.
        border_weight: w0.
        sigma_voxels: sigma.
    """

    def __init__(self, weights: Sequence[float], border_weight: float, sigma_voxels: float) -> None:
        super().__init__(weights)
        self.border_weight, self.sigma_voxels = border_weight, sigma_voxels

    def forward(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """See :meth:`Loss.forward`."""
        known, y = _known(truth)
        bce = F.binary_cross_entropy_with_logits(logits, y, reduction="none")
        maps = [
            border_weights(one, border_weight=self.border_weight, sigma_voxels=self.sigma_voxels)
            for one in truth.cpu().numpy()
        ]
        border = torch.from_numpy(np.stack(maps)).to(logits)[:, None]
        counts, total = _over_all(known, (1 + border) * bce * known)
        return self.mean_over_labels(total / counts.clamp_min(1), counts)


class DiceCE(Loss):
    """Dice and cross-entropy of a softmax over the background, whose logit is 0, and the labels.

    Where some labels are unknown and none of the known ones is there, the truth is "background or
    one of the unknown": their probabilities are added up (the marginal loss, Shi et al. 2021,
    doi:10.1016/j.media.2021.101979). Where all are unknown nothing is learned. The mean of the
    cross-entropy is weighted by the true label's weight, as torch's is.

    Args:
        weights: One a label; the background's is 1.
        dice_weight: Weight of the Dice part.
        ce_weight: Weight of the cross-entropy part.
    """

    def __init__(self, weights: Sequence[float], dice_weight: float, ce_weight: float) -> None:
        super().__init__(weights)
        self.dice_weight, self.ce_weight = dice_weight, ce_weight

    def forward(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """See :meth:`Loss.forward`."""
        known, y = _known(truth)
        shape = (1, -1, *[1] * (logits.ndim - 2))
        logs = F.log_softmax(with_background(logits, 1), 1)
        found = y.amax(1, keepdim=True)
        # The classes the truth allows: its label, or else the background and all that is unknown.
        allowed = torch.where(found > 0, y, 1 - known)
        none = torch.full_like(logs[:, 1:], -torch.inf)
        possible = torch.cat(
            [
                torch.where(found > 0, none[:, :1], logs[:, :1]),
                torch.where(allowed > 0, logs[:, 1:], none),
            ],
            1,
        )
        some = known.amax(1, keepdim=True)
        weight = some * torch.where(found > 0, (y * self.weights.view(shape)).sum(1, keepdim=True), 1.0)
        ce = -torch.logsumexp(possible, 1, keepdim=True) * weight
        probabilities = logs[:, 1:].exp() * known
        counts, both, p, t = _over_all(known, *_overlap(probabilities, y))
        (ce_sum, weight_sum) = _over_all(ce, weight)
        dice = 1 - (2 * both + _SMOOTH) / (p + t + _SMOOTH)
        cross = (ce_sum / weight_sum.clamp_min(1e-12)).sum()
        return self.dice_weight * self.mean_over_labels(dice, counts) + self.ce_weight * cross


class Supervised(nn.Module):
    """A loss of one output, or of several at coarser resolutions: deep supervision.

    Lee et al. 2015, arXiv:1409.5185.
    Each is compared with the truth at its resolution (nearest voxel, as nnU-Net does); what a loss
    counts in voxels (sigma_voxels) are voxels of that resolution.

    Args:
        loss: Of one output.
        weights: Of each output, finest first; only their ratios matter.
    """

    def __init__(self, loss: Loss, weights: Sequence[float]) -> None:
        super().__init__()
        self.loss = loss
        self.weights = [weight / sum(weights) for weight in weights]

    def forward(self, logits: torch.Tensor | tuple[torch.Tensor, ...], truth: torch.Tensor) -> torch.Tensor:
        """The loss of logits (N, L, ...), or of a tuple of them, against truth (N, L, ...); float32."""
        outputs = (logits,) if isinstance(logits, torch.Tensor) else logits
        truth = truth.to(torch.float32)
        weights = self.weights if len(outputs) > 1 else [1.0]
        total = torch.zeros((), device=truth.device)
        # In float32 also where the network computed in half precision: sums over a patch overflow there.
        with torch.autocast(truth.device.type, enabled=False):
            for weight, out in zip(weights, outputs, strict=True):
                there = truth
                if out.shape[2:] != truth.shape[2:]:
                    there = F.interpolate(truth, out.shape[2:], mode="nearest-exact")
                total = total + weight * self.loss(out.float(), there)
        return total


REGISTRY: dict[str, Callable[..., Loss]] = {
    "dice_bce": lambda rules, weights: DiceBCE(weights, rules.dice_weight, rules.bce_weight),
    "dice_ce": lambda rules, weights: DiceCE(weights, rules.dice_weight, rules.ce_weight),
    "bce": lambda rules, weights: DiceBCE(weights, 0.0, 1.0),
    "tversky": lambda rules, weights: Tversky(
        weights, rules.false_positives, rules.false_negatives, rules.gamma
    ),
    "focal": lambda rules, weights: Focal(weights, rules.gamma, rules.alpha),
    "border_bce": lambda rules, weights: BorderBCE(weights, rules.border_weight, rules.sigma_voxels),
}


def build(recipe: Recipe) -> Supervised:
    """The loss a recipe asks for."""
    rules: loss.Loss = recipe.loss
    weights = [rules.class_weights.get(label.name, 1.0) for label in recipe.labels]
    deep = recipe.network.deep_supervision if isinstance(recipe.network, network.DynUNet) else (1.0,)
    return Supervised(REGISTRY[rules.kind](rules, weights), deep)


def border_weights(
    truth: npt.NDArray[np.float32], *, border_weight: float, sigma_voxels: float
) -> npt.NDArray[np.float32]:
    """w0 exp(-(d1 + d2)^2 / (2 sigma^2)) of each voxel (Ronneberger et al. 2015, equation 2).

    d1 and d2 are the distances to the nearest and second nearest cell, in voxels of the patch. Cells
    are the face-connected components of the label map in which a later label covers earlier ones, the
    32 largest of each label; beyond 5 sigma of a cell it counts no more. With fewer than two cells in
    the patch the weight is 0 everywhere. The article's other term, w_c, is ``class_weights``.

    Args:
        truth: (L, *patch) of 1, 0, -1 (unknown: no cell).
        border_weight: w0.
        sigma_voxels: sigma.

    Returns:
        float32 (*patch).
    """
    painted = np.zeros(truth.shape[1:], np.int32)
    for number, channel in enumerate(truth, start=1):
        painted[channel == 1] = number
    first, second = (np.full(painted.shape, np.inf, np.float32) for _ in range(2))
    reach = math.ceil(_REACH * sigma_voxels)
    for number in range(1, len(truth) + 1):
        cells, count = ndimage.label(painted == number)
        boxes = ndimage.find_objects(cells)
        sizes = np.bincount(cells.ravel(), minlength=count + 1)[1:]
        for cell in np.argsort(-sizes, kind="stable")[:_MOST_CELLS]:
            around = tuple(slice(max(0, side.start - reach), side.stop + reach) for side in boxes[cell])
            distance = ndimage.distance_transform_edt(cells[around] != cell + 1).astype(np.float32)
            second[around] = np.minimum(second[around], np.maximum(first[around], distance))
            first[around] = np.minimum(first[around], distance)
    found: npt.NDArray[np.float32] = border_weight * np.exp(-((first + second) ** 2) / (2 * sigma_voxels**2))
    return found.astype(np.float32)


def _known(truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """1 where the truth is known, and the truth with 0 where it is not."""
    return (truth >= 0).to(torch.float32), truth.clamp_min(0)


def _overlap(p: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return p * y, p, y


def _over_all(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The sums of each (N, L, ...) over batch and voxels, (L,), of all processes together."""
    sums = [value.sum((0, *range(2, value.ndim))) for value in values]
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return tuple(sums)
    # Its backward adds up the gradients of all processes, which data-parallel training then averages.
    total: torch.Tensor = all_reduce(torch.cat(sums))  # type: ignore[no-untyped-call]  # torch has none
    return torch.split(total, [len(one) for one in sums])
