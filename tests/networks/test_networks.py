from __future__ import annotations

import pytest
import torch
from monai.networks.nets.dynunet import DynUNet as MonaiDynUNet
from support.worlds import tiny

from medseg.networks import build
from medseg.networks.unet import UNet
from medseg.recipe import Recipe


def with_network(dims: int, size: list[int], **network) -> Recipe:
    data = tiny(dims).model_dump(mode="json")
    return Recipe.checked(data | {"network": network, "patch": {"size": size}})


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


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
def test_dynunet_agrees_with_monais(dims, residual):
    """MONAI's stacks the coarser outputs, each enlarged (nearest) to the finest."""
    size = [16, 32, 16][:dims]
    ours = build(
        with_network(
            dims, size, kind="dynunet", widths=[4, 6, 8, 10], deep_supervision=[1, 1, 1], residual=residual
        )
    )
    theirs = MonaiDynUNet(
        dims, 1, 2, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[4, 6, 8, 10], deep_supervision=True,
        deep_supr_num=2, res_block=residual,
    )  # fmt: skip
    left = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert left.unexpected_keys == []
    assert {name.split(".")[0] for name in left.missing_keys} == {"skip_layers"}
    image = torch.rand(2, 1, *size)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(image), theirs.eval()(image))
        each, stacked = ours.train()(image), theirs.train()(image)
    large = [torch.nn.functional.interpolate(one, size) for one in each]
    torch.testing.assert_close(torch.stack(large, 1), stacked)


@pytest.mark.parametrize(
    ("kind", "field", "one", "other"),
    [
        ("unet", "norm", "none", "batch"),
        ("residual_unet", "norm", "instance", "none"),
        ("residual_unet", "norm", "none", "batch"),
        ("residual_unet", "units", 1, 2),
        ("dynunet", "residual", False, True),
        ("dynunet", "deep_supervision", [1], [1, 1]),
        ("segresnet", "blocks", [1, 2], [2, 1]),
        ("swin_unetr", "depths", [2, 2, 2, 2], [2, 2, 4, 2]),
    ],
)
def test_every_field_changes_the_network(kind, field, one, other):
    size = [64, 32] if kind == "swin_unetr" else [16, 16]
    small = {} if kind in ("segresnet", "swin_unetr") else {"widths": [4, 4, 8]}
    if kind == "dynunet":
        small["deep_supervision"] = [1, 0.5]
    first, second = (
        build(with_network(2, size, kind=kind, **small | {field: value})) for value in (one, other)
    )
    assert repr(first) != repr(second)
    for network in (first, second):
        out = network.eval()(torch.rand(1, 1, *size))
        assert out.shape == (1, 2, *size)


@pytest.mark.parametrize(
    "network",
    [
        {"kind": "unet", "widths": [4, 4, 8]},
        {"kind": "residual_unet", "widths": [4, 4, 8]},
        {"kind": "attention_unet", "widths": [4, 4, 8]},
        {"kind": "dynunet", "widths": [4, 4, 8], "deep_supervision": [1, 0.5]},
        {"kind": "segresnet", "filters": 8},
        {"kind": "swin_unetr", "features": 12},
    ],
    ids=lambda network: network["kind"],
)
def test_dropout_is_active_in_training_only(network):
    recipe = with_network(2, [64, 32], **network, dropout=0.5)
    made, image = build(recipe), torch.rand(2, 1, 64, 32)

    def twice() -> bool:
        outs = [made(image) for _ in range(2)]
        first, second = (out if isinstance(out, torch.Tensor) else out[0] for out in outs)
        return torch.equal(first, second)

    assert not twice()
    made.eval()
    assert twice()
