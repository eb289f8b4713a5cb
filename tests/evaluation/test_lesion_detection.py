from __future__ import annotations

import math

import numpy as np

from medseg.evaluation.lesion_detection import Lesions, lesions


def test_counts_by_hand():
    truth, found = np.zeros((12, 12, 3), bool), np.zeros((12, 12, 3), bool)
    truth[1:3, 1:3, 1] = True  # found by one voxel
    truth[6:8, 1:3, 1] = True  # missed
    truth[1:3, 6:8, 1] = truth[3, 8, 1] = True  # one lesion: it touches by a corner
    found[2:5, 2, 1] = True
    found[2, 7, 1] = True
    found[10, 10, 1] = found[8, 9, 2] = True  # two false ones
    assert lesions(found, truth) == Lesions(true=3, found=2, false=2)
    assert lesions(found, truth).sensitivity == 2 / 3
    assert lesions(found, truth).precision == 2 / 4
    # 2 found / (2 found + missed + false) = 4 / (4 + 1 + 2).
    assert lesions(found, truth).f1 == 4 / 7


def test_one_predicted_lesion_can_match_two_true_ones():
    truth, found = np.zeros((9, 3, 3), bool), np.zeros((9, 3, 3), bool)
    truth[1, 1, 1] = truth[7, 1, 1] = True
    found[1:8, 1, 1] = True
    assert lesions(found, truth) == Lesions(true=2, found=2, false=0)
    assert lesions(truth, found) == Lesions(true=1, found=1, false=0)


def test_two_empty_masks_are_undefined_and_one_empty_mask_scores_zero():
    nothing = np.zeros((3, 3, 3), bool)
    one = nothing.copy()
    one[1, 1, 1] = True
    assert math.isnan(lesions(nothing, nothing).f1)
    assert math.isnan(lesions(one, nothing).sensitivity)
    assert math.isnan(lesions(nothing, one).precision)
    assert lesions(nothing, one).sensitivity == lesions(one, nothing).precision == 0
    assert lesions(one, nothing) == Lesions(true=0, found=0, false=1)
    assert lesions(one, nothing).f1 == 0
    assert lesions(nothing, one) == Lesions(true=1, found=0, false=0)
