from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics.surface_dice import compute_surface_dice
from scipy import ndimage

from medseg.evaluation.surface_distance import surface_distances
from medseg.evaluation.voxel_surface import voxel_distances


def blobs(seed: int, shape: tuple[int, ...] = (20, 24, 14)) -> tuple[np.ndarray, np.ndarray]:
    """Two smooth random masks that overlap."""
    noise = np.random.default_rng(seed).normal(size=(2, *shape))
    first, second = (ndimage.gaussian_filter(one, 2.5) for one in noise)
    mask = first > np.quantile(first, 0.8)
    return mask, ndimage.binary_dilation(mask) & (second > np.quantile(second, 0.3))


def test_two_voxels_by_hand():
    # Elements lie between slices: at z 69.5 and 70.5 around one voxel, at 71.5 and 72.5 around the other.
    # From the first they are 2 and 1 mm away, and as far back; both layers have the same area.
    a, b = np.zeros((100, 100, 100), bool), np.zeros((100, 100, 100), bool)
    a[50, 60, 70] = b[50, 60, 72] = True
    found = surface_distances(a, b, (3.0, 2.0, 1.0))
    assert (found.hd_mm, found.hd95_mm, found.assd_mm) == (2, 2, pytest.approx(1.5))
    assert found.nsd(1.0) == pytest.approx(0.5)
    assert (found.nsd(0.9), found.nsd(2.0)) == (0, 1)


def test_a_box_has_the_area_of_its_faces_and_chamfered_edges():
    # Voxel centres span 4 x 3 x 2 voxels; faces lie half a voxel outside, edges and corners are cut off.
    box = np.zeros((9, 8, 7), bool)
    box[2:7, 2:6, 2:5] = True
    found = surface_distances(box, box, (1.0, 1.0, 1.0))
    faces, edges = 2 * (4 * 3 + 4 * 2 + 3 * 2), 4 * (4 + 3 + 2) * math.sqrt(2) / 2
    assert found.of_prediction.amount == pytest.approx(faces + edges + 8 * math.sqrt(3) / 8)
    assert (found.hd_mm, found.assd_mm, found.nsd(0)) == (0, 0, 1)


def test_thick_slices_do_not_hide_a_shift_in_the_plane():
    # A box of 8 x 8 x 30 mm, moved by 0.8 mm. Of its surface of about 1090 mm2 the two walls across the
    # shift have 480 mm2, and only near their edges is the other surface less than 0.8 mm away. Of the
    # border voxels most lie in the flat top and bottom, at distance 0.
    a, b = np.zeros((40, 40, 9), bool), np.zeros((40, 40, 9), bool)
    a[10:30, 10:30, 3:6] = b[12:32, 10:30, 3:6] = True
    spacing = (0.4, 0.4, 10.0)
    found, voxels = surface_distances(a, b, spacing), voxel_distances(a, b, spacing)
    assert found.hd95_mm == pytest.approx(0.8)
    assert 1 - 480 / 1090 < found.nsd(0.5) < 0.65
    assert voxels.nsd(0.5) > 0.8
    flat = np.zeros((40, 40, 9), bool)
    flat[5:35, 5:35, 4] = True
    assert voxel_distances(flat, np.roll(flat, 1, 0), spacing).hd95_mm == 0
    assert surface_distances(flat, np.roll(flat, 1, 0), spacing).hd95_mm == pytest.approx(0.4)


def test_the_percentile_is_weighted_by_area():
    # A plate of one voxel's thickness beside the same with a spike: the spike's area is small.
    plate = np.zeros((30, 30, 12), bool)
    plate[3:27, 3:27, 2] = True
    spiked = plate.copy()
    spiked[15, 15, 2:10] = True
    found = surface_distances(spiked, plate, (1.0, 1.0, 1.0))
    assert found.hd95_mm == 0
    assert found.hd_mm == pytest.approx(7)


@pytest.mark.parametrize("seed", range(4))
def test_monai_agrees_with_its_subvoxel_surface_dice(seed):
    prediction, truth = blobs(seed)
    spacing = (0.7, 1.1, 3.0)
    found = surface_distances(prediction, truth, spacing)
    tensors = [torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (prediction, truth)]
    for tolerance in (0.5, 1.0, 3.2):
        theirs = compute_surface_dice(
            *tensors, [tolerance], include_background=True, spacing=spacing, use_subvoxels=True
        )
        assert found.nsd(tolerance) == pytest.approx(float(theirs), abs=1e-5)


def test_a_single_slice_is_weighted_by_the_length_of_its_outline():
    # 18 x 18 voxels of 0.5 mm: sides of 17 voxels and four corners that are cut off at sqrt(0.5) / 2 mm.
    flat = np.zeros((20, 20, 1), bool)
    flat[1:19, 1:19] = True
    length = 4 * 17 * 0.5 + 4 * math.hypot(0.5, 0.5) / 2
    for mask in (flat, np.moveaxis(flat, 2, 0)):
        found = surface_distances(mask, mask, (0.5, 0.5, 0.5))
        assert found.of_prediction.amount == pytest.approx(length)
    smaller = flat.copy()
    smaller[1:3] = False
    assert surface_distances(smaller, flat, (0.5, 0.5, 9.0)).hd_mm == 1.0


def test_lines_points_and_empty_masks():
    line = np.array([0, 1, 1, 0, 0, 0], bool).reshape(6, 1, 1)
    longer = np.array([0, 1, 1, 1, 1, 0], bool).reshape(6, 1, 1)
    found = surface_distances(line, longer, (2.0, 1.0, 1.0))
    assert (found.hd_mm, found.assd_mm) == (4, 2)  # ends at 0 and 4 mm, twice
    one = np.ones((1, 1, 1), bool)
    assert surface_distances(one, one, (1.0, 1.0, 1.0)).hd_mm == 0
    assert surface_distances(line, np.zeros_like(line), (1.0, 1.0, 1.0)) is None


def test_the_edge_of_the_scan_is_surface():
    whole = np.ones((4, 4, 4), bool)
    inner = np.zeros((6, 6, 6), bool)
    inner[1:5, 1:5, 1:5] = True
    areas = [surface_distances(mask, mask, (1.0, 1.0, 1.0)).of_truth.amount for mask in (whole, inner)]
    assert areas[0] == pytest.approx(areas[1])
