"""Metrics against masks counted by hand and against SimpleITK."""

from __future__ import annotations

import math
from itertools import permutations, product

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk

from medseg.errors import InputRefused, InputWarning, UsageError
from medseg.evaluation.lesion_detection import lesions
from medseg.evaluation.metrics import dice, iou
from medseg.evaluation.scoring import score
from medseg.evaluation.surface_distance import surface_distances
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask

LABELS = (Label(name="organ", values=(1, 2)), Label(name="lesion", values=(2,)))
GRID = Grid.from_spacing((4, 3, 2), (1.0, 2.0, 2.5), origin_mm=(7, -3, 11))  # a voxel has 0.005 ml


def mask_of(array: npt.NDArray[np.uint8], grid: Grid = GRID, labels: tuple[Label, ...] = LABELS) -> Mask:
    return Mask(array, grid, labels)


def lines(*first: int) -> npt.NDArray[np.uint8]:
    """A label map that is 0 except in the first voxels along the first axis."""
    array = np.zeros(GRID.shape, dtype=np.uint8)
    array[: len(first), 1, 1] = first
    return array


def test_overlap_by_hand() -> None:
    prediction, truth = np.array([1, 1, 1, 0, 0], bool), np.array([0, 1, 1, 1, 1], bool)
    assert dice(prediction, truth) == 4 / 7  # 2 * 2 / (3 + 4)
    assert iou(prediction, truth) == 2 / 5  # 2 of 5 in either


def test_empty_masks_follow_the_documented_policy() -> None:
    none, some = np.zeros(3, dtype=bool), np.array([0, 1, 0], dtype=bool)
    assert math.isnan(dice(none, none))
    assert math.isnan(iou(none, none))
    assert dice(some, none) == dice(none, some) == iou(some, none) == iou(none, some) == 0.0
    assert dice(some, some) == iou(some, some) == 1.0


@pytest.mark.parametrize("seed", range(4))
def test_random_masks_agree_with_simpleitk(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, two = (rng.random((9, 8, 7)) < p for p in (0.3, 0.6))
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*(sitk.GetImageFromArray(m.astype(np.uint8)) for m in (one, two)))
    assert dice(one, two) == pytest.approx(overlap.GetDiceCoefficient(1), abs=1e-12)
    assert iou(one, two) == pytest.approx(overlap.GetJaccardCoefficient(1), abs=1e-12)


def test_scores_have_volumes_in_ml() -> None:
    # organ: 3 of 4 true voxels found; lesion: 1 found, which is one of the 2 true ones.
    organ, lesion = score(mask_of(lines(1, 1, 2)), mask_of(lines(1, 1, 2, 2)))
    assert (organ.label, organ.dice, organ.iou) == ("organ", 6 / 7, 3 / 4)
    assert organ.volume_ml == pytest.approx(0.015)
    assert organ.truth_ml == pytest.approx(0.020)
    assert organ.volume_error_ml == pytest.approx(-0.005)
    assert organ.volume_error_percent == pytest.approx(-25.0)
    assert (lesion.label, lesion.dice, lesion.iou) == ("lesion", 2 / 3, 1 / 2)


def test_an_absent_structure_has_no_percentage() -> None:
    _, lesion = score(mask_of(lines(1, 2)), mask_of(lines(1, 1)))
    assert lesion.dice == 0.0
    assert lesion.volume_error_ml == pytest.approx(0.005)
    assert math.isnan(lesion.volume_error_percent)
    _, neither = score(mask_of(lines(1)), mask_of(lines(1)))
    assert math.isnan(neither.dice)
    assert neither.volume_error_ml == 0.0


@pytest.mark.parametrize("oblique", [False, True])
def test_storage_order_does_not_matter(oblique: bool) -> None:
    angle = 0.3 if oblique else 0.0
    turn = [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]]
    grid = Grid.from_spacing((4, 3, 2), (1, 2, 2.5), origin_mm=(7, -3, 11), direction=turn)
    prediction, truth = mask_of(lines(1, 1, 2), grid), mask_of(lines(0, 1, 2, 2), grid)
    want = score(prediction, truth)
    assert want[0].dice == 4 / 6
    for axes, ends in product(permutations(range(3)), product((0, 1), repeat=3)):
        codes = "".join(("RL", "AP", "SI")[axis][end] for axis, end in zip(axes, ends, strict=True))
        got = score(prediction, truth.oriented(codes))
        assert [(s.dice, s.truth_ml) for s in got] == [(s.dice, s.truth_ml) for s in want]


def test_different_grids_are_refused() -> None:
    affine = GRID.affine.copy()
    affine[0, 3] += 0.02
    shifted = mask_of(lines(1), Grid(GRID.shape, affine))
    with pytest.raises(InputRefused, match=r"0\.02 mm apart") as caught:
        score(mask_of(lines(1)), shifted, tolerance_mm=0.015)
    assert caught.value.reason == "grid-mismatch"
    with pytest.warns(InputWarning, match=r"up to 0\.02 mm from the prediction's"):
        assert score(mask_of(lines(1)), shifted)[0].dice == 1.0
    affine[0, 3] += 0.5
    with pytest.raises(InputRefused, match=r"0\.52 mm apart"):
        score(mask_of(lines(1)), mask_of(lines(1), Grid(GRID.shape, affine)))
    other = Mask(np.zeros((4, 3, 3), dtype=np.uint8), Grid.from_spacing((4, 3, 3)), LABELS)
    with pytest.raises(InputRefused, match="shapes differ"):
        score(other, shifted)


@pytest.mark.parametrize("cropped", ["truth", "prediction"])
def test_a_mask_that_was_cropped_to_its_structure_is_scored_on_the_whole_grid(cropped) -> None:
    whole, box = np.zeros((6, 7, 5), np.uint8), np.s_[2:5, 1:4, 3:5]
    whole[3:5, 2, 3:] = 1
    other = whole.copy()
    other[0, 0, 0], other[3, 2, 3] = 1, 0  # 4 voxels each, 3 of them in common
    grid = Grid.from_spacing(whole.shape, (1, 2, 2.5), origin_mm=(7, -3, 11))
    affine = grid.affine.copy()
    affine[:3, 3] = grid.world((2, 1, 3))
    part = Mask(whole[box], Grid(whole[box].shape, affine), LABELS[:1])
    full = Mask(other, grid, LABELS[:1])
    pair = (full, part) if cropped == "truth" else (part, full)
    with pytest.warns(InputWarning, match=f"{cropped} covers 3 x 3 x 2 voxels"):
        (found,) = score(*pair)
    (want,) = score(
        *(
            (full, Mask(whole, grid, LABELS[:1]))
            if cropped == "truth"
            else (Mask(whole, grid, LABELS[:1]), full)
        )
    )
    assert found.dice == 6 / 8
    assert found.values == want.values


def test_labels_are_matched_by_name() -> None:
    lesion_only = mask_of(lines(0, 0, 5, 5), labels=(Label(name="lesion", values=(5,)),))
    (lesion,) = score(mask_of(lines(1, 1, 2, 2)), lesion_only)
    assert lesion.dice == 1.0
    with pytest.raises(UsageError, match="no label 'organ'"):
        score(lesion_only, mask_of(lines(1)))


@pytest.mark.parametrize("measure", [dice, iou])
def test_masks_must_be_bool_and_of_one_shape(measure: object) -> None:
    good = np.zeros((2, 3), dtype=bool)
    for bad in (np.zeros((3, 2), dtype=bool), np.zeros((2, 3), dtype=np.uint8)):
        with pytest.raises(InputRefused, match="the same shape"):
            measure(good, bad)  # type: ignore[operator]  # parametrised functions


def test_scoring_a_label_in_its_box_equals_scoring_the_whole_scan() -> None:
    """Labels of several values, at edges, in one mask only, flat, and in a corner each."""
    labels = (
        Label(name="two values", values=(1, 300)),
        Label(name="slice", values=(2,)),
        Label(name="corners", values=(3,)),
        Label(name="truth only", values=(4,)),
    )
    grid = Grid.from_spacing((30, 26, 14), (0.8, 1.1, 3.0))
    prediction, truth = (np.zeros(grid.shape, dtype=np.uint16) for _ in range(2))
    prediction[0:6, 3:9, 2:9], prediction[4:8, 3:9, 9] = 1, 300
    truth[0:5, 4:9, 2:10], truth[6, 3:9, 3] = 300, 1
    prediction[12:20, 2:9, 5], truth[13:20, 2:8, 5] = 2, 2  # one slice thick: every voxel is border
    prediction[29, 25, 13], truth[20:22, 20:22, 0:2] = 3, 3
    truth[25, 3:7, 3] = 4
    found = score(Mask(prediction, grid, labels), Mask(truth, grid, labels))
    for label, own in zip(labels, found, strict=True):
        predicted, true = (np.isin(array, label.values) for array in (prediction, truth))
        assert own.dice == dice(predicted, true)
        counts = lesions(predicted, true)
        assert (own.lesions, own.lesions_found) == (counts.true, counts.found)
        assert own.lesions_false == counts.false
        whole = surface_distances(predicted, true, grid.spacing_mm)
        if whole is not None:
            assert (own.hd_mm, own.hd95_mm) == pytest.approx((whole.hd_mm, whole.hd95_mm))
            assert (own.assd_mm, own.nsd) == pytest.approx((whole.assd_mm, whole.nsd(3.0)))
    assert [own.empty for own in found] == ["", "", "", "prediction"]
