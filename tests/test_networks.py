from __future__ import annotations

import torch

from medseg.networks.unet import UNet
from medseg.recipe import Recipe


def test_the_published_unet_counted_by_hand():
    """Ronneberger et al. 2015, figure 1: widths 64..1024, no normalisation, two output channels."""
    network = UNet(2, 1, 2, norm="none")
    # 3x3 convolutions with bias: encoder, then decoder (which sees the concatenated maps).
    encoder = [(1, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    bottom = [(512, 1024), (1024, 1024)]
    decoder = [(1024, 512), (512, 512), (512, 256), (256, 256), (256, 128), (128, 128), (128, 64), (64, 64)]
    count = sum(9 * a * b + b for a, b in encoder + bottom + decoder)
    count += sum(4 * a * (a // 2) + a // 2 for a in (1024, 512, 256, 128))  # 2x2 up-convolutions
    count += 64 * 2 + 2  # 1x1 to the output
    assert sum(p.numel() for p in network.parameters()) == count


def test_the_default_recipe_network_is_the_published_one():
    recipe = Recipe.read("lung_ct_3d")
    assert type(recipe.network)().widths == (64, 128, 256, 512, 1024)
    poolings = [m for m in UNet(2, 1, 1).modules() if isinstance(m, torch.nn.MaxPool2d)]
    assert len(poolings) == 4


def test_skip_connections_carry_the_fine_detail():
    """With the coarse path cut off, the output still depends on the single voxel it is asked about."""
    torch.manual_seed(0)
    network = UNet(2, 1, 1, widths=(4, 8), norm="none")
    with torch.no_grad():
        for parameter in network.encoder.parameters():
            parameter.zero_()
    image = torch.rand(1, 1, 8, 8)
    other = image.clone()
    other[0, 0, 3, 3] += 1
    changed = (network(image) - network(other)).abs()[0, 0] > 0
    assert changed[3, 3]
