from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.inferers.utils import sliding_window_inference

import medseg.inference.device_transfer
from medseg.errors import InputWarning
from medseg.inference.device_transfer import on_cpu
from medseg.inference.sliding_window import (
    importance,
    logits,
    starts,
)
from medseg.inference.window_gathering import stacked_slices
from medseg.recipe import Patch, Predict


@given(st.integers(1, 400), st.integers(1, 128), st.floats(0, 0.9))
def test_windows_cover_every_voxel_and_overlap_enough(length, window, overlap):
    places = starts(length, window, overlap)
    if length <= window:
        assert places == (0,)
        return
    assert places[0] == 0
    assert places[-1] == length - window
    gaps = [b - a for a, b in itertools.pairwise(places)]
    # One voxel of grace for placing windows on whole voxels.
    assert max(gaps) <= max(1, int(window * (1 - overlap))) + 1
    assert max(gaps) <= window
    assert max(gaps) - min(gaps) <= 1


def test_window_positions_by_hand():
    # 10 voxels, window 4, half overlap: steps of 2 end exactly at 6.
    assert starts(10, 4, 0.5) == (0, 2, 4, 6)
    # 9 voxels: four windows too, spread evenly over 0..5 instead of a last one pushed back.
    assert starts(9, 4, 0.5) == (0, 2, 3, 5)


def test_importance_is_a_gaussian_of_an_eighth_of_the_window():
    weight = importance((17,))
    assert weight[8] == 1
    # One standard deviation (17 / 8 = 2.125 voxels) would be exp(-1/2); at 2 voxels exp(-0.4429).
    assert float(weight[6]) == pytest.approx(np.exp(-0.5 * (2 / 2.125) ** 2), abs=1e-6)
    np.testing.assert_array_equal(weight, weight[::-1])
    assert importance((64, 64, 64)).min() == pytest.approx(1e-3)


@pytest.mark.parametrize("size", [(8, 8, 8), (16, 8, 8), (40, 8, 8)])
def test_a_voxelwise_network_is_reproduced_exactly(size):
    image = torch.rand(2, 30, 17, 11)
    network = lambda x: torch.stack([x[:, 0] * 2 - 1, x[:, 1] ** 2, x[:, 0] - x[:, 1]], 1)  # noqa: E731
    out = logits(
        image, network, labels=3, patch=Patch(size=size), predict=Predict(overlap=0.5, window_batch=3)
    )
    torch.testing.assert_close(out, network(image[None])[0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("shape", [(5, 4, 3), (30, 17, 11)])
@pytest.mark.parametrize("size", [(8, 8, 8), (8, 8)])
def test_arrays_and_tensors_give_the_same_logits(shape, size):
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    rules = {"labels": 1, "patch": Patch(size=size), "predict": Predict(overlap=0.5, window_batch=3)}
    ours = logits(image, lambda x: x * 2 - 1, **rules)
    theirs = logits(torch.from_numpy(image), lambda x: x * 2 - 1, **rules)
    assert isinstance(ours, np.ndarray)
    np.testing.assert_array_equal(ours, theirs.numpy())


def test_constant_windows_are_run_once():
    """Of 8 x 1 x 1 windows of 8 voxels, that of voxel 8 to 15 and that of 40 to 47 vary; six are alike."""
    image, sizes = torch.zeros(1, 64, 8, 8), []
    image[0, 10, 4, 4], image[0, 41, 2, 2] = 1.0, 2.0

    def network(windows: torch.Tensor) -> torch.Tensor:
        sizes.append(len(windows))
        return windows - 0.5

    for batch in (1, 3, 8):
        sizes.clear()
        predict = Predict(overlap=0.0, window_batch=batch)
        out = logits(image, network, labels=1, patch=Patch(size=(8, 8, 8)), predict=predict)
        torch.testing.assert_close(out, image - 0.5)
        assert sum(sizes) == {1: 3, 3: 4, 8: 8}[batch]


def test_the_next_portion_is_queued_before_a_gpu_is_waited_for(monkeypatch):
    """With fake CUDA events: the order of begin, send, wait and use."""
    events: list[str] = []

    class Event:
        def __init__(self, number: int) -> None:
            self.number = number

        def synchronize(self) -> None:
            events.append(f"wait {self.number}")

    def portions():
        for number in range(3):
            events.append(f"begin {number}")
            yield number, torch.full((1,), float(number))

    monkeypatch.setattr(
        medseg.inference.device_transfer, "_sent", lambda values: (values, Event(int(values)))
    )
    for number, values in on_cpu(portions()):
        events.append(f"use {number}")
        assert values.item() == number
    assert events == [
        "begin 0", "begin 1", "wait 0", "use 0", "begin 2", "wait 1", "use 1", "wait 2", "use 2",
    ]  # fmt: skip
    monkeypatch.undo()
    events.clear()
    assert [number for number, _ in on_cpu(portions())] == [0, 1, 2]


def test_short_memory_makes_smaller_batches_of_windows():
    image, sizes = torch.rand(1, 40, 8, 8), []

    def network(windows: torch.Tensor) -> torch.Tensor:
        sizes.append(len(windows))
        if len(windows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return windows * 2

    predict = Predict(overlap=0.0, window_batch=5)
    with pytest.warns(InputWarning, match="2 windows are run at once"):
        out = logits(image, network, labels=1, patch=Patch(size=(8, 8, 8)), predict=predict)
    torch.testing.assert_close(out, image * 2)
    assert sizes == [5, 2, 2, 1]


def test_one_window_that_does_not_fit_is_an_error():
    def network(windows: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        logits(torch.rand(1, 8, 8, 8), network, labels=1, patch=Patch(size=(8, 8, 8)), predict=Predict())


def test_agrees_with_monai_if_windows_are_placed_alike():
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, 2, 5, padding=2)
    image = torch.rand(1, 24, 16, 32)
    ours = logits(image, network, labels=2, patch=Patch(size=(16, 16, 16)), predict=Predict(overlap=0.5))
    with torch.no_grad():
        theirs = sliding_window_inference(
            image[None], (16, 16, 16), 1, network, overlap=0.5, mode="gaussian", sigma_scale=0.125
        )[0]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_neighbouring_slices_are_channels_and_repeat_at_the_ends():
    image = torch.arange(5.0).expand(2, 3, 3, 5) + torch.tensor([0.0, 10.0])[:, None, None, None]
    # Two channels, one neighbour: lower slice of both, the slice of both, upper slice of both.
    assert stacked_slices(image, 2, 1)[:, 0, 0].tolist() == [1, 11, 2, 12, 3, 13]
    assert stacked_slices(image, 0, 1)[:, 0, 0].tolist() == [0, 10, 0, 10, 1, 11]
    assert stacked_slices(image, 4, 2)[:, 0, 0].tolist() == [2, 12, 3, 13, 4, 14, 4, 14, 4, 14]


def test_2d_networks_see_the_right_slices():
    image = torch.rand(1, 20, 13, 6)
    network = lambda x: x.mean(1, keepdim=True)  # noqa: E731
    out = logits(
        image, network, labels=1, patch=Patch(size=(16, 16), neighbours=1), predict=Predict(window_batch=4)
    )
    below, above = image[..., [0, 0, 1, 2, 3, 4]], image[..., [1, 2, 3, 4, 5, 5]]
    torch.testing.assert_close(out, (below + image + above) / 3)


def test_a_whole_plane_is_one_window():
    torch.manual_seed(1)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.MaxPool2d(8), torch.nn.Upsample(scale_factor=8)
    )
    image = torch.rand(1, 26, 17, 5)
    sizes = []

    def noted(x: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(x.shape))
        return network(x)

    whole = Predict(whole_planes=True, window_batch=2)
    patch = Patch(size=(16, 16), neighbours=1)
    out = logits(image, noted, labels=4, patch=patch, predict=whole, divisor=8)
    assert sizes == [(2, 3, 32, 24), (2, 3, 32, 24), (1, 3, 32, 24)]
    # By hand: three pixels of the smallest value on either side of x, three and four of y.
    padded = torch.full((1, 32, 24, 5), float(image.min()))
    padded[:, 3:29, 3:20] = image
    with torch.no_grad():
        each = [network(stacked_slices(padded, z, 1)[None])[0, :, 3:29, 3:20] for z in range(5)]
    torch.testing.assert_close(out, torch.stack(each, -1), atol=1e-6, rtol=1e-5)


def test_small_scans_are_padded_with_their_smallest_value():
    image = torch.rand(1, 5, 4, 3) + 7
    windows = []

    def network(x: torch.Tensor) -> torch.Tensor:
        windows.append(x)
        return x

    out = logits(image, network, labels=1, patch=Patch(size=(8, 8, 8)), predict=Predict())
    torch.testing.assert_close(out, image)
    assert float(windows[0].min()) == float(image.min())
    assert windows[0].shape == (1, 1, 8, 8, 8)
