from __future__ import annotations

import pytest
import torch
from support.worlds import phantoms, tiny

from medseg.errors import InputWarning
from medseg.networks.unet import UNet
from medseg.training import lightning_module
from medseg.training.missed_labels import EpochLabels
from medseg.training.trainer import Hardware, train

# Four voxels of two cases with the classes 0 to 2: background, the first label, and both or a hidden one.
CLASSES = torch.tensor([[0, 1, 0, 0], [0, 0, 0, 2]], dtype=torch.uint8)[:, None]
TABLE = torch.tensor([[[0, 0], [1, 0], [1, 1]], [[0, 0], [1, 0], [1, -1]]], dtype=torch.int8)


def seen(recipe, *logits) -> tuple[list[bool], list[bool]]:
    labels = EpochLabels(recipe)
    for each in logits:
        labels.add(torch.tensor(each), CLASSES[: len(each)], TABLE[: len(each)])
    return labels.present.tolist(), labels.found.tolist()


def test_overlapping_labels_by_hand():
    """The second label is hidden where it may be, so it is not present; 0 is a probability of one half."""
    recipe = tiny()
    low, high = [[-1.0, -2.0, -0.1, -3.0]] * 2, [[-1.0, 0.0, -2.0, -3.0], [-0.01] * 4]
    assert seen(recipe, [low, low]) == ([True, False], [False, False])
    assert seen(recipe, [low, high], [low]) == ([True, False], [True, False])


def test_exclusive_labels_by_hand():
    """The largest logit decides, that of the background is 0: the second label is never the largest."""
    recipe = tiny(loss={"kind": "dice_ce"})
    logits = [[[-1.0, 2.0, 0.0, -3.0], [-2.0, 1.5, -0.1, -4.0]]]
    assert seen(recipe, logits) == ([True, False], [True, False])
    assert seen(recipe, [[[-1.0, 0.0, -1.0, -1.0]] * 2]) == ([True, False], [False, False])


@pytest.mark.filterwarnings("ignore:.*no case has split val:medseg.errors.InputWarning")
def test_a_training_that_finds_nothing_of_a_label_says_so(tmp_path, monkeypatch):
    """Without validation cases, too; and not after a few steps."""
    begin = UNet.__init__

    def buried(network, *args, **more):  # a bias that no short training can lift
        begin(network, *args, **more)
        torch.nn.init.constant_(network.head.bias[0], -40.0)

    monkeypatch.setattr(UNet, "__init__", buried)
    cases, few = phantoms(tmp_path, "train"), {"epochs": 1, "steps_per_epoch": 2}
    train(tiny(train=few), cases, tmp_path / "short", hardware=Hardware(workers=0))
    monkeypatch.setattr(lightning_module, "FEWEST_STEPS", 2)
    with pytest.warns(InputWarning, match="after 2 steps the network finds nothing of right_lung"):
        train(tiny(train=few), cases, tmp_path / "run", hardware=Hardware(workers=0))
