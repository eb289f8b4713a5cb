"""The choice of cleaning steps, on masks whose Dice can be computed on paper."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.cross_validation.postprocessing_choice import MaskPair, choose_postprocessing
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask

GRID = Grid.from_spacing((12, 8, 6), (1.0, 2.0, 5.0))  # a voxel has 0.01 ml
A, B = Label(name="a", values=(1,)), Label(name="b", values=(2,))


def pair(prediction: np.ndarray, truth: np.ndarray, known: tuple[str, ...] | None = None) -> MaskPair:
    return Mask(prediction, GRID, (A, B)), Mask(truth, GRID, (A, B)), known


def arrays() -> tuple[np.ndarray, np.ndarray]:
    """Two label maps with the same block of each label, 18 voxels of a and 8 of b, not touching."""
    array = np.zeros(GRID.shape, dtype=np.uint8)
    array[0:3, 0:3, 0:2], array[6:8, 0:2, 0:2] = 1, 2
    return array, array.copy()


def test_a_step_is_chosen_for_the_label_that_it_helps() -> None:
    prediction, truth = arrays()
    prediction[10:12, 6:8, 3] = 1  # 4 false voxels: Dice 2 x 18 / (22 + 18) = 0.9
    truth[10:12, 6:8, 5] = prediction[10:12, 6:8, 5] = 2  # b has two true components
    choice = choose_postprocessing(lambda: [pair(prediction, truth)], (A, B))
    assert [str(step) for step in choice.steps] == ["a: keep_components 1"]
    assert choice.before == pytest.approx({"a": 0.9, "b": 1.0})
    assert choice.after == pytest.approx({"a": 1.0, "b": 1.0})


def test_all_labels_together_come_first() -> None:
    prediction, truth = arrays()
    for array in (prediction, truth):
        array[3:6, 0:2, 0:2] = 1  # a (30 voxels) and b touch
    prediction[10, 6, 3], prediction[11, 7, 3] = 1, 2
    choice = choose_postprocessing(lambda: [pair(prediction, truth)], (A, B))
    assert [str(step) for step in choice.steps] == ["a + b: keep_components 1"]
    assert choice.after == {"a": 1.0, "b": 1.0}
    assert choice.before == pytest.approx({"a": 60 / 61, "b": 16 / 17})


def test_small_components_go_where_a_label_may_have_several() -> None:
    prediction, truth = arrays()
    for array in (prediction, truth):
        array[9:12, 0:3, 0:2] = 1  # as large as the first
    prediction[0, 7, 5] = 1
    choice = choose_postprocessing(lambda: [pair(prediction, truth)], (A,))
    # Of equal components all are kept, so that keep_components 1 is as good, and comes first.
    assert [str(step) for step in choice.steps] == ["a: keep_components 1"]
    for array in (prediction, truth):
        array[9, 0, 0] = 0
    choice = choose_postprocessing(lambda: [pair(prediction, truth)], (A,))
    assert [str(step) for step in choice.steps] == ["a: min_share 0.1"]


def test_holes_are_filled_before_components_are_measured() -> None:
    prediction, truth = (np.zeros(GRID.shape, dtype=np.uint8) for _ in range(2))
    truth[1:6, 1:6, 1:6] = prediction[1:6, 1:6, 1:6] = 1
    prediction[3, 3, 3], prediction[10, 7, 5] = 0, 1
    choice = choose_postprocessing(lambda: [pair(prediction, truth)], (A,))
    assert [str(step) for step in choice.steps] == ["a: fill_holes", "a: keep_components 1"]
    assert choice.after == {"a": 1.0}


def test_nothing_is_chosen_where_nothing_helps() -> None:
    prediction, truth = arrays()
    choice = choose_postprocessing(lambda: [pair(prediction, truth)], (A, B))
    assert choice.steps == ()
    assert choice.before == choice.after == {"a": 1.0, "b": 1.0}


def test_labels_that_a_truth_does_not_have_do_not_count() -> None:
    prediction, truth = arrays()
    prediction[10:12, 6:8, 3] = 1
    assert choose_postprocessing(lambda: [pair(prediction, truth, ("b",))], (A, B)).steps == ()


def test_unknown_voxels_do_not_count() -> None:
    prediction, truth = arrays()
    prediction[10:12, 6:8, 3] = 1
    truth[10:12, 6:8, 3] = 9
    assert choose_postprocessing(lambda: [pair(prediction, truth)], (A, B), 9).steps == ()


def test_a_mean_over_cases_decides() -> None:
    # The same step helps in one case by 0.1, and costs 1 - 2 x 18 / (18 + 36) = 1/3 in another.
    prediction, truth = arrays()
    prediction[10:12, 6:8, 3] = 1
    two, both = arrays()
    for array in (two, both):
        array[9:12, 5:8, 0:2] = 1
        array[9, 5, 0] = 0
    pairs = [pair(prediction, truth), pair(two, both)]
    choice = choose_postprocessing(lambda: pairs, (A,))
    # Instead of it: 0.08 ml, half of the smallest true component (17 voxels), and 4 voxels are less.
    assert [str(step) for step in choice.steps] == ["a: min_volume_ml 0.085"]
    assert choice.after == {"a": 1.0}
