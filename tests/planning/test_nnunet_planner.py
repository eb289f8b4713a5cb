"""nnU-Net's planning: plans of the real package, written down; test_peers.py asks it again."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

from medseg.planning.nnunet_planner import PLANNERS, make_nnunet_plan, target_spacing
from medseg.planning.nnunet_topology import Topology, feature_map_elements

CHEST = {"spacings_mm": [[3, 0.977, 0.977]] * 36, "shapes": [[136, 512, 512]] * 36, "outputs": 3}
FINE_CHEST = {"spacings_mm": [[1.245, 0.785, 0.785]] * 63, "shapes": [[252, 512, 512]] * 63, "outputs": 2}
HIPPOCAMPUS = {"spacings_mm": [[1, 1, 1]] * 260, "shapes": [[36, 50, 35]] * 260, "outputs": 3}


def plan(name, data):
    return make_nnunet_plan(PLANNERS[name], **data).configurations


@pytest.mark.parametrize(
    ("name", "data", "patch", "stages", "batch"),
    [
        ("nnunet", HIPPOCAMPUS, (40, 56, 40), 4, 9),
        ("nnunet-resenc-m", HIPPOCAMPUS, (40, 56, 40), 4, 58),
        ("nnunet-resenc-l", HIPPOCAMPUS, (40, 56, 40), 4, 178),
        ("nnunet", CHEST, (56, 192, 192), 6, 2),
        ("nnunet-resenc-m", CHEST, (48, 192, 192), 6, 2),
        ("nnunet-resenc-l", CHEST, (80, 256, 256), 7, 2),
        ("nnunet", FINE_CHEST, (80, 192, 160), 6, 2),
        ("nnunet-resenc-m", FINE_CHEST, (80, 192, 160), 6, 2),
        ("nnunet-resenc-l", FINE_CHEST, (112, 256, 256), 7, 2),
    ],
)
def test_the_plans_of_the_real_package(name, data, patch, stages, batch):
    made = plan(name, data)["3d_fullres"]
    assert made.network.patch_size == patch
    assert (len(made.network.strides), made.batch_size) == (stages, batch)


def test_long_voxels_are_halved_later():
    network = plan("nnunet", CHEST)["3d_fullres"].network
    assert network.strides == ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2))
    assert network.kernels[0] == (1, 3, 3)
    assert network.widths == (32, 64, 128, 256, 320, 320)


def test_a_plane_of_512_has_eight_resolutions():
    network = plan("nnunet", CHEST)["2d"].network
    assert network.patch_size == (512, 512)
    assert len(network.strides) == 8
    assert network.widths[-1] == 512


def test_a_cascade_exists_where_a_patch_covers_less_than_a_quarter():
    chest = plan("nnunet", CHEST)
    assert prod((56, 192, 192)) / prod((136, 512, 512)) < 0.25
    assert set(chest) == {"2d", "3d_lowres", "3d_fullres"}
    assert chest["3d_fullres"].batch_dice
    assert not chest["3d_lowres"].batch_dice
    assert set(plan("nnunet", HIPPOCAMPUS)) == {"2d", "3d_fullres"}


def test_flat_data_have_a_2d_plan_only():
    flat = {"spacings_mm": [[999.0, 0.5, 0.5]] * 4, "shapes": [[1, 300, 400]] * 4, "outputs": 2}
    assert set(plan("nnunet", flat)) == {"2d"}


@pytest.mark.parametrize(
    ("kind", "side", "stages", "outputs", "supervised", "elements"),
    [
        ("plain_conv_unet", (128,) * 3, 6, 2, False, 450699264),
        ("residual_encoder_unet", (128,) * 3, 6, 3, True, 558319104),
        ("residual_encoder_unet", (512, 512), 7, 3, True, 129793792),
    ],
)
def test_the_estimates_of_the_real_package(kind, side, stages, outputs, supervised, elements):
    dims = len(side)
    strides = ((1,) * dims, *((2,) * dims,) * (stages - 1))
    network = Topology(side, strides, ((3,) * dims,) * stages)
    # The real package counts the heads of deep supervision if asked to; its planners do not ask.
    heads = sum(outputs * prod(n // 2**level for n in side) for level in range(1, stages - 1))
    assert feature_map_elements(kind, network, outputs) + supervised * heads == elements


def test_an_estimate_by_hand():
    # Two resolutions, 2 outputs: encoder 2 * 32 * 64 + 2 * 64 * 16, decoder (2 + 1) * 32 * 64 + 2 * 64.
    network = Topology((8, 8), ((1, 1), (2, 2)), ((3, 3), (3, 3)))
    assert feature_map_elements("plain_conv_unet", network, 2) == 4096 + 2048 + 6144 + 128
    # Stem 32 * 64, a block 2 * 32 * 64, three (2 * 3 + 1) * 64 * 16, decoder (1 + 1) * 32 * 64 + 128.
    assert feature_map_elements("residual_encoder_unet", network, 2) == 2048 + 4096 + 7168 + 4096 + 128


def test_few_long_voxels_get_the_tenth_percentile():
    # Medians 8, 1, 1 and 10, 100, 100; the 10th percentile of 4, 8, 8 is 4 + 0.2 * 4.
    spacings = [[4, 1, 1], [8, 1, 1], [8, 1, 1]]
    assert target_spacing(spacings, [[10, 100, 100]] * 3).tolist() == [4.8, 1, 1]
    assert target_spacing(spacings, [[40, 100, 100]] * 3).tolist() == [8, 1, 1]  # not few
    # Never below the others: 0.5 + 0.2 * 7.5 = 2 < 2.1.
    spacings = [[0.5, 2.1, 1], [8, 2.1, 1], [8, 2.1, 1]]
    assert np.allclose(target_spacing(spacings, [[10, 100, 100]] * 3), [2.1 + 1e-5, 2.1, 1], atol=1e-12)


def test_more_memory_gives_larger_patches():
    small = make_nnunet_plan(PLANNERS["nnunet"], **CHEST).configurations["3d_fullres"]
    large = make_nnunet_plan(PLANNERS["nnunet"], **CHEST, memory_gb=16).configurations["3d_fullres"]
    assert prod(large.network.patch_size) > 1.5 * prod(small.network.patch_size)
