"""The contract of every network in the registry, in 2D and 3D."""

from __future__ import annotations

import pytest
import torch
from support.worlds import tiny, untrained
from torch.nn.modules.batchnorm import _NormBase

from medseg.errors import UsageError
from medseg.images.grid import Grid
from medseg.inference.backends import REGISTRY
from medseg.inference.backends.network_source import LoadedNetwork
from medseg.inference.model import Model, needed_bytes
from medseg.inference.segmenter import Segmenter
from medseg.networks import build, channels_last
from medseg.phantom.thorax import Thorax
from medseg.recipe import Recipe
from medseg.recipe.network import KINDS
from medseg.training.checkpoint_files import import_weights
from medseg.training.losses import build as build_loss

# Ten slices of a chest: swin_unetr takes ten seconds for all of it.
SLAB = Grid.from_spacing((49, 34, 10), (8.0, 9.0, 12.0), origin_mm=(-192.0, -161.5, -54.0))
# Small networks, each with a patch size that its poolings allow.
SMALL = {
    "unet": {"widths": [4, 8, 8]},
    "residual_unet": {"widths": [4, 8, 8]},
    "attention_unet": {"widths": [4, 8, 8]},
    "dynunet": {"widths": [4, 8, 8], "deep_supervision": [1, 0.5]},
    "segresnet": {"filters": 8, "blocks": [1, 1, 1]},
    "swin_unetr": {"features": 12},
    "plain_conv_unet": {"widths": [4, 8, 8], "deep_supervision": [1, 0.5]},
    "residual_encoder_unet": {"widths": [4, 8, 8], "blocks": [1, 2, 2], "deep_supervision": [1, 0.5]},
    "lungmask_unet": {"widths": [4, 8, 8]},
}
# MONAI's transformer takes some ten seconds for three small steps in 3D.
SLOW = {("swin_unetr", 3): pytest.mark.slow}
EVERY = [
    pytest.param(kind, dims, id=f"{kind}-{dims}d", marks=SLOW.get((kind, dims), ()))
    for kind in sorted(KINDS)
    for dims in (2, 3)
]


def small(kind: str, dims: int, **changes) -> Recipe:
    size = [64, 32, 32][:dims] if kind == "swin_unetr" else [24, 32, 16][:dims]
    changed = {"network": {**SMALL[kind], "kind": kind}, "patch": {"size": size}} | changes
    recipe = tiny(dims)
    data = recipe.model_dump(mode="json")
    for name, value in changed.items():
        # A network's other fields are those of its kind.
        data[name] = value if name == "network" else {**data[name], **value}
    return Recipe.checked(data)


def test_every_kind_is_tested():
    assert set(SMALL) == set(KINDS)


@pytest.mark.parametrize(("kind", "dims"), EVERY)
def test_it_keeps_the_patch_size_and_learns_with_every_weight(kind, dims):
    torch.manual_seed(0)
    recipe = small(kind, dims)
    network, loss = channels_last(build(recipe)).train(), build_loss(recipe)
    image = torch.rand(1, recipe.in_channels, *recipe.patch.size)
    truth = (image[:, :1] > 0.5).float().expand(-1, 2, *recipe.patch.size)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    values = []
    for _ in range(3):
        optimizer.zero_grad()
        value = loss(network(image), truth)
        value.backward()
        optimizer.step()
        values.append(value.item())
        assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in network.parameters())
    assert values[-1] < values[0]
    without = [name for name, p in network.named_parameters() if p.grad is None]
    assert without == []
    with torch.inference_mode():
        logits = network.eval()(image)
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (1, 2, *recipe.patch.size)


@pytest.mark.parametrize(("kind", "dims"), EVERY)
def test_a_saved_model_segments_with_the_same_bits(kind, dims, tmp_path):
    model = untrained(small(kind, dims))
    loaded = Model.load(model.save(tmp_path / "m.safetensors"))
    image = torch.rand(1, model.recipe.in_channels, *model.recipe.patch.size)
    with torch.inference_mode():
        ours, theirs = (m.networks()[0].eval()(image) for m in (model, loaded))
    assert torch.equal(ours, theirs)
    scan = Thorax().scan(SLAB)
    mask = Segmenter(loaded)(scan)
    assert mask.grid == scan.grid
    # No weight is stored twice, and finding that out allocates nothing.
    assert (tmp_path / "m.safetensors").stat().st_size < needed_bytes(model.recipe) + 20_000


@pytest.mark.parametrize(("kind", "dims"), EVERY)
def test_weights_of_a_checkpoint_are_imported(kind, dims, tmp_path):
    recipe = small(kind, dims)
    weights = build(recipe).state_dict()
    torch.save(weights, tmp_path / "w.pth")
    taken = import_weights(tmp_path / "w.pth", recipe).folds[0]
    assert all(torch.equal(taken[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize(("kind", "dims"), EVERY)
def test_a_patch_that_does_not_fit_is_refused_with_sizes_that_do(kind, dims):
    good = small(kind, dims)
    first = good.patch.size[0]
    divisor = good.network.divisor
    with pytest.raises(
        UsageError, match=rf"multiple of {divisor}, such as \[{first}, .*\] or \[{first + divisor},"
    ):
        small(kind, dims, patch={"size": [first + 1, *good.patch.size[1:]]})
    if good.network.normalised:
        with pytest.raises(UsageError, match="shrinks to one voxel"):
            small(kind, dims, patch={"size": [divisor] * dims})


@pytest.mark.parametrize("kind", ["plain_conv_unet", "residual_encoder_unet"])
def test_kernels_and_strides_may_differ_between_axes(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rules = {
        **SMALL[kind],
        "kind": kind,
        "kernels": [[3, 3, 1], [3, 3, 1], [3, 3, 3]],
        "strides": [[1, 1, 1], [2, 2, 1], [2, 2, 2]],
    }
    with pytest.raises(UsageError, match=r"multiple of \[4, 4, 2\], such as \[24, 32, 6\] or \[24, 32, 8\]"):
        small(kind, 3, network=rules, patch={"size": [24, 32, 7]})
    recipe = small(kind, 3, network=rules, patch={"size": [24, 32, 6]})
    torch.manual_seed(0)
    network, windows = build(recipe), torch.randn(1, 1, 24, 32, 6)
    assert [tuple(out.shape[2:]) for out in network.train()(windows)] == [(24, 32, 6), (12, 16, 6)]
    expected = network.eval().requires_grad_(False)(windows)
    for engine in REGISTRY.values():
        logits = engine(LoadedNetwork(network), tuple(windows.shape), "cpu")(windows.numpy())
        torch.testing.assert_close(torch.from_numpy(logits), expected, atol=5e-4, rtol=5e-4)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_smallest_patch_that_is_allowed_trains(kind):
    divisor = small(kind, 2).network.divisor
    size = [2 * divisor, divisor] if small(kind, 2).network.normalised else [divisor, divisor]
    recipe = small(kind, 2, patch={"size": size})
    out = build(recipe).train()(torch.rand(2, recipe.in_channels, *size))
    first = out if isinstance(out, torch.Tensor) else out[0]
    assert first.shape == (2, 2, *size)


@pytest.mark.parametrize("kind", ["dynunet", "plain_conv_unet", "residual_encoder_unet"])
def test_deep_supervision_gives_coarser_outputs_in_training_only(kind):
    recipe = small(kind, 3)
    network, image = build(recipe), torch.rand(1, 1, *recipe.patch.size)
    fine, coarse = network.train()(image)
    assert [n // 2 for n in fine.shape[2:]] == list(coarse.shape[2:])
    assert isinstance(network.eval()(image), torch.Tensor)
    alone = small(kind, 3, network={"kind": kind, "widths": [4, 8, 8], "deep_supervision": [1]})
    assert isinstance(build(alone).train()(image), torch.Tensor)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"kind": "dynunet", "widths": [4, 8, 8], "deep_supervision": [1, 1, 1]}, "at most 2 numbers"),
        ({"kind": "dynunet", "deep_supervision": [0, 1]}, "the first above 0"),
        ({"kind": "swin_unetr", "features": 10}, "multiple of 12"),
        ({"kind": "swin_unetr", "depths": [2, 2, 3, 2]}, "must be even"),
        ({"kind": "segresnet", "filters": 12}, "multiple of 8"),
        ({"kind": "segresnet", "widths": [8, 8]}, "there is no such field"),
        ({"kind": "plain_conv_unet", "widths": [4, 8], "convolutions": [2]}, "with 2 widths give 2"),
        ({"kind": "plain_conv_unet", "widths": [4, 8], "decoder_convolutions": [2, 2]}, "give 1"),
        ({"kind": "plain_conv_unet", "widths": [4, 8], "kernels": [[3, 3], [2, 3]]}, "give numbers of"),
        ({"kind": "plain_conv_unet", "widths": [4, 8], "kernels": [[3, 3], [3, 3]]}, "patch.size has 3"),
        (
            {"kind": "plain_conv_unet", "widths": [4, 8], "strides": [[2, 2, 2], [2, 2, 2]]},
            "finest must be 1",
        ),
        ({"kind": "plain_conv_unet", "widths": [4, 8], "deep_supervision": [1, 1]}, "at most 1 number"),
        ({"kind": "residual_encoder_unet", "widths": [4, 8], "blocks": [1, 1, 1]}, "blocks has 3 entries"),
        ({"kind": "vnet"}, "kind must be one of"),
    ],
)
def test_an_impossible_network_is_refused_by_the_recipe(network, message):
    with pytest.raises(UsageError, match=message):
        Recipe.checked(tiny().model_dump(mode="json") | {"network": network})


def test_a_section_without_kind_is_a_unet():
    assert tiny(network={"widths": [4, 8]}).network.kind == "unet"
    assert (
        Recipe.checked(tiny().model_dump(mode="json") | {"network": {"widths": [4, 8]}}).network.kind
        == "unet"
    )


def test_the_json_schema_knows_a_section_without_kind_too():
    """The schema that editors check: without ``kind`` it is a unet with dice_bce only."""
    schema, good = Recipe.json_schema(), tiny().model_dump(mode="json")
    checker = pytest.importorskip("jsonschema").Draft202012Validator(schema)
    for network in [{"widths": [4, 8]}, {}, *({**SMALL[kind], "kind": kind} for kind in KINDS)]:
        assert checker.is_valid(good | {"network": network})
    for loss in [{"dice_weight": 2}, {}, {"kind": "dice_ce", "ce_weight": 2}]:
        assert checker.is_valid(good | {"loss": loss})
    for wrong in [{"network": {"filters": 8}}, {"loss": {"gamma": 2}}]:
        assert not checker.is_valid(good | wrong)
        with pytest.raises(UsageError, match="there is no such field"):
            Recipe.checked(good | wrong)


# Equal widths hide a mistaken axis of the weights, unequal ones show it as an error.
VARIANTS = [
    (kind, {"widths": widths, **norm})
    for kind, norms in (
        ("unet", [{"norm": norm} for norm in ("batch", "instance", "none")]),
        ("residual_unet", [{"norm": norm} for norm in ("batch", "instance", "none")]),
        ("attention_unet", [{}]),
        ("dynunet", [{"deep_supervision": [1]}]),
        ("plain_conv_unet", [{"deep_supervision": [1]}]),
        ("residual_encoder_unet", [{"blocks": [1, 2, 1]}]),
        ("lungmask_unet", [{}]),
    )
    for norm in norms
    for widths in ([4, 8, 12], [6, 6, 6])
] + [("segresnet", SMALL["segresnet"]), ("swin_unetr", SMALL["swin_unetr"])]


def trained_norms(recipe: Recipe) -> torch.nn.Module:
    """The network with scales, shifts and statistics of its norms as training might leave them."""
    torch.manual_seed(0)
    network = build(recipe).eval().requires_grad_(False)
    for layer in network.modules():
        if isinstance(layer, _NormBase) and layer.running_mean is not None:
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.5, 2)
            layer.weight.data.uniform_(0.5, 2)
            layer.bias.data.normal_(0, 0.3)
    return network


@pytest.mark.parametrize(
    ("kind", "rules", "dims"),
    [
        pytest.param(
            kind,
            rules,
            dims,
            id=f"{kind}-{dims}d-" + "-".join(str(value) for value in rules.values()),
            marks=SLOW.get((kind, dims), ()),
        )
        for kind, rules in VARIANTS
        for dims in (2, 3)
    ],
)
def test_every_engine_computes_the_function_of_the_network(kind, rules, dims, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    recipe = small(kind, dims, network={**rules, "kind": kind})
    network = trained_norms(recipe)
    windows = torch.randn(1, recipe.in_channels, *recipe.patch.size)
    expected = network(windows)
    for engine in REGISTRY.values():
        logits = engine(LoadedNetwork(network), tuple(windows.shape), "cpu")(windows.numpy())
        torch.testing.assert_close(torch.from_numpy(logits), expected, atol=5e-4, rtol=5e-4)
