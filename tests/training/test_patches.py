"""How patches are chosen and cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.worlds import tiny

from medseg.images.grid import Grid
from medseg.preprocessing.label_classes import LabelClasses
from medseg.preprocessing.preparation import Prepared
from medseg.training.patches import Patches, box, window

SHAPE = (40, 36, 32)


class Ramp:
    """A case whose intensity is the sum of its voxel coordinates, with a small label."""

    def __init__(self, name: str = "case") -> None:
        self.id, self.shape, self.present_labels = name, SHAPE, (0,)
        self._image = np.add.outer(np.add.outer(*map(np.arange, SHAPE[:2])), np.arange(SHAPE[2]))

    def load(self) -> Prepared:
        return Prepared(self._image[None].astype(np.float32), Grid(SHAPE, np.eye(4)), self.labels())

    def labels(self) -> LabelClasses:
        classes = np.zeros(SHAPE, np.uint8)
        classes[20, 18, 16] = 1
        return LabelClasses(classes, LabelClasses.basic_table(2))

    def minimum(self) -> torch.Tensor:
        return torch.zeros(1)

    def foreground(self, label: int) -> np.ndarray:
        return np.array([[20, 18, 16]], np.int32)


def test_the_last_third_of_a_batch_is_centred_on_a_label():
    # 6 patches, a third: round(6 * (1 - 0.33)) = 4, so that patches 4 and 5 of each batch are.
    recipe = tiny(train={"batch_size": 6, "foreground_fraction": 0.33, "forced_foreground": True})
    patches = Patches([Ramp()], recipe, augmented=False)
    size = recipe.patch.size
    middle = tuple(n // 2 for n in size)
    hits = np.array([int(patches[epoch, n]["label"][0][middle]) for epoch in range(3) for n in range(12)])
    hits = hits.reshape(-1, 6)
    assert (hits[:, 4:] == 1).all()
    assert hits[:, :4].mean() < 0.5


def test_cases_of_a_forced_batch_are_drawn_at_random():
    recipe = tiny(train={"batch_size": 2, "foreground_fraction": 0.33, "forced_foreground": True})
    patches = Patches([Ramp("a"), Ramp("b")], recipe, augmented=False)
    drawn = [patches[0, n]["case"] for n in range(20)]
    assert {drawn[0::2].count("a") % 10, drawn[1::2].count("a") % 10} != {0}


@pytest.mark.parametrize("augmentation", ["nnunet", {"larger_cut": True, "rotate_degrees": 40, "scale": 0.3}])
def test_no_voxel_of_a_moved_patch_is_a_repeated_edge(augmentation):
    """A rotated ramp is still a ramp; repeated edges would bend it."""
    recipe = tiny(
        augment=augmentation,
        patch={"size": [8, 8, 8]},
        train={"batch_size": 1, "foreground_fraction": 1.0},
    )
    patches = Patches([Ramp()], recipe, augmented=False)
    moved = 0
    for number in range(30):
        image = patches[0, number]["image"][0].double().numpy()
        slopes = [np.diff(image, axis=axis) for axis in range(3)]
        for each in slopes:
            np.testing.assert_allclose(each, each.mean(), atol=1e-4)
        moved += not np.allclose([each.mean() for each in slopes], 1)
    assert moved > 5


def test_a_box_beyond_the_array_has_the_value_for_outside():
    values = torch.arange(4.0)[None]
    fill = torch.tensor([9.0])
    assert box(values, np.array([-1]), [3], fill=fill).tolist() == [[9, 0, 1]]
    assert box(values, np.array([3]), [3], fill=fill).tolist() == [[3, 9, 9]]
    assert box(values, np.array([7]), [2], fill=fill).tolist() == [[9, 9]]
    assert box(values, np.array([-5]), [2], fill=fill).tolist() == [[9, 9]]


def test_a_window_lies_inside_or_is_padded_on_both_sides():
    values = torch.arange(4.0)[None]
    fill = torch.tensor([9.0])
    assert window(values, np.array([0]), [2], fill=fill).tolist() == [[0, 1]]
    assert window(values, np.array([3]), [2], fill=fill).tolist() == [[2, 3]]
    assert window(values, np.array([1]), [7], fill=fill).tolist() == [[9, 0, 1, 2, 3, 9, 9]]


def test_variants_differ_in_augmentation_only():
    recipe = tiny(augment="nnunet", train={"batch_size": 1, "foreground_fraction": 1.0})
    patches = Patches([Ramp()], recipe)
    plain = patches.variant((0, 0), None)["image"]
    assert torch.equal(plain, patches.variant((0, 0), None)["image"])
    images = [patches.variant((0, 0), seed)["image"] for seed in range(8)]
    assert any(not torch.equal(each, plain) for each in images)
    assert all(torch.equal(each, patches.variant((0, 0), n)["image"]) for n, each in enumerate(images))
