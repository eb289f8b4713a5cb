from __future__ import annotations

import pytest
import torch
from support.worlds import phantoms, tiny

from medseg.errors import InputWarning
from medseg.networks.unet import UNet
from medseg.training import lightning_module, missed_labels
from medseg.training.missed_labels import EpochLabels
from medseg.training.trainer import Hardware, train

# Four voxels of two cases with the classes 0 to 2: background, the first label, and both or a hidden one.
CLASSES = torch.tensor([[0, 1, 0, 0], [0, 0, 0, 2]], dtype=torch.uint8)[:, None]
TABLE = torch.tensor([[[0, 0], [1, 0], [1, 1]], [[0, 0], [1, 0], [1, -1]]], dtype=torch.int8)


def seen(recipe, *logits) -> tuple[list[int], list[bool]]:
    labels = EpochLabels(recipe)
    for each in logits:
        labels.add(torch.tensor(each), CLASSES[: len(each)], TABLE[: len(each)])
    return labels.patches.tolist(), labels.found.tolist()


def test_overlapping_labels_by_hand():
    """The second label is hidden where it may be, so it is not present; 0 is a probability of one half."""
    recipe = tiny()
    low, high = [[-1.0, -2.0, -0.1, -3.0]] * 2, [[-1.0, 0.0, -2.0, -3.0], [-0.01] * 4]
    assert seen(recipe, [low, low]) == ([2, 0], [False, False])
    assert seen(recipe, [low, high], [low]) == ([3, 0], [True, False])


def test_exclusive_labels_by_hand():
    """The largest logit decides, that of the background is 0: the second label is never the largest."""
    recipe = tiny(loss={"kind": "dice_ce"})
    logits = [[[-1.0, 2.0, 0.0, -3.0], [-2.0, 1.5, -0.1, -4.0]]]
    assert seen(recipe, logits) == ([1, 0], [True, False])
    assert seen(recipe, [[[-1.0, 0.0, -1.0, -1.0]] * 2]) == ([1, 0], [False, False])


def test_labels_are_missed_by_all_processes_or_not_at_all():
    one = torch.tensor([4, 10, 20, 1]), torch.tensor([False, True, False, False])
    other = torch.tensor([6, 10, 20, 1]), torch.tensor([False, False, False, False])
    assert EpochLabels(tiny()).missed([one, other]) == [True, False, True, False]
    assert EpochLabels(tiny()).missed([one]) == [False, False, True, False]  # 4 and 1 patches say little


@pytest.fixture
def buried(monkeypatch):
    """Networks whose first label starts at a bias that no short training can lift; few steps are enough."""
    begin = UNet.__init__

    def built(network, *args, **more):
        begin(network, *args, **more)
        torch.nn.init.constant_(network.head.bias[0], -40.0)

    monkeypatch.setattr(UNet, "__init__", built)
    monkeypatch.setattr(missed_labels, "FEWEST_PATCHES", 1)
    return tiny(train={"epochs": 1, "steps_per_epoch": 2})


@pytest.mark.filterwarnings("ignore:.*no case has split val:medseg.errors.InputWarning")
def test_a_training_that_finds_nothing_of_a_label_says_so(tmp_path, monkeypatch, buried):
    """Without validation cases, too; and not after a few steps."""
    cases = phantoms(tmp_path, "train")
    train(buried, cases, tmp_path / "short", hardware=Hardware(workers=0))
    monkeypatch.setattr(lightning_module, "FEWEST_STEPS", 2)
    with pytest.warns(InputWarning, match="after 2 steps the network finds nothing of right_lung"):
        train(buried, cases, tmp_path / "run", hardware=Hardware(workers=0))


def test_a_label_that_validation_finds_is_not_missed(tmp_path, monkeypatch, buried):
    monkeypatch.setattr(lightning_module, "FEWEST_STEPS", 2)
    monkeypatch.setattr(
        lightning_module.SegmentationModule,
        "segment",
        lambda module, image, seen=None: torch.ones((2, *image.shape[1:]), dtype=torch.bool),
    )
    train(buried, phantoms(tmp_path, "train", "val"), tmp_path / "run", hardware=Hardware(workers=0))
