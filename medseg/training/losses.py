"""The table of training losses. Each maps (logits, truth) to a scalar.

The truth is 1 (inside the label), 0 (outside) or -1 (unknown: the voxel is to be ignored, or the case is
not annotated for that label). Unknown voxels take part in no sum, mean or gradient. MONAI's losses do not
support them, so the formulas are implemented here; tests compare them with MONAI's where all is known.

With several processes (data parallel) all sums run over the batches of all processes, so that the loss
and, after averaging the gradients, the step are those of one process with all patches. Without gradients,
as in a validation, in which processes may have different numbers of scans, they are those of the process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import distributed, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional as F

from medseg.inference.label_decision import with_background
from medseg.recipe import Recipe, loss
from medseg.training.border_weights import border_weights
from medseg.training.deep_supervision import Supervised

# So small that it matters only for a label without any voxel (MONAI's default).
_SMOOTH = 1e-5

# Labels from which the memory of copies matters more than a pause of the GPU.
_MANY = 16


class Loss(nn.Module, ABC):
    """Base class of the losses, with one weight per label.

    Args:
        weights: One per label.
    """

    weights: torch.Tensor

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32), persistent=False)

    @abstractmethod
    def forward(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """The loss, a scalar, of float32 logits (N, L, ...) and truth (N, L, ...) of 1, 0 and -1."""

    def mean_over_patches(self, dice: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """The weighted mean of values (N, L), over labels and patches of all processes with a known voxel."""
        weights = self.weights * (counts > 0)
        total, weight = _global_sums(dice * weights, weights)
        return total.sum() / weight.sum().clamp_min(1e-12)

    def mean_over_labels(self, values: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """The weighted mean of one value per label, over the labels with any known voxel."""
        weights = self.weights * (counts > 0)
        return (values * weights).sum() / weights.sum().clamp_min(1e-12)


class DiceBCE(Loss):
    """Soft Dice loss plus binary cross-entropy, with one sigmoid channel per label.

    BCE = -mean(y log p + (1 - y) log(1 - p)) acts on every voxel and has smooth gradients;
    Dice = 1 - (2 sum(p y) + e) / (sum(p) + sum(y) + e), e = 1e-5, measures the overlap and is not dominated
    by the background (Milletari et al. 2016, doi:10.1109/3DV.2016.79, with the denominator of MONAI's
    DiceLoss, which is not squared). Dice is computed over the whole batch for each label (nnU-Net's batch
    Dice), so that a patch without the label does not dominate, or for each patch. Both are means over labels.

    Args:
        weights: One per label.
        dice_weight: Weight of the Dice part.
        bce_weight: Weight of the cross-entropy part.
        batch_dice: Whether Dice is that of the whole batch.
    """

    def __init__(
        self,
        weights: Sequence[float],
        dice_weight: float = 1.0,
        bce_weight: float = 1.0,
        batch_dice: bool = True,
    ) -> None:
        super().__init__(weights)
        self.dice_weight, self.bce_weight = dice_weight, bce_weight
        self.batch_dice = batch_dice

    def forward(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """The loss; see :meth:`Loss.forward`."""
        known, y = _known(truth)
        bce = F.binary_cross_entropy_with_logits(logits, y, reduction="none") * known
        overlap = _overlap(torch.sigmoid(logits) * known, y)
        if not self.batch_dice:
            (counts, bce_sum) = _global_sums(known, bce)
            cross = self.mean_over_labels(bce_sum / counts.clamp_min(1), counts)
            each = _patch_dice(*overlap)
            return self.bce_weight * cross + self.dice_weight * self.mean_over_patches(
                each, known.flatten(2).sum(2)
            )
        counts, bce_sum, both, predicted, true = _global_sums(known, bce, *overlap)
        dice = 1 - (2 * both + _SMOOTH) / (predicted + true + _SMOOTH)
        value = self.dice_weight * dice + self.bce_weight * bce_sum / counts.clamp_min(1)
        return self.mean_over_labels(value, counts)


class Tversky(Loss):
    """1 - TP / (TP + a FP + b FN), over the batch for each label (Salehi et al. 2017, equation 4).

    Args:
        weights: One per label.
        false_positives: Weight a of false positives.
        false_negatives: Weight b of false negatives.
        gamma: Each label's loss is raised to 1 / gamma (Abraham and Khan 2019, equation 4).
    """

    def __init__(
        self, weights: Sequence[float], false_positives: float, false_negatives: float, gamma: float = 1.0
    ) -> None:
        super().__init__(weights)
        self.false_positives, self.false_negatives = false_positives, false_negatives
        self.gamma = gamma

    def forward(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """The loss; see :meth:`Loss.forward`."""
        known, y = _known(truth)
        counts, both, predicted, true = _global_sums(known, *_overlap(torch.sigmoid(logits) * known, y))
        wrong = self.false_positives * (predicted - both) + self.false_negatives * (true - both)
        value = wrong / (both + wrong + _SMOOTH)
        if self.gamma != 1:
            # The slope of a root is infinite at 0: below this value the gradient is 0.
            value = value.clamp_min(1e-6) ** (1 / self.gamma)
        return self.mean_over_labels(value, counts)


class Focal(Loss):
    """Mean of (1 - pt)^gamma times the cross-entropy, pt the probability of the truth (Lin et al. 2017).

    With gamma 0 it is the binary cross-entropy.

    Args:
        weights: One per label.
        gamma: Exponent.
        alpha: Weight of voxels inside the label; all others have 1 - alpha. None gives both weight 1.
    """

    def __init__(self, weights: Sequence[float], gamma: float, alpha: float | None = None) -> None:
        super().__init__(weights)
        self.gamma, self.alpha = gamma, alpha

    def forward(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """The loss; see :meth:`Loss.forward`."""
        known, y = _known(truth)
        bce = F.binary_cross_entropy_with_logits(logits, y, reduction="none")
        # 1 - pt is the sigmoid of the logit with the sign of the wrong class. Its power is computed from the
        # logarithm, because a power below 1 has an infinite slope where the sigmoid is rounded to 0.
        easy = torch.exp(self.gamma * F.logsigmoid(logits * (1 - 2 * y)))
        side = 1.0 if self.alpha is None else 1 - self.alpha + (2 * self.alpha - 1) * y
        counts, total = _global_sums(known, easy * side * bce * known)
        return self.mean_over_labels(total / counts.clamp_min(1), counts)


class BorderBCE(Loss):
    """Cross-entropy times 1 + w0 exp(-(d1 + d2)^2 / (2 sigma^2)). See :func:`border_weights`.

    Args:
        weights: One per label.
        border_weight: Factor w0.
        sigma_voxels: Width sigma, in voxels.
    """

    def __init__(self, weights: Sequence[float], border_weight: float, sigma_voxels: float) -> None:
        super().__init__(weights)
        self.border_weight, self.sigma_voxels = border_weight, sigma_voxels

    def forward(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """The loss; see :meth:`Loss.forward`."""
        known, y = _known(truth)
        bce = F.binary_cross_entropy_with_logits(logits, y, reduction="none")
        maps = [
            border_weights(one, border_weight=self.border_weight, sigma_voxels=self.sigma_voxels)
            for one in truth.cpu().numpy()
        ]
        border = torch.from_numpy(np.stack(maps)).to(logits)[:, None]
        counts, total = _global_sums(known, (1 + border) * bce * known)
        return self.mean_over_labels(total / counts.clamp_min(1), counts)


class DiceCE(Loss):
    """Dice and cross-entropy of a softmax over the labels and the background, whose logit is 0.

    If some labels of a voxel are unknown and it has none of the known ones, the truth is "background or
    one of the unknown labels", and their probabilities are added (the marginal loss, Shi et al. 2021,
    doi:10.1016/j.media.2021.101979). A voxel whose labels are all unknown does not contribute. The mean of
    the cross-entropy is weighted by the weight of the true label, as in torch.

    Args:
        weights: One per label; that of the background is 1.
        dice_weight: Weight of the Dice part.
        ce_weight: Weight of the cross-entropy part.
        batch_dice: Whether Dice is that of the whole batch, or the mean over its patches.
    """

    def __init__(
        self, weights: Sequence[float], dice_weight: float, ce_weight: float, batch_dice: bool = True
    ) -> None:
        super().__init__(weights)
        self.dice_weight, self.ce_weight = dice_weight, ce_weight
        self.batch_dice = batch_dice

    def forward(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """The loss; see :meth:`Loss.forward`."""
        known, y = _known(truth)
        logs = F.log_softmax(with_background(logits, 1), 1)
        if y is truth and bool(y.sum(1).amax() <= 1):
            ce, weight = self._cross_entropy_of_classes(logs, y)
            probabilities = logs[:, 1:].exp()
        else:
            ce, weight = self._marginal_cross_entropy(logs, y, known)
            probabilities = logs[:, 1:].exp() * known
        (ce_sum, weight_sum) = _global_sums(ce, weight)
        cross = (ce_sum / weight_sum.clamp_min(1e-12)).sum()
        if not self.batch_dice:
            each = _patch_dice(*_overlap(probabilities, y))
            dice = self.mean_over_patches(each, known.flatten(2).sum(2))
            return self.dice_weight * dice + self.ce_weight * cross
        counts, both, p, t = _global_sums(known, *_overlap(probabilities, y))
        dice = 1 - (2 * both + _SMOOTH) / (p + t + _SMOOTH)
        return self.dice_weight * self.mean_over_labels(dice, counts) + self.ce_weight * cross

    def _cross_entropy_of_classes(
        self, logs: torch.Tensor, y: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy times weight, and weight, (N, 1, ...) each, where every voxel has one known class.

        The same bits as :meth:`_marginal_cross_entropy`, without its copies of all channels.
        """
        top, label = y.max(1, keepdim=True)
        weight = torch.where(top > 0, self.weights[label], 1.0)
        return -logs.gather(1, torch.where(top > 0, label + 1, 0)) * weight, weight

    def _marginal_cross_entropy(
        self, logs: torch.Tensor, y: torch.Tensor, known: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy times weight, and weight, (N, 1, ...) each, of the classes that the truth allows."""
        shape = (1, -1, *[1] * (logs.ndim - 2))
        labelled = y.amax(1, keepdim=True)
        # Classes that agree with the truth: its label, or else the background and all unknown labels.
        allowed = torch.where(labelled > 0, y, 1 - known)
        possible = torch.cat(
            [
                torch.where(labelled > 0, -torch.inf, logs[:, :1]),
                torch.where(allowed > 0, logs[:, 1:], -torch.inf),
            ],
            1,
        )
        some = known.amax(1, keepdim=True)
        weight = some * torch.where(labelled > 0, (y * self.weights.view(shape)).sum(1, keepdim=True), 1.0)
        return -torch.logsumexp(possible, 1, keepdim=True) * weight, weight


REGISTRY: dict[str, Callable[..., Loss]] = {
    "dice_bce": lambda rules, weights: DiceBCE(
        weights, rules.dice_weight, rules.bce_weight, rules.batch_dice
    ),
    "dice_ce": lambda rules, weights: DiceCE(weights, rules.dice_weight, rules.ce_weight, rules.batch_dice),
    "bce": lambda rules, weights: DiceBCE(weights, 0.0, 1.0),
    "tversky": lambda rules, weights: Tversky(
        weights, rules.false_positives, rules.false_negatives, rules.gamma
    ),
    "focal": lambda rules, weights: Focal(weights, rules.gamma, rules.alpha),
    "border_bce": lambda rules, weights: BorderBCE(weights, rules.border_weight, rules.sigma_voxels),
}


def build(recipe: Recipe) -> Supervised:
    """The loss of a recipe."""
    rules: loss.Loss = recipe.loss
    weights = [rules.class_weights.get(label.name, 1.0) for label in recipe.labels]
    deep: Sequence[float] = getattr(recipe.network, "deep_supervision", (1.0,))
    return Supervised(REGISTRY[rules.kind](rules, weights), deep)


def _known(truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A map that is 1 where the truth is known, and the truth with unknown voxels set to 0.

    If all is known, the map takes no memory, and the truth is returned itself.
    """
    # On a GPU the question waits for all that was queued before: only where the memory is worth it.
    if (truth.device.type == "cpu" or truth.shape[1] >= _MANY) and bool(truth.amin() >= 0):
        return torch.ones((), device=truth.device).expand_as(truth), truth
    return (truth >= 0).to(torch.float32), truth.clamp_min(0)


def _overlap(p: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return p * y, p, y


def _patch_dice(both: torch.Tensor, p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """1 - Dice (N, L) of each patch and label."""
    overlap, predicted, true = (each.flatten(2).sum(2) for each in (both, p, y))
    return 1 - (2 * overlap + _SMOOTH) / (predicted + true + _SMOOTH)


def _global_sums(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Sums (L,) of each (N, L, ...) over batch, voxels and processes."""
    sums = [value.sum((0, *range(2, value.ndim))) for value in values]
    several = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
    if not (several and torch.is_grad_enabled()):
        return tuple(sums)
    # Its backward pass adds the gradients of all processes, which data-parallel training then averages.
    total: torch.Tensor = all_reduce(torch.cat(sums))  # type: ignore[no-untyped-call]  # torch has none
    return torch.split(total, [len(one) for one in sums])
