"""Which weights are taken from another model, with weights that can be checked on paper."""

from __future__ import annotations

import pytest
import torch
from support.worlds import tiny, untrained

from medseg.errors import UsageError
from medseg.networks import build
from medseg.recipe import Recipe
from medseg.training.weight_transfer import BACKGROUND, WeightTransfer, redistributed, rows_by_name

LUNGS = [
    {"name": "right_lung", "values": [1, 3], "side": "right"},
    {"name": "left_lung", "values": [2, 4], "side": "left"},
]
TUMOUR = {"name": "tumour", "values": [5]}
NETWORKS = [
    {"kind": "unet", "widths": [4, 8, 8], "norm": "instance"},
    {"kind": "residual_unet", "widths": [4, 8, 8]},
    {"kind": "attention_unet", "widths": [4, 8, 8]},
    {"kind": "dynunet", "widths": [4, 8, 8], "deep_supervision": [1.0, 0.5]},
    {"kind": "segresnet", "filters": 8, "blocks": [1, 1, 1]},
    {"kind": "plain_conv_unet", "widths": [4, 8, 8]},
]


def recipe(**parts: object) -> Recipe:
    data = tiny().model_dump(mode="json") | parts
    return Recipe.checked(data)


def test_rows_are_taken_by_name() -> None:
    # Rows a = 1, b = 2; the new head has c, b, a: c keeps its fresh -9, the others follow their names.
    old, fresh = torch.tensor([[1.0, 1.0], [2.0, 2.0]]), torch.full((3, 2), -9.0)
    rows = rows_by_name(old, fresh, (0,), ("a", "b"), ("c", "b", "a"))
    assert rows.tolist() == [[-9, -9], [2, 2], [1, 1]]
    assert fresh.tolist() == [[-9, -9]] * 3


def test_along_two_axes_only_pairs_of_known_labels_are_taken() -> None:
    # old[row a, column b] = 2, and so on; the new axes are b, c along both.
    old, fresh = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2, 2)
    assert rows_by_name(old, fresh, (0, 1), ("a", "b"), ("b", "c")).tolist() == [[4, 0], [0, 0]]


def test_the_row_of_a_background_is_subtracted() -> None:
    # Logits (7, 10, 12) of background, a and b give the same softmax as (0, 3, 5).
    old = torch.tensor([[7.0], [10.0], [12.0]])
    rows = rows_by_name(old, torch.zeros(2, 1), (0,), (BACKGROUND, "a", "b"), ("b", "a"))
    assert rows.tolist() == [[5], [3]]


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (["A"], ["B"], [1]),
        (["A"], ["A", "B"], [0.5, 0.5]),  # added: each starts with the mean, scaled by 1/2
        (["A", "B"], ["A", "B", "C"], [2 / 3, 4 / 3, 1]),  # mean 1.5; all scaled by 2/3
        (["A", "B"], ["C"], [3]),  # replaced: it gets the sum
        (["A", "B"], ["A"], [3]),
        (["A", "B", "C"], ["C", "A"], [4, 2]),  # 2 of the removed B is divided between both
        (["A", "B"], ["B", "A"], [2, 1]),
        (["A", "B", "C"], ["A", "D", "E"], [1, 2.5, 2.5]),  # 2 + 3 is divided between the new
    ],
)
def test_channels_keep_the_response_to_equal_channels(
    source: list[str], target: list[str], expected: list[float]
) -> None:
    kernels = torch.arange(1.0, len(source) + 1)
    result = redistributed(kernels, source, target)
    assert result.tolist() == pytest.approx(expected)
    assert float(result.sum()) == pytest.approx(float(kernels.sum()))


@pytest.mark.parametrize("settings", NETWORKS, ids=lambda each: each["kind"])
def test_a_network_with_the_same_labels_and_channels_is_taken_whole(settings: dict[str, object]) -> None:
    model = untrained(recipe(network=settings))
    transfer = WeightTransfer.between(model.recipe, model.recipe)
    assert set(transfer.taken) == set(model.folds[0])
    assert transfer.unused == ()
    result = transfer.apply(model.folds[0], build(model.recipe).state_dict())
    assert all(torch.equal(result[name], each) for name, each in model.folds[0].items())


@pytest.mark.parametrize("settings", NETWORKS, ids=lambda each: each["kind"])
def test_known_labels_keep_their_logits_and_equal_channels_their_response(
    settings: dict[str, object],
) -> None:
    model = untrained(recipe(network=settings))
    wanted = recipe(network=settings, labels=[TUMOUR, *reversed(LUNGS)], channels=["CT", "PET"])
    transfer = WeightTransfer.between(model.recipe, wanted)
    network = build(wanted)
    network.load_state_dict(transfer.apply(model.folds[0], network.state_dict()))
    image = torch.randn(1, 1, 16, 24, 16)
    with torch.no_grad():
        before = model.networks()[0](image)
        after = network.eval()(image.repeat(1, 2, 1, 1, 1))
    assert transfer.facts()["labels_new"] == ["tumour"]
    if settings["kind"] != "residual_unet":  # its last layer mixes the labels
        torch.testing.assert_close(after[:, [2, 1]], before, rtol=1e-4, atol=1e-5)
    assert transfer.by_label
    assert transfer.by_channel


def test_slices_of_2d_networks_are_adapted_like_channels() -> None:
    model = untrained(tiny(2))
    wanted = tiny(2, patch={"neighbours": 0})
    transfer = WeightTransfer.between(model.recipe, wanted)
    old = model.folds[0][transfer.by_channel[0]]
    new = transfer.apply(model.folds[0], build(wanted).state_dict())[transfer.by_channel[0]]
    # The outer slices are left out, and the inner one gets their sum.
    torch.testing.assert_close(new, old.sum(1, keepdim=True))


@pytest.mark.parametrize(
    ("network", "named"),
    [
        ({"kind": "unet", "widths": [4, 8, 16]}, r"network.widths is \[4, 8, 16\] in the recipe"),
        (
            {"kind": "dynunet", "widths": [4, 8, 8], "deep_supervision": [1.0, 0.5]},
            "network.kind is dynunet in the recipe, unet in the model",
        ),
        ({"kind": "unet", "widths": [4, 8, 8], "norm": "batch"}, "network.norm is batch"),
    ],
)
def test_other_networks_are_refused_by_name(network: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named) as caught:
        WeightTransfer.between(tiny(), recipe(network=network))
    assert caught.value.reason == "fine-tune-network"


def test_a_2d_network_does_not_take_3d_weights() -> None:
    with pytest.raises(UsageError, match="the recipe is 2D, the model 3D"):
        WeightTransfer.between(tiny(3), tiny(2))


def test_a_model_of_two_networks_is_refused() -> None:
    with pytest.raises(UsageError, match="several networks"):
        WeightTransfer.between(_context(), tiny())


def _context() -> Recipe:
    data = tiny(loss={"kind": "dice_ce"}).model_dump(mode="json")
    return Recipe.checked(data | {"context": {"size": [16, 16, 16], "network": data["network"]}})
