from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.surface_dice import compute_surface_dice
from monai.metrics.surface_distance import compute_average_surface_distance
from scipy import ndimage

from medseg.evaluation.voxel_surface import voxel_distances


def blobs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two smooth random masks that overlap."""
    noise = np.random.default_rng(seed).normal(size=(2, 20, 24, 14))
    smooth = [ndimage.gaussian_filter(one, 2.5) for one in noise]
    first = smooth[0] > np.quantile(smooth[0], 0.8)
    return first, ndimage.binary_dilation(first) & (smooth[1] > np.quantile(smooth[1], 0.3))


def test_two_voxels_by_hand():
    # 3 voxels apart along an axis of 2 mm and 1 along one of 0.5 mm: sqrt(36 + 0.25).
    a, b = np.zeros((8, 4, 3), bool), np.zeros((8, 4, 3), bool)
    a[1, 1, 1] = b[4, 2, 1] = True
    found = voxel_distances(a, b, (2.0, 0.5, 9.0))
    distance = math.hypot(6, 0.5)
    assert found.hd_mm == found.hd95_mm == found.assd_mm == pytest.approx(distance)
    assert found.nsd(distance - 0.01) == 0
    assert found.nsd(distance) == 1


def test_a_shifted_slab_by_hand():
    # A 4 x 4 x 1 slab and the same moved by one slice of 3 mm; all its voxels are border.
    a, b = np.zeros((6, 6, 5), bool), np.zeros((6, 6, 5), bool)
    a[1:5, 1:5, 1] = b[1:5, 1:5, 2] = True
    found = voxel_distances(a, b, (1.0, 1.0, 3.0))
    assert (found.hd_mm, found.hd95_mm, found.assd_mm) == (3, 3, 3)
    assert found.nsd(2.9) == 0
    assert found.nsd(3.0) == 1


def test_the_percentile_is_the_larger_of_two_directions():
    # 10 voxels in a row against the first of them: 0 from there; 0, 1, ..., 9 mm from the other
    # side, whose 95th percentile is 8.55. Of all 11 distances together it would be 8.5.
    row, one = np.zeros((12, 3, 3), bool), np.zeros((12, 3, 3), bool)
    row[1:11, 1, 1] = one[1, 1, 1] = True
    found = voxel_distances(one, row, (1.0, 1.0, 1.0))
    assert found.hd95_mm == pytest.approx(8.55)
    assert found.hd_mm == 9
    assert found.assd_mm == pytest.approx(45 / 11)
    assert voxel_distances(row, one, (1.0, 1.0, 1.0)).hd95_mm == found.hd95_mm


def test_inner_voxels_are_not_on_the_surface():
    a = np.zeros((7, 7, 7), bool)
    a[1:6, 1:6, 1:6] = True
    assert voxel_distances(a, a, (1.0, 1.0, 1.0)).of_truth.amount == 5**3 - 3**3
    edge = np.ones((4, 4, 4), bool)  # also at the edge of the scan
    assert voxel_distances(edge, edge, (1.0, 1.0, 1.0)).of_truth.amount == 4**3 - 2**3


def test_the_surface_of_a_single_slice_is_its_outline():
    # 18 x 18 of 20 x 20: 4 x 18 - 4 voxels of the outline, along each of the axes.
    square = np.zeros((20, 20), bool)
    square[1:19, 1:19] = True
    for axis in range(3):
        slice_ = np.expand_dims(square, axis)
        assert voxel_distances(slice_, slice_, (1.0, 1.0, 1.0)).of_truth.amount == 4 * 18 - 4
    ours = voxel_distances(slice_, np.roll(slice_, 2, 0), (0.5, 3.0, 7.0))
    both = [torch.from_numpy(mask[..., 0])[None, None] for mask in (slice_, np.roll(slice_, 2, 0))]
    judged = float(compute_hausdorff_distance(*both, include_background=True, spacing=(0.5, 3.0)))
    assert ours.hd_mm == pytest.approx(judged) == 1.0  # two voxels of 0.5 mm
    voxel = np.ones((1, 1, 1), bool)
    assert voxel_distances(voxel, voxel, (1.0, 1.0, 1.0)).of_truth.amount == 1


def test_empty_masks_have_no_distance():
    a = np.zeros((3, 3, 3), bool)
    b = ~a
    assert voxel_distances(a, b, (1, 1, 1)) is None
    assert voxel_distances(b, a, (1, 1, 1)) is None
    assert voxel_distances(a, a, (1, 1, 1)) is None


@pytest.mark.parametrize("seed", range(4))
def test_monai_and_simpleitk_agree(seed):
    spacing_mm = (0.7, 1.3, 3.0)
    a, b = blobs(seed)
    found = voxel_distances(a, b, spacing_mm)
    both = [torch.from_numpy(mask)[None, None] for mask in (a, b)]
    rules = {"include_background": True, "spacing": spacing_mm}
    assert found.hd_mm == pytest.approx(float(compute_hausdorff_distance(*both, **rules)), rel=1e-5)
    percentile = float(compute_hausdorff_distance(*both, percentile=95, **rules))
    assert found.hd95_mm == pytest.approx(percentile, rel=1e-5)
    mean = float(compute_average_surface_distance(*both, symmetric=True, **rules))
    assert found.assd_mm == pytest.approx(mean, rel=1e-5)
    dice = float(compute_surface_dice(*both, class_thresholds=[1.5], **rules))
    assert found.nsd(1.5) == pytest.approx(dice, rel=1e-5)
    images = [sitk.GetImageFromArray(mask.T.astype(np.uint8)) for mask in (a, b)]
    for image in images:
        image.SetSpacing(spacing_mm)
    judge = sitk.HausdorffDistanceImageFilter()
    judge.Execute(*images)
    assert found.hd_mm == pytest.approx(judge.GetHausdorffDistance(), rel=1e-5)


def test_brute_force_agrees():
    a, b = blobs(9)
    spacing = np.array([2.0, 0.5, 1.0])
    borders = [np.argwhere(m & ~ndimage.binary_erosion(m)) * spacing for m in (a, b)]
    every = np.linalg.norm(borders[0][:, None] - borders[1][None], axis=2)
    found = voxel_distances(a, b, spacing)
    np.testing.assert_allclose(found.of_prediction.mm, every.min(1))
    np.testing.assert_allclose(found.of_truth.mm, every.min(0))
