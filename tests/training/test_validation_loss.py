from __future__ import annotations

import math

import pytest
import torch
from support.worlds import tiny
from torch import distributed

from medseg.inference.sliding_window import logits
from medseg.training import losses
from medseg.training.deep_supervision import label_channels
from medseg.training.lightning_module import SegmentationModule
from medseg.training.validation_loss import ValidationPatch, labelled_voxel


def scan(shape=(20, 30, 18), labelled=(slice(12, 20), slice(3, 9), slice(10, 16)), row=(0, 0)):
    """Noise with a block of class 1; ``row`` is what the table says about all other voxels."""
    label = torch.zeros(shape, dtype=torch.uint8)
    label[labelled] = 1
    return {
        "image": torch.rand((1, *shape), generator=torch.Generator().manual_seed(0)),
        "label": label,
        "table": torch.tensor([row, (1, 0)], dtype=torch.int8),
        "case": "a",
        "spacing_mm": (1.0, 1.0, 1.0),
    }


def test_the_middle_of_two_blocks_lies_in_one_of_them():
    inside = torch.zeros((10, 10, 10), dtype=torch.bool)
    inside[0:2, 0:3, 0] = inside[7:10, 5:10, 9] = True
    # 6 voxels in x 0..1 and 5 each in x 7, 8 and 9: half of 21 is reached at x = 7, there at y = 7.
    assert labelled_voxel(inside) == (7, 7, 9)
    assert labelled_voxel(~inside & inside) == (5, 5, 5)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_loss_is_the_recipes_of_a_labelled_patch(dims):
    recipe = tiny(dims, patch={"size": [16, 16, 8][:dims]}, train={"batch_size": 4})
    module, case = SegmentationModule(recipe, "").eval(), scan()
    # Block x 12..19, y 3..8, z 10..15: its middle voxel is (15, 5, 12). The patch of 16, 16 and 8 (in 2D 4)
    # voxels around it is moved into the scan at the ends of x and of y.
    z = slice(10, 14) if dims == 2 else slice(8, 16)
    box = (slice(4, 20), slice(0, 16), z)
    patch = ValidationPatch(case, recipe)
    with torch.no_grad():
        module.segment(case["image"], patch.take)
        whole = logits(case["image"], module.network, labels=2, patch=recipe.patch, predict=recipe.predict)
        out, truth = whole[None, :, *box], case["label"][box][None, None]
        channels = label_channels(truth, case["table"][None])
        if dims == 2:
            out, channels = (each[0].permute(3, 0, 1, 2) for each in (out, channels))
        assert patch.loss(module.loss) == pytest.approx(float(module.loss(out, channels)), rel=1e-6)


def test_a_patch_larger_than_the_scan_is_the_scan():
    recipe = tiny(patch={"size": [64, 64, 64]})
    patch, case = ValidationPatch(scan(), recipe), scan()
    patch.take(0, torch.zeros((2, *case["label"].shape)))
    assert math.isfinite(patch.loss(SegmentationModule(recipe, "").loss))


def test_a_patch_of_unknown_truth_has_no_loss():
    recipe = tiny(patch={"size": [16, 16, 8]})
    nothing = scan(labelled=(slice(0, 0),) * 3, row=(-1, -1))
    assert math.isnan(ValidationPatch(nothing, recipe).loss(SegmentationModule(recipe, "").loss))


def test_processes_do_not_wait_for_each_other_in_a_validation(monkeypatch):
    # With three scans and two processes, the second would never come to the last sum of the first.
    for name, value in (("is_initialized", True), ("get_world_size", 2)):
        monkeypatch.setattr(distributed, name, lambda value=value: value)

    def all_reduce(_):
        raise AssertionError("waits for other processes")

    monkeypatch.setattr(losses, "all_reduce", all_reduce)
    recipe = tiny(patch={"size": [16, 16, 8]})
    module = SegmentationModule(recipe, "").eval()
    with torch.inference_mode():
        assert math.isfinite(ValidationPatch(scan(), recipe).loss(module.loss))
    with pytest.raises(AssertionError, match="waits"):
        ValidationPatch(scan(), recipe).loss(module.loss)
