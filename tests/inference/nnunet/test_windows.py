"""The sliding window of nnU-Net, on paper and compared with scipy."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from medseg.inference.nnunet import windows
from medseg.inference.nnunet.windows import importance, logit_planes, starts
from medseg.system.notices import collect_notices


def test_starts_on_paper():
    assert starts(110, 64, 0.5) == (0, 23, 46)  # nnU-Net's own example
    assert starts(64, 64, 0.5) == (0,)
    assert starts(65, 64, 0.5) == (0, 1)
    assert starts(100, 32, 1.0) == (0, 23, 45, 68)  # 68 / 3 = 22.67, rounded
    assert starts(13, 8, 0.5) == (0, 2, 5)  # 2.5 is rounded to the even number, as numpy rounds


@pytest.mark.parametrize("window", [(16, 24, 24), (7, 40, 13), (32, 20), (96, 8, 8)])
def test_importance_equals_the_filtered_middle_voxel(window):
    impulse = np.zeros(window)
    impulse[tuple(n // 2 for n in window)] = 1
    wanted = ndimage.gaussian_filter(impulse, [n / 8 for n in window], 0, mode="constant", cval=0)
    wanted = (wanted / (wanted.max() / 10)).astype(np.float16)
    wanted[wanted == 0] = wanted[wanted > 0].min()
    np.testing.assert_array_equal(importance(window), wanted)


def whole(image: np.ndarray, *networks, **rules) -> np.ndarray:
    found = list(logit_planes(image, networks, **rules))
    assert [first for first, _ in found] == list(np.cumsum([0, *(v.shape[1] for _, v in found)])[:-1])
    return np.concatenate([values for _, values in found], axis=1)


def voxelwise(windows: np.ndarray) -> np.ndarray:
    """Two classes: the voxel itself, and its negative."""
    return np.concatenate([windows[:, :1], -windows[:, :1]], axis=1)


@pytest.mark.parametrize("shape", [(20, 13, 9), (8, 8, 8), (3, 20, 5), (41, 9, 8)])
def test_a_network_without_context_is_unchanged_by_windows(shape):
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    found = whole(image, voxelwise, window=(8, 8, 8), heads=2)
    assert (found.shape, found.dtype) == ((2, *shape), np.float16)
    # Sums of 16 bits lose digits near corners, where weights are as small as 16-bit numbers can be.
    inner = (slice(2, -2) if shape[0] > 3 else slice(None), slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(found[0][inner], image[0][inner], atol=4e-3)
    np.testing.assert_array_equal(found[1], -found[0])


def test_slices_are_segmented_one_by_one():
    image = np.random.default_rng(0).normal(size=(2, 5, 11, 6)).astype(np.float32)
    found = whole(image, voxelwise, window=(8, 8), heads=2)
    np.testing.assert_allclose(found[0], image[0], atol=4e-3)


def test_folds_are_averaged():
    image = np.full((1, 8, 8, 8), 2, dtype=np.float32)
    found = whole(image, voxelwise, lambda windows: 3 * voxelwise(windows), window=(8, 8, 8), heads=2)
    assert np.unique(found[0]).tolist() == [4]  # (2 + 6) / 2


def test_padding_is_zero_with_the_odd_voxel_at_the_end():
    seen = []

    def network(windows: np.ndarray) -> np.ndarray:
        seen.append(windows[0, 0, :, 0, 0])
        return voxelwise(windows)

    image = np.arange(1, 6, dtype=np.float32)[:, None, None] * np.ones((1, 5, 8, 8), dtype=np.float32)
    found = whole(image, network, window=(8, 8, 8), heads=2)
    assert seen[0].tolist() == [0, 1, 2, 3, 4, 5, 0, 0]
    assert found[0, :, 0, 0].tolist() == [1, 2, 3, 4, 5]


def test_mirrored_windows_are_averaged_over_all_combinations():
    def first_corner(windows: np.ndarray) -> np.ndarray:
        """The value of the first corner of the window, everywhere."""
        return np.broadcast_to(windows[:, :1, :1, :1, :1], (1, 1, *windows.shape[2:])).copy()

    image = np.zeros((1, 4, 4, 4), dtype=np.float32)
    image[0, 0, 0, 0], image[0, -1, 0, 0], image[0, 0, 0, -1], image[0, -1, 0, -1] = 1, 2, 4, 9
    found = whole(image, first_corner, window=(4, 4, 4), heads=1, mirror_axes=(0, 2))
    assert np.unique(found).tolist() == [4]  # (1 + 2 + 4 + 9) / 4


def test_constant_windows_run_once():
    calls = []

    def network(windows: np.ndarray) -> np.ndarray:
        calls.append(windows)
        return voxelwise(windows)

    whole(np.full((1, 8, 8, 40), 3, dtype=np.float32), network, window=(8, 8, 8), heads=2)
    assert len(calls) == 1


def smooth(windows):
    """Two classes with context: the window shifted along its last axis, and its square; arrays or tensors."""
    math = np if isinstance(windows, np.ndarray) else torch
    return math.concat([math.roll(windows[:, :1], 1, -1), windows[:, :1] ** 2], 1)


@pytest.mark.parametrize("batch", [1, 4, 100])
@pytest.mark.parametrize(("size", "axes"), [((8, 8, 6), (0, 2)), ((8, 8, 6), ()), ((8, 6), (1,))])
def test_batches_of_tensors_give_the_bits_of_single_windows_of_arrays(batch, size, axes):
    """The sums are rounded to 16 bits in the same order, so that no bit differs; air is constant."""
    image = np.random.default_rng(3).normal(size=(1, 19, 13, 9)).astype(np.float32)
    image[:, :9, :, :] = -1
    rules = {"window": size, "heads": 2, "mirror_axes": axes}
    folds = (smooth, lambda windows: 3 * smooth(windows))
    expected = whole(image, *folds, **rules)
    found = list(logit_planes(torch.from_numpy(image), folds, batch=batch, **rules))
    np.testing.assert_array_equal(torch.concat([values for _, values in found], 1).numpy(), expected)
    again = np.concatenate([v for _, v in logit_planes(image, folds, batch=batch, **rules)], 1)
    np.testing.assert_array_equal(again, expected)


def test_sums_that_do_not_fit_on_a_device_are_in_main_memory(monkeypatch):
    real, device = windows._Sums, []

    class Full(real):
        def __init__(self, math, where, *rest):
            device.append(where)
            if len(device) == 1:
                raise torch.OutOfMemoryError("out of memory")
            super().__init__(math, where, *rest)

    monkeypatch.setattr(windows, "_Sums", Full)
    image = np.random.default_rng(3).normal(size=(1, 8, 9, 8)).astype(np.float32)
    with collect_notices() as notices:
        found = list(logit_planes(torch.from_numpy(image), [smooth], window=(8, 8, 8), heads=2))
    assert device[1] == "cpu"
    assert [each.reason for each in notices] == ["device-memory"]
    expected = whole(image, smooth, window=(8, 8, 8), heads=2)
    np.testing.assert_array_equal(torch.concat([values for _, values in found], 1).numpy(), expected)


def test_a_network_without_room_beside_the_sums_moves_them_to_main_memory():
    """The CPU under another name is taken for a device of its own."""
    image = np.random.default_rng(3).normal(size=(1, 20, 9, 8)).astype(np.float32)
    calls = []

    def short(given):
        calls.append(len(given))
        if len(calls) == 3:
            raise torch.OutOfMemoryError("out of memory")
        return smooth(given)

    class Elsewhere(torch.Tensor):
        device = "cpu:0"

    tensor = torch.from_numpy(image).as_subclass(Elsewhere)
    with collect_notices() as notices:
        found = list(logit_planes(tensor, [short], window=(8, 8, 8), heads=2))
    assert [each.reason for each in notices] == ["device-memory"]
    expected = whole(image, smooth, window=(8, 8, 8), heads=2)
    made = torch.concat([values for _, values in found], 1).as_subclass(torch.Tensor)
    np.testing.assert_array_equal(made.numpy(), expected)


def test_windows_that_a_device_has_no_room_to_compare_are_compared_in_main_memory(monkeypatch):
    real, seen = windows.levels, []

    def levels(image, *rest, **options):
        seen.append(type(image))
        if isinstance(image, torch.Tensor):
            raise torch.OutOfMemoryError("out of memory")
        return real(image, *rest, **options)

    monkeypatch.setattr(windows, "levels", levels)
    image = np.random.default_rng(3).normal(size=(1, 8, 9, 8)).astype(np.float32)
    with collect_notices() as notices:
        found = list(logit_planes(torch.from_numpy(image), [smooth], window=(8, 8, 8), heads=2))
    assert seen == [torch.Tensor, np.ndarray]
    assert [each.reason for each in notices] == ["device-memory"]
    expected = whole(image, smooth, window=(8, 8, 8), heads=2)
    np.testing.assert_array_equal(torch.concat([values for _, values in found], 1).numpy(), expected)
