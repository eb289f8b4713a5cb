"""Findings about boxes as lobes, whose shares can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask
from medseg.inference.lobe_checks import lobe_findings, lobe_of

NAMES = (
    "lung_upper_lobe_left",
    "lung_lower_lobe_left",
    "lung_upper_lobe_right",
    "lung_middle_lobe_right",
    "lung_lower_lobe_right",
)


def lobes():
    """Lungs of 10 x 10 x 24 voxels: left 12 and 12 slices, right 8, 4 and 12. A voxel has 0.125 ml."""
    array = np.zeros((40, 20, 40), dtype=np.uint8)
    left, right = array[5:15, 5:15, 8:32], array[25:35, 5:15, 8:32]
    left[..., 12:], left[..., :12] = 1, 2
    right[..., 16:], right[..., 12:16], right[..., :12] = 3, 4, 5
    return array


def reasons(array, names=NAMES):
    labels = tuple(Label(name=name, values=(value,)) for value, name in enumerate(names, 1))
    grid = Grid(array.shape, np.diag([5.0, 5.0, 5.0, 1.0]))
    return [(each.reason, each.text) for each in lobe_findings(Mask(array, grid, labels))]


def test_usual_shares_are_not_odd():
    assert reasons(lobes()) == []


def test_a_missing_lobe_is_reported():
    array = lobes()
    array[array == 4] = 5  # 16 of 24 slices: 67 %, within the limits of a lower lobe
    assert reasons(array) == [("lobe-missing", "the right middle lobe was not found")]


def test_an_unusual_share_of_a_lung_is_reported():
    array = lobes()
    array[5:15, 5:15, 12:20] = 1  # 20 and 4 of 24 slices
    assert reasons(array) == [
        ("lobe-share", "the left upper lobe has 83 % of its lung, not 25 to 75 %"),
        ("lobe-share", "the left lower lobe has 17 % of its lung, not 25 to 75 %"),
    ]


def test_a_lobe_in_several_parts_is_reported():
    array = lobes()
    array[5:15, 5:15, 8:10] = 1  # 10 x 10 x 2 voxels of 0.125 ml, below the lower lobe
    array[25, 5, 8] = 3  # a single voxel is not
    assert reasons(array) == [("lobe-parts", "the left upper lobe is in 2 parts: 25 ml lie apart")]


def test_sizes_of_a_lung_that_the_scan_cuts_are_not_judged():
    array = lobes()[:, :, 10:28]  # of the right upper lobe 4 slices are left, of the lower one 10
    array[array == 4] = 0
    assert reasons(array) == []


def test_a_choice_of_labels_is_no_finding():
    array = lobes()
    array[array == 4] = 0
    names = [name if "middle" not in name else "heart" for name in NAMES]
    assert reasons(array, names) == []


@pytest.mark.parametrize(
    ("name", "lobe"),
    [
        ("left_upper_lobe", ("left", "upper")),
        ("Right Middle Lobe", ("right", "middle")),
        ("lung_lower_lobe_right", ("right", "lower")),
        ("left_middle_lobe", None),
        ("lung_nodule_upper_left", None),
        ("upper_lobe", None),
        ("left_lung", None),
    ],
)
def test_lobes_are_recognised_by_their_names(name, lobe):
    assert lobe_of(Label(name=name, values=(1,))) == lobe


def test_an_empty_mask_has_no_finding():
    assert reasons(np.zeros((5, 5, 5), dtype=np.uint8)) == []
