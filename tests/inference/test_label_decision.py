from __future__ import annotations

import numpy as np
import pytest
import torch
from support.worlds import tiny

from medseg.inference.label_decision import LabelDecision, empty_label_map, with_background


def test_overlapping_labels_by_hand():
    # Probabilities .5 .75 and .2 .75.
    out = torch.log(torch.tensor([[1.0, 3.0], [0.25, 3.0]]))
    half, high = LabelDecision((1, 2), 0.5), LabelDecision((1, 2), 0.6)
    torch.testing.assert_close(half.probabilities(out), torch.tensor([[0.5, 0.75], [0.2, 0.75]]))
    assert half.masks(out).tolist() == [[True, True], [False, True]]
    assert high.masks(out).tolist() == [[False, True], [False, True]]


@pytest.mark.parametrize("threshold", [0.5, None])
def test_arrays_and_tensors_are_decided_alike(threshold):
    out = 30 * torch.randn(3, 9, 8, generator=torch.Generator().manual_seed(0))
    out[0, 0, :2] = torch.tensor([-200.0, 200.0])  # e to the power of 200 is not a float32
    decision = LabelDecision((1, 2, 3), threshold)
    expected = torch.sigmoid(out) if threshold else torch.softmax(with_background(out), 0)[1:]
    torch.testing.assert_close(decision.probabilities(out), expected, atol=1e-6, rtol=1e-5)
    np.testing.assert_allclose(decision.probabilities(out.numpy()), expected, atol=1e-6, rtol=1e-5)
    np.testing.assert_array_equal(decision.masks(out.numpy()), decision.masks(out).numpy())


def test_exclusive_labels_by_hand():
    # Background : first : second, in three voxels, as 1:2:1, 4:3:1 and 1:2:5.
    out = torch.log(torch.tensor([[2.0, 3 / 4, 2.0], [1.0, 1 / 4, 5.0]]))
    decision = LabelDecision((1, 2))
    expected = torch.tensor([[2 / 4, 3 / 8, 2 / 8], [1 / 4, 1 / 8, 5 / 8]])
    torch.testing.assert_close(decision.probabilities(out), expected)
    assert decision.masks(out).tolist() == [[True, False, False], [False, False, True]]


def test_on_a_tie_the_background_wins_and_then_the_first_label():
    # Voxels: all three equal; the labels equal and above the background; the second alone above it.
    out = torch.tensor([[0.0, 1.0, -1.0], [0.0, 1.0, 1.0]])
    decision = LabelDecision((1, 2))
    assert decision.masks(out).tolist() == [[False, True, False], [False, False, True]]
    # The same three cases as probabilities that are exact in binary.
    likely = torch.tensor([[0.25, 0.375, 0.125], [0.25, 0.375, 0.625]])
    found = decision.most_probable(
        np.full(3, 0.25, np.float32), [1.0, 1.0], lambda number: likely[number].numpy()
    )
    assert found.tolist() == [0, 1, 2]


def test_deciding_one_label_at_a_time_equals_deciding_all_at_once():
    out = 3 * torch.randn(7, 5, 6, 4, generator=torch.Generator().manual_seed(3))
    out[5] -= 20  # never wins, so it is never asked for
    decision, asked = LabelDecision(tuple(range(1, 8))), []
    likely = decision.probabilities(out.numpy()).astype(np.float64)

    def label(number: int) -> np.ndarray:
        asked.append(number)
        return likely[number]

    found = decision.most_probable(1 - likely.sum(0), likely.max((1, 2, 3)).tolist(), label)
    masks = decision.masks(out).numpy()
    for number, mask in enumerate(masks, start=1):
        np.testing.assert_array_equal(found == number, mask)
    assert 5 not in asked


def test_the_rule_follows_the_recipes_loss_and_threshold():
    assert LabelDecision.from_recipe(tiny(predict={"threshold": 0.6})) == LabelDecision((1, 2), 0.6)
    exclusive = LabelDecision.from_recipe(tiny(loss={"kind": "dice_ce"}))
    assert exclusive == LabelDecision((1, 2), None)
    assert exclusive.exclusive


def test_the_background_is_a_channel_of_zeros_before_the_labels():
    out = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])  # (N, L, X)
    assert with_background(out, 1).tolist() == [[[0, 0], [1, 2], [3, 4]]]
    assert with_background(out[0]).tolist() == [[0, 0], [1, 2], [3, 4]]


@pytest.mark.parametrize(("values", "dtype"), [((1, 255), np.uint8), ((256, 1), np.uint16)])
def test_a_label_map_takes_the_smallest_type(values, dtype):
    empty = empty_label_map((2, 3, 4), values)
    assert empty.dtype == dtype
    assert empty.shape == (2, 3, 4)
    assert not empty.any()
