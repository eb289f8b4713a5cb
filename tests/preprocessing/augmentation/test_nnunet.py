"""nnU-Net's augmentation by hand; `make peers` compares it with batchgeneratorsv2 itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.augmentation import checked, some
from support.worlds import tiny

from medseg.preprocessing.augmentation import augment, movement
from medseg.preprocessing.augmentation.nnunet import (
    PatchBlur,
    PatchBrightness,
    PatchContrast,
    PatchGamma,
    PatchLowResolution,
    PatchNoise,
    blur_matrix,
)
from medseg.preprocessing.augmentation.spatial import NnunetDeform
from medseg.recipe import NnunetAugment


def test_contrast_about_the_mean_stays_within_the_range():
    # Mean 1; doubled differences 1 + 2 * (-1, 0, 1, 0) = -1, 1, 3, 1, clamped to 0..2.
    values = torch.tensor([[0.0, 1.0, 2.0, 1.0]])
    assert PatchContrast(1).change(values, 2.0).tolist() == [[0, 1, 2, 1]]
    assert PatchContrast(1).change(values, 0.5).tolist() == [[0.5, 1, 1.5, 1]]
    assert PatchBrightness(1).change(values, 0.5).tolist() == [[0, 0.5, 1, 0.5]]


@pytest.mark.parametrize("inverted", [False, True])
def test_gamma_restores_mean_and_standard_deviation(inverted):
    values = some(1, 9, 8) * 3 - 1
    done = PatchGamma(1, inverted=inverted).change(values, 1.5)
    assert float(done.mean()) == pytest.approx(float(values.mean()), abs=1e-5)
    assert float(done.std()) == pytest.approx(float(values.std()), abs=1e-5)
    # An exponent above 1 pulls most values towards the dark end, of the inverted image to the bright one.
    assert (float((done - values).median()) > 0) == inverted
    constant = torch.full((1, 4, 4), 2.0)
    torch.testing.assert_close(PatchGamma(1, inverted=inverted).change(constant, 1.5), constant)


def test_blur_by_hand():
    # sd 0.5: nearest odd length to 3.5 is 3 (round(3.5) = 4, and 3.5 < 4); weights exp(-2), 1, exp(-2).
    side = np.exp(-2) / (1 + 2 * np.exp(-2))
    matrix = blur_matrix(4, 0.5)
    np.testing.assert_allclose(matrix[1], [side, 1 - 2 * side, side, 0])
    np.testing.assert_allclose(matrix[0], [1 - 2 * side, 2 * side, 0, 0])  # mirrored about the first voxel
    np.testing.assert_allclose(blur_matrix(1, 0.9), [[1]])
    values = some(1, 5, 6)
    assert PatchBlur(1).change(values, (0.5, 1.0)).shape == values.shape


def test_a_flat_axis_keeps_its_resolution():
    values = torch.arange(8.0).reshape(1, 1, 8).expand(1, 8, 8) + torch.arange(8.0).reshape(1, 8, 1) ** 2
    done = PatchLowResolution(1, flat_axis=0).change(values, 0.5)
    # Rows differ as before, because only their columns are coarser.
    torch.testing.assert_close(done[:, 3] - done[:, 1], torch.full((1, 8), 8.0))
    assert not torch.equal(done, values)


def test_probabilities_and_ranges():
    """400 draws; binomial standard deviations below 10."""
    for change, probability, share in (
        (PatchBlur(0.2, share=0.5, channels=2), 0.2, 0.5),
        (PatchContrast(0.15, channels=2), 0.15, 1),
        (PatchNoise(0.1, 0.1, channels=2), 0.1, 1),
    ):
        change.set_random_state(seed=0)
        rows = []
        for _ in range(400):
            change.randomize({"image": some(2, 3, 3)})
            rows.append(change.drawn)
        both = sum(None not in row for row in rows)
        assert both == pytest.approx(400 * probability * share**2, abs=40)
        if isinstance(change, PatchNoise):
            assert all(row[0] is None or row[0][0] == row[1][0] <= 0.1 for row in rows)  # one deviation
    factors = PatchGamma(1)
    factors.set_random_state(seed=1)
    drawn = np.array([factors.draw(3) for _ in range(1000)])
    assert 0.7 <= drawn.min() < 0.71
    assert 1.49 < drawn.max() <= 1.5
    assert (drawn < 1).mean() == pytest.approx(0.5, abs=0.06)


def test_anisotropic_patches_move_in_the_plane_only():
    rules = NnunetAugment(kind="nnunet", rotate_degrees=180, flat_axis=2)
    deform = NnunetDeform(rules, 3)
    moved = 0
    for seed in range(40):
        deform.set_random_state(seed=seed)
        deform.place((16, 16, 4))
        if deform.control is not None:
            moved += 1
            np.testing.assert_allclose(deform.reach[:, 2], [0, 3], atol=1e-9)
    assert moved == pytest.approx(40 * (1 - 0.8**2), abs=10)


def test_the_recipe_chooses_the_movement():
    recipe = checked(tiny(), "nnunet")
    names = [type(each).__name__ for each in augment(recipe).transforms]
    assert names == [
        "Flip", "PatchNoise", "PatchBlur", "PatchBrightness", "PatchContrast", "PatchLowResolution",
        "PatchGamma", "PatchGamma",
    ]  # fmt: skip
    assert isinstance(movement(recipe), NnunetDeform)
    assert movement(tiny()) is None
    larger = checked(tiny(), {"larger_cut": True})
    assert movement(larger) is not None
    assert "Deform" not in [type(each).__name__ for each in augment(larger).transforms]
