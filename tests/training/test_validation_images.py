from __future__ import annotations

import numpy as np

from medseg.preprocessing.label_classes import LabelClasses
from medseg.training import validation_images
from medseg.training.validation_images import BOTH, PREDICTION, TRUTH


def snapshot(image, truth, found, spacing_mm):
    return validation_images.snapshot(image, LabelClasses.from_channels(truth), found, spacing_mm)


def world() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """20 x 30 x 4 voxels; slice 2 has most truth: a block on the patient's right and front."""
    image = np.zeros((20, 30, 4), np.float32)
    truth = np.zeros((1, 20, 30, 4), bool)
    truth[0, 14:18, 20:28, 2] = True  # RAS: x grows to the patient's right, y to the front
    return image, truth, np.zeros_like(truth)


def where(picture: np.ndarray, colour: tuple[int, int, int]) -> tuple[float, float]:
    """Mean row and column of a colour, as shares of the picture."""
    rows, columns = np.nonzero((picture == colour).all(-1))
    return rows.mean() / picture.shape[0], columns.mean() / picture.shape[1]


def test_right_is_on_the_left_and_front_on_top():
    image, truth, found = world()
    row, column = where(snapshot(image, truth, found, (1.0, 1.0, 3.0)), TRUTH)
    # x runs to the patient's right in RAS; centre of the block 15.5 of 19, from the right 3.5 of 19.
    assert abs(column - 4.0 / 20) < 0.03
    assert abs(row - 6.0 / 30) < 0.03


def test_pixels_are_square():
    image, truth, found = world()
    picture = snapshot(image, truth, found, (2.0, 1.0, 3.0))
    # 20 voxels of 2 mm by 30 of 1 mm.
    assert abs(picture.shape[1] / picture.shape[0] - 40 / 30) < 0.02
    assert max(picture.shape[:2]) >= 256
    assert picture.dtype == np.uint8


def test_truth_prediction_and_overlap_have_different_colours():
    image, truth, found = world()
    found |= truth
    only = snapshot(image, truth, found, (1.0, 1.0, 1.0))
    assert (only == BOTH).all(-1).any()
    assert not (only == TRUTH).all(-1).any()
    shifted = np.roll(truth, -8, axis=1)
    both = snapshot(image, truth, shifted, (1.0, 1.0, 1.0))
    assert where(both, PREDICTION)[1] > where(both, TRUTH)[1]


def test_without_truth_it_shows_the_prediction_or_the_middle():
    image, truth, _ = world()
    image[..., 2] = 0.5
    image[0, 0] = 1
    nothing = np.zeros_like(truth)
    assert (snapshot(image, nothing, truth, (1.0, 1.0, 1.0)) == PREDICTION).all(-1).any()
    assert snapshot(image, nothing, nothing, (1.0, 1.0, 1.0)).mean() > 100  # slice 4 // 2


def test_a_constant_image_is_drawn():
    image, truth, found = world()
    assert snapshot(image + 7, truth, found, (1.0, 1.0, 1.0)).shape[2] == 3
