from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from monai.losses.dice import DiceLoss
from monai.losses.focal_loss import FocalLoss
from monai.losses.tversky import TverskyLoss
from scipy import ndimage
from scipy.spatial.distance import cdist
from support.processes import PATIENCE, environment
from support.worlds import tiny

from medseg.errors import UsageError
from medseg.recipe import Recipe
from medseg.training import losses
from medseg.training.border_weights import border_weights
from medseg.training.deep_supervision import Supervised
from medseg.training.losses import REGISTRY, BorderBCE, DiceBCE, DiceCE, Focal, Tversky, build

ONE, TWO = [1.0], [1.0, 1.0]
# Powers of numbers that may be 0, where the slope of a root is infinite.
POWERS = [{"kind": "focal", "gamma": 0.5}, {"kind": "tversky", "gamma": 2}]


def of_kind(kind: str, dims: int = 3, **loss) -> Recipe:
    labels = [{"name": "right_lung", "values": [1, 3]}, {"name": "left_lung", "values": [2, 4]}]
    return tiny(dims, labels=labels, loss={"kind": kind, **loss})


@pytest.fixture
def world():
    """Random logits and truth of two labels that exclude one another."""
    made = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 6, 5, 4, generator=made)
    classes = torch.randint(0, 3, (2, 6, 5, 4), generator=made)
    return logits, torch.stack([classes == 1, classes == 2], 1).float()


def test_dice_bce_by_hand():
    # Four voxels with probabilities .5 .5 .75 .25 and truth 1 0 1 0.
    logits = torch.tensor([0.0, 0.0, math.log(3), -math.log(3)]).reshape(1, 1, 4, 1, 1)
    truth = torch.tensor([1.0, 0.0, 1.0, 0.0]).reshape(1, 1, 4, 1, 1)
    bce = -(2 * math.log(0.5) + 2 * math.log(0.75)) / 4
    dice = 1 - 2 * (0.5 + 0.75) / (2.0 + 2.0)
    assert float(DiceBCE(ONE)(logits, truth)) == pytest.approx(bce + dice, abs=1e-5)
    assert float(DiceBCE(ONE, dice_weight=0)(logits, truth)) == pytest.approx(bce, abs=1e-6)
    assert float(DiceBCE(ONE, bce_weight=0)(logits, truth)) == pytest.approx(dice, abs=1e-5)


def test_dice_ce_by_hand():
    # One label, logits 0 and log 3 (probability .5 and .75), truth 1 and 0:
    # cross-entropy -(log .5 + log .25) / 2, Dice 1 - 2 * .5 / (1.25 + 1).
    logits = torch.tensor([0.0, math.log(3)]).reshape(1, 1, 2)
    truth = torch.tensor([1.0, 0.0]).reshape(1, 1, 2)
    ce = -(math.log(0.5) + math.log(0.25)) / 2
    assert float(DiceCE(ONE, 0, 1)(logits, truth)) == pytest.approx(ce, abs=1e-5)
    assert float(DiceCE(ONE, 1, 0)(logits, truth)) == pytest.approx(1 - 1 / 2.25, abs=1e-5)


def test_tversky_and_focal_by_hand():
    logits = torch.tensor([0.0, math.log(3)]).reshape(1, 1, 2)
    truth = torch.tensor([1.0, 0.0]).reshape(1, 1, 2)
    # TP .5, FP .75, FN .5.
    assert float(Tversky(ONE, 0.3, 0.7)(logits, truth)) == pytest.approx(
        1 - 0.5 / (0.5 + 0.225 + 0.35), abs=1e-5
    )
    plain = 1 - 0.5 / (0.5 + 0.225 + 0.35)
    assert float(Tversky(ONE, 0.3, 0.7, 4 / 3)(logits, truth)) == pytest.approx(plain**0.75, abs=1e-5)
    # pt .5 and .25.
    focal = -(0.5**2 * math.log(0.5) + 0.75**2 * math.log(0.25)) / 2
    assert float(Focal(ONE, 2.0)(logits, truth)) == pytest.approx(focal, abs=1e-5)
    sided = -(0.1 * 0.5**2 * math.log(0.5) + 0.9 * 0.75**2 * math.log(0.25)) / 2
    assert float(Focal(ONE, 2.0, 0.1)(logits, truth)) == pytest.approx(sided, abs=1e-5)


def test_monai_agrees_if_all_voxels_are_known(world):
    logits, truth = world
    dice = DiceLoss(sigmoid=True, batch=True, smooth_nr=1e-5, smooth_dr=1e-5)(logits, truth)
    bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
    torch.testing.assert_close(DiceBCE(TWO)(logits, truth), dice + bce)
    tversky = TverskyLoss(sigmoid=True, alpha=0.3, beta=0.7, batch=True)(logits, truth)
    torch.testing.assert_close(Tversky(TWO, 0.3, 0.7)(logits, truth), tversky, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(Focal(TWO, 2.0)(logits, truth), FocalLoss(gamma=2.0)(logits, truth))
    focal = FocalLoss(gamma=0.5, alpha=0.25)(logits, truth)
    torch.testing.assert_close(Focal(TWO, 0.5, 0.25)(logits, truth), focal)
    # With the background written out, MONAI's softmax has the same cross-entropy.
    three = torch.cat([torch.zeros_like(logits[:, :1]), logits], 1)
    classes = torch.cat([1 - truth.sum(1, keepdim=True), truth], 1)
    weight = torch.tensor([1.0, 3.0, 0.5])
    ce = torch.nn.functional.cross_entropy(three, classes.argmax(1), weight=weight)
    torch.testing.assert_close(DiceCE([3.0, 0.5], 0, 1)(logits, truth), ce)
    soft = DiceLoss(softmax=True, include_background=False, batch=True, smooth_nr=1e-5, smooth_dr=1e-5)
    torch.testing.assert_close(DiceCE(TWO, 1, 0)(logits, truth), soft(three, classes))


def test_focal_without_gamma_is_cross_entropy(world):
    torch.testing.assert_close(Focal(TWO, 0.0)(*world), DiceBCE(TWO, 0, 1)(*world))


def test_labels_may_overlap():
    """A perfect prediction of a lesion inside a lung costs nothing, on both channels."""
    truth = torch.zeros(1, 2, 6, 6, 6)
    truth[:, 0, 1:5] = 1
    truth[:, 1, 2:4] = 1
    assert float(DiceBCE(TWO)((truth - 0.5) * 200, truth)) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("kind", sorted(REGISTRY))
def test_unknown_voxels_do_not_contribute(world, kind):
    """What the network says where the truth is unknown changes nothing, and gets no gradient."""
    logits, truth = world
    loss = build(of_kind(kind))
    truth[0, :, :3] = -1
    other = logits.clone()
    other[0, :, :3] += 5
    other.requires_grad_(True)
    value = loss(other, truth)
    torch.testing.assert_close(value, loss(logits, truth))
    value.backward()
    assert (other.grad[0, :, :3] == 0).all()
    assert (other.grad[0, :, 3:] != 0).any()


@pytest.mark.parametrize("kind", sorted(set(REGISTRY) - {"dice_ce"}))
def test_a_label_that_is_never_annotated_does_not_contribute(world, kind):
    logits, truth = world
    only = build(tiny(labels=[{"name": "right_lung", "values": [1]}], loss={"kind": kind}))
    expected = only(logits[:, :1], truth[:, :1])
    truth[:, 1] = -1
    torch.testing.assert_close(build(of_kind(kind))(logits, truth), expected)


def test_the_marginal_loss_by_hand():
    """One voxel, two labels with logits log 2 and log 3: background 1/6, first 2/6, second 3/6."""
    logits = torch.log(torch.tensor([2.0, 3.0])).reshape(1, 2, 1)

    def ce(first: float, second: float) -> float:
        return float(DiceCE(TWO, 0, 1)(logits, torch.tensor([first, second]).reshape(1, 2, 1)))

    assert ce(1, 0) == pytest.approx(-math.log(2 / 6), abs=1e-5)
    assert ce(0, 0) == pytest.approx(-math.log(1 / 6), abs=1e-5)
    assert ce(0, -1) == pytest.approx(-math.log(1 / 6 + 3 / 6), abs=1e-5)  # background or the second
    assert ce(1, -1) == pytest.approx(-math.log(2 / 6), abs=1e-5)
    assert ce(-1, -1) == 0


@pytest.mark.parametrize("kind", sorted(REGISTRY))
def test_a_batch_without_known_voxels_has_no_loss(kind):
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    loss = build(of_kind(kind))(logits, torch.full((1, 2, 4, 4), -1.0))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("true", [0.0, 1.0])
@pytest.mark.parametrize(
    "rules",
    [*({"kind": kind} for kind in sorted(REGISTRY)), *POWERS],
    ids=str,
)
def test_extreme_truths_and_logits_give_finite_losses(rules, true):
    for value in (-200.0, 200.0):
        logits = torch.full((1, 2, 4, 4), value, requires_grad=True)
        truth = torch.zeros(1, 2, 4, 4)
        truth[:, 0] = true
        loss = build(of_kind(**rules))(logits, truth)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("kind", sorted(REGISTRY))
@pytest.mark.parametrize("dims", [2, 3])
def test_every_loss_prefers_the_truth(kind, dims):
    recipe = of_kind(kind, dims)
    loss = build(recipe)
    classes = torch.randint(0, 3, (2, *recipe.patch.size))
    truth = torch.stack([classes == 1, classes == 2], 1).to(torch.uint8)
    right, wrong = (truth.float() - 0.5) * 8, (0.5 - truth.float()) * 8
    assert float(loss(right, truth)) < float(loss(right * 0, truth)) < float(loss(wrong, truth))


def test_class_weights_are_applied_to_labels(world):
    logits, truth = world
    first, second = (DiceBCE(ONE)(logits[:, n : n + 1], truth[:, n : n + 1]) for n in (0, 1))
    weighted = build(of_kind("dice_bce", class_weights={"left_lung": 3}))
    torch.testing.assert_close(weighted(logits, truth), (first + 3 * second) / 4)
    with pytest.raises(UsageError, match="'liver', which is not a label"):
        of_kind("dice_bce", class_weights={"liver": 3})


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"kind": "bce", "class_weights": {"left_lung": 0, "right_lung": 0}}, "0 for every label"),
        ({"kind": "dice_bce", "dice_weight": 0, "bce_weight": 0}, "dice_weight and bce_weight are all 0"),
        ({"kind": "dice_ce", "dice_weight": 0, "ce_weight": 0}, "dice_weight and ce_weight are all 0"),
        ({"kind": "tversky", "false_positives": 0, "false_negatives": 0}, "nothing would be learned"),
    ],
)
def test_losses_that_learn_nothing_are_refused(rules, message):
    with pytest.raises(UsageError, match=message):
        of_kind(**rules)


def test_a_threshold_of_labels_that_exclude_one_another_is_refused():
    with pytest.raises(UsageError, match=r"threshold 0\.3 has no effect"):
        tiny(loss={"kind": "dice_ce"}, predict={"threshold": 0.3})


def test_labels_that_share_values_do_not_exclude_one_another():
    labels = [{"name": "lung", "values": [1, 2]}, {"name": "lesion", "values": [2]}]
    with pytest.raises(UsageError, match="mutually exclusive"):
        tiny(labels=labels, loss={"kind": "dice_ce"})


def test_coarser_outputs_are_compared_with_the_coarser_truth():
    truth = torch.zeros(1, 1, 8, 8)
    truth[..., :4, :] = 1
    fine, coarse = torch.randn(1, 1, 8, 8), torch.randn(1, 1, 4, 4)
    small = torch.zeros(1, 1, 4, 4)
    small[..., :2, :] = 1
    loss = DiceBCE(ONE)
    expected = (2 * loss(fine, truth) + loss(coarse, small)) / 3
    torch.testing.assert_close(Supervised(loss, (1.0, 0.5))((fine, coarse), truth), expected)
    torch.testing.assert_close(Supervised(loss, (1.0, 0.5))(fine, truth), loss(fine, truth))


def test_unknown_voxels_stay_unknown_at_coarser_outputs():
    truth = torch.zeros(1, 1, 8, 8)
    truth[..., 4:, :] = -1
    fine, coarse = torch.randn(1, 1, 8, 8), torch.randn(1, 1, 4, 4, requires_grad=True)
    Supervised(DiceBCE(ONE), (1.0, 0.5))((fine, coarse), truth).backward()
    assert (coarse.grad[..., :2, :] != 0).all()
    assert (coarse.grad[..., 2:, :] == 0).all()


def test_losses_are_computed_in_full_precision_under_autocast(world):
    logits, truth = world
    loss = build(of_kind("dice_ce"))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = loss(logits, truth)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, loss(logits, truth), atol=0, rtol=0)


def test_half_precision_logits_are_computed_in_full_precision(world):
    logits, truth = world
    loss = build(of_kind("dice_bce"))(logits.half(), truth)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(build(of_kind("dice_bce"))(logits, truth)), rel=1e-3)


def test_border_weights_by_hand():
    # Two cells with three voxels between them: in the middle d1 = d2 = 2, beside a cell 1 + 3,
    # on its edge 0 + 4: the sum is 4 in all of them, and 5 in the second voxel of the long cell.
    truth = np.array([[1, 1, 0, 0, 0, 1]], np.float32)
    found = border_weights(truth, border_weight=10, sigma_voxels=5)
    four, five = 10 * math.exp(-16 / 50), 10 * math.exp(-25 / 50)
    assert found == pytest.approx([five, four, four, four, four, four], rel=1e-5)


def test_border_weights_also_lie_between_labels_and_need_two_cells():
    two = np.zeros((2, 7, 7), np.float32)
    two[0, :, :3] = 1
    assert (border_weights(two, border_weight=10, sigma_voxels=5) == 0).all()
    two[1, :, 4:] = 1
    assert border_weights(two, border_weight=10, sigma_voxels=5)[3, 3] == pytest.approx(
        10 * math.exp(-4 / 50)
    )
    loss, logits = BorderBCE(TWO, 10.0, 5.0), torch.zeros(1, 2, 7, 7)
    plain = math.log(2)  # of every voxel; times the mean of 1 + w
    expected = plain * (1 + border_weights(two, border_weight=10, sigma_voxels=5).mean())
    assert float(loss(logits, torch.from_numpy(two)[None])) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shape", [(40, 50), (14, 12, 13)])
def test_border_weights_by_all_distances(shape):
    """Every voxel against every voxel of every cell, with sigma 1.5, beyond whose reach there are voxels."""
    truth = (np.random.default_rng(0).random((2, *shape)) > 0.99).astype(np.float32)
    found = border_weights(truth, border_weight=10, sigma_voxels=1.5)
    painted = np.where(truth[1] == 1, 2, truth[0])
    cells = [c == n + 1 for v in (1, 2) for c, count in [ndimage.label(painted == v)] for n in range(count)]
    assert len(cells) > 10
    everywhere = np.argwhere(np.ones(shape))
    each = np.sort([cdist(everywhere, np.argwhere(cell)).min(1) for cell in cells], axis=0)
    expected = 10 * np.exp(-((each[0] + each[1]) ** 2) / (2 * 1.5**2))
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-4)
    assert found.max() > 1


_TWO_PROCESSES = """
import os, sys, torch
from torch import distributed
from support.worlds import tiny
from medseg.training.losses import build
rank = int(os.environ["RANK"])
distributed.init_process_group("gloo")
labels = [{"name": "right_lung", "values": [1]}, {"name": "left_lung", "values": [2]}]
for kind in sys.argv[1:]:
    loss = build(tiny(labels=labels, loss={"kind": kind}))
    made = torch.Generator().manual_seed(0)
    scale = torch.ones(2, requires_grad=True)
    logits = torch.randn(4, 2, 6, 6, generator=made)
    classes = torch.randint(-1, 3, (4, 6, 6), generator=made)
    truth = torch.stack([classes == 1, classes == 2], 1).float()
    truth[(classes == -1)[:, None].expand_as(truth)] = -1
    truth[3, 1] = -1
    half = slice(2 * rank, 2 * rank + 2)
    value = loss(logits[half] * scale.view(1, 2, 1, 1), truth[half])
    value.backward()
    distributed.all_reduce(scale.grad)
    shared, mean = value.item(), scale.grad / 2
    distributed.barrier()
    whole = torch.ones(2, requires_grad=True)
    from unittest import mock
    with mock.patch("torch.distributed.get_world_size", return_value=1):
        alone = loss(logits * whole.view(1, 2, 1, 1), truth)
    alone.backward()
    assert abs(shared - alone.item()) < 1e-5, (kind, shared, alone.item())
    assert torch.allclose(mean, whole.grad, atol=1e-6), (kind, mean, whole.grad)
print("equal")
"""


@pytest.mark.slow
def test_two_processes_have_the_loss_and_the_gradient_of_one(tmp_path):
    here = environment(
        MASTER_ADDR="127.0.0.1", WORLD_SIZE="2", OMP_NUM_THREADS="1",
        MASTER_PORT=str(20_000 + os.getpid() % 20_000),
    )  # fmt: skip
    started = [
        subprocess.Popen(
            [sys.executable, "-c", _TWO_PROCESSES, *sorted(REGISTRY)],
            env=here | {"RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    for child in started:
        out, errors = child.communicate(timeout=PATIENCE)
        assert child.returncode == 0, errors
        assert "equal" in out


def test_dice_of_each_patch_is_that_of_monai(world):
    """nnU-Net's ``batch_dice: False``; with equal patches it makes no difference."""
    logits, truth = world
    ours = DiceBCE(TWO, bce_weight=0, batch_dice=False)
    theirs = DiceLoss(sigmoid=True, batch=False, smooth_nr=1e-5, smooth_dr=1e-5)
    assert float(ours(logits, truth)) == pytest.approx(float(theirs(logits, truth)), abs=1e-6)
    softmax = DiceLoss(softmax=True, batch=False, include_background=False, smooth_nr=1e-5, smooth_dr=1e-5)
    with_background = [
        torch.cat([torch.zeros_like(logits[:, :1]), logits], 1),
        torch.cat([1 - truth.sum(1, keepdim=True), truth], 1),
    ]
    exclusive = DiceCE(TWO, 1.0, 0.0, batch_dice=False)(logits, truth)
    assert float(exclusive) == pytest.approx(float(softmax(*with_background)), abs=1e-6)
    same = [torch.cat([each[:1]] * 2) for each in world]
    for kind in (DiceBCE, DiceCE):
        whole, each = (kind(TWO, 1.0, 1.0, batch_dice=batch)(*same) for batch in (True, False))
        assert float(whole) == pytest.approx(float(each), abs=1e-5)


def test_an_unknown_label_of_one_patch_does_not_count_in_the_dice_of_each_patch(world):
    logits, truth = world
    half = truth.clone()
    half[1, 0] = -1
    expected = [
        float(DiceBCE(ONE, bce_weight=0)(logits[n : n + 1, k : k + 1], truth[n : n + 1, k : k + 1]))
        for n, k in ((0, 0), (0, 1), (1, 1))
    ]
    loss = DiceBCE(TWO, bce_weight=0, batch_dice=False)
    assert float(loss(logits, half)) == pytest.approx(sum(expected) / 3, abs=1e-6)


@pytest.mark.parametrize("kind", sorted(REGISTRY))
@pytest.mark.parametrize("batch_dice", [True, False])
def test_a_truth_without_unknown_voxels_saves_memory_and_no_bit(world, monkeypatch, kind, batch_dice):
    """Loss and gradient are those of the formulas for unknown voxels."""
    logits, truth = world
    extra = {"batch_dice": batch_dice} if kind in ("dice_ce", "dice_bce") else {}
    loss = build(of_kind(kind, **extra))
    found = []
    for known in (losses._known, lambda truth: ((truth >= 0).float(), truth.clamp_min(0))):
        monkeypatch.setattr(losses, "_known", known)
        start = logits.clone().requires_grad_(True)
        value = loss(start, truth)
        value.backward()
        found.append((value.detach(), start.grad))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


def test_many_labels_are_kept_for_the_gradient_in_few_copies():
    """Softmax, its logarithm and the truth: three copies of all channels, not one for each step."""
    labels = 20
    classes = torch.randint(0, labels + 1, (1, 1, 8, 8, 8), generator=torch.Generator().manual_seed(0))
    table = torch.cat([torch.zeros(1, labels), torch.eye(labels)])[None].to(torch.int8)
    logits = torch.zeros(1, labels, 8, 8, 8, requires_grad=True)
    storages = {}

    def kept(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(kept, lambda tensor: tensor):
        Supervised(DiceCE([1.0] * labels, 1.0, 1.0), [1.0])(logits, classes, table)
    one = logits.untyped_storage().nbytes()
    assert sum(storages.values()) < 3.3 * one
