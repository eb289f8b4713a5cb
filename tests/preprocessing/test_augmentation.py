from __future__ import annotations

from pathlib import Path

import matplotlib.image as images
import numpy as np
import pytest
import torch
import yaml
from monai.transforms.intensity.array import AdjustContrast
from scipy import ndimage
from scipy.interpolate import BSpline
from support.commands import invoke
from support.worlds import phantoms, tiny
from torch.nn import functional as F

from medseg import cli
from medseg.errors import UsageError
from medseg.images.label import Label
from medseg.images.palette import COLOURS
from medseg.inference.model import Model
from medseg.preprocessing.augmentation import augment
from medseg.preprocessing.augmentation.intensity import Brightness, Clip, Contrast, Cutout, Gamma, Noise
from medseg.preprocessing.augmentation.interpolation import along, read_at, spline_places, spline_weights
from medseg.preprocessing.augmentation.mr_artefacts import BiasField, Field, Ghosting, Ghosts, Motion, Moved
from medseg.preprocessing.augmentation.resolution import Blur, LowResolution, coarse, gaussian
from medseg.preprocessing.augmentation.spatial import Deform, Flip, placement, positions
from medseg.recipe import Augment, Recipe
from medseg.recipe.augmentation import PRESETS, mirrored
from medseg.visualization.overlays import samples

MR = {"modality": "MR", "prepare": {"spacing_mm": [8, 8, 10], "intensity": {"kind": "zscore"}}}
OFF = {"rotate_degrees": 0, "scale": 0, "noise_sd": 0, "gamma": 0, "brightness": 0, "contrast": 0}


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def moved(
    image: torch.Tensor,
    matrix: np.ndarray,
    *,
    shift_mm: tuple[float, ...] = (),
    spacing_mm: tuple[float, ...] = (),
) -> np.ndarray:
    """The image (X, Y[, Z]) through the spline of an affine map, without chance."""
    shape = image.shape
    spacing = np.array(spacing_mm or [1.0] * len(shape))
    control = positions(shape, shape, matrix, np.array(shift_mm or [0.0] * len(shape)), spacing)
    read, label = read_at(image[None], image[None], control, shape)
    # The positions of these tests are whole voxels, where linear and nearest are one.
    torch.testing.assert_close(read, label, atol=1e-4, rtol=0)
    return read[0].numpy()


# Flips


def test_a_flip_by_hand_exchanges_the_sides():
    # Two voxels from left to right; label 0 is the right lung, 1 the heart, 2 the left lung (unknown in the
    # second voxel). Flipped, what was the left lung lies where right was, and is the right lung.
    image = torch.tensor([[[1.0], [2.0]]])
    label = torch.tensor([[[0.0], [1.0]], [[1.0], [0.0]], [[1.0], [-1.0]]])
    flip = Flip([0], [2, 1, 0])
    flip.happens = lambda: True
    done = flip({"image": image, "label": label})
    assert done["image"].tolist() == [[[2.0], [1.0]]]
    assert done["label"].tolist() == [[[-1.0], [1.0]], [[0.0], [1.0]], [[1.0], [0.0]]]


def test_flips_of_other_axes_exchange_nothing():
    flip = Flip([1, 1], [1, 0])
    assert flip.axes == (1,)  # named twice is not flipped twice
    flip.happens = lambda: True
    image, label = some(1, 3, 4), some(2, 3, 4, seed=1).round()
    done = flip({"image": image, "label": label})
    np.testing.assert_array_equal(done["image"], image.numpy()[..., ::-1])
    np.testing.assert_array_equal(done["label"], label.numpy()[..., ::-1])


def test_half_of_the_patches_are_flipped_along_each_axis():
    """Binomial, n = 400, p = 1/2: 200, standard deviation 10."""
    flip = Flip([0, 2], [0])
    flip.set_random_state(seed=0)
    given = {"image": some(1, 2, 2, 2), "label": some(1, 2, 2, 2)}
    drawn = []
    for _ in range(400):
        flip(given)
        drawn.append(tuple(flip.flipped))
    for axis in (0, 2):
        assert abs(sum(axis in axes for axes in drawn) - 200) < 40
    assert {(), (0,), (2,), (0, 2)} == set(drawn)


def test_the_recipe_says_who_is_whose_partner():
    of = tiny(3, augment=OFF | {"flip_axes": [0]})  # right_lung and left_lung
    change = augment(of)
    size = of.patch.size
    right = torch.zeros(2, *size)
    right[0, : size[0] // 2] = 1
    given = {"image": right[:1].clone(), "label": right}
    seen = []
    for seed in range(8):
        change.set_random_state(seed=seed)
        done = change(given)
        seen.append(bool(done["label"][1].any()))
        # What is bright is what is labelled, whichever side it is on now.
        assert torch.equal(done["image"][0], done["label"].sum(0))
        assert done["label"][0].any() != done["label"][1].any()
    assert set(seen) == {True, False}


@pytest.mark.parametrize(
    ("names", "places"),
    [
        (["right_lung", "heart:", "left_lung"], (2, 1, 0)),
        (["Right Lung", "Left Lung"], (1, 0)),
        (["lung_l", "kidney_r", "lung_r", "kidney_l"], (2, 3, 0, 1)),
        (["LeftKidney", "RightKidney"], (1, 0)),
        (["rt-lobe-2", "lt-lobe-1", "lt-lobe-2", "rt-lobe-1"], (2, 3, 0, 1)),
        (["right_lung", "left_kidney"], (None, None)),
        (["right_lung", "left_lung", "lung_l"], (None, None, None)),  # which of the two?
        (["right_lung", "lung_r"], (None, None)),  # both are right
        (["left_ventricle:", "right_ventricle:"], (0, 1)),  # named after sides, but the recipe gives none
        (["lunge_rechts:", "lunge_links:"], (0, 1)),
    ],
)
def test_partners_by_name(names, places):
    """A name with a colon has no side in the recipe; else its words say which."""
    labels = []
    for value, name in enumerate(names, 1):
        word = name.lower().replace("_", " ").replace("-", " ")
        side = "left" if "left" in word or "lt" in word.split() or "l" in word.split() else "right"
        labels.append(Label(name=name, values=(value,), side=None if name.endswith(":") else side))
    assert mirrored(labels) == places


# Affine maps


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_rotation_by_90_degrees_is_numpys_in_2d(turns):
    image = some(5, 5)
    done = moved(image, placement([90 * turns], [1, 1], [0]))
    np.testing.assert_allclose(done, np.rot90(image.numpy(), turns, (0, 1)), atol=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_rotation_by_90_degrees_is_numpys_about_each_axis(axis):
    image = some(5, 5, 5)
    turns = [90.0 * (a == axis) for a in range(3)]
    done = moved(image, placement(turns, [1, 1, 1], [0, 0, 0]))
    expected = np.rot90(image.numpy(), 1, ((axis + 1) % 3, (axis + 2) % 3))
    np.testing.assert_allclose(done, expected, atol=1e-4)


def test_angles_are_the_patients_where_voxels_are_not_square():
    """9 voxels of 1 mm, 5 of 2 mm, centre at (4, 2). What is a mm to the right and b mm to the front of the
    centre comes b mm to the left and a mm to the front: voxel (i, j), which lies at (i - 4, 2 (j - 2)) mm,
    shows what was at (2 (j - 2), -(i - 4)) mm: voxel (2 (j - 2) + 4, 2 - (i - 4) / 2)."""
    image = some(9, 5)
    done = moved_any(image, placement([90], [1, 1], [0]), (1.0, 2.0))
    for i in range(0, 9, 2):
        for j in range(5):
            assert done[i, j] == pytest.approx(float(image[2 * (j - 2) + 4, 2 - (i - 4) // 2]), abs=1e-4)


def moved_any(image: torch.Tensor, matrix: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
    shape = image.shape
    control = positions(shape, shape, matrix, np.zeros(len(shape)), np.array(spacing_mm))
    return read_at(image[None], image[None], control, shape)[0][0].numpy()


def test_twice_the_size_by_hand():
    # Centre at voxel 4: voxel i shows what was at 4 + (i - 4) / 2.
    image = torch.arange(9.0)[:, None].expand(9, 3).contiguous()
    done = moved_any(image, placement([0], [2, 1], [0]), (1.0, 1.0))
    np.testing.assert_allclose(done[:, 1], [2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6], atol=1e-5)


def test_a_shift_by_hand_repeats_the_border():
    # 4 mm are two voxels of 2 mm: what was in voxel 0 is in voxel 2, and goes on before it.
    image = torch.tensor([[5.0, 1], [6, 2], [7, 3], [8, 4]])
    done = moved(image, np.eye(2), shift_mm=(4.0, 0.0), spacing_mm=(2.0, 1.0))
    np.testing.assert_allclose(done, [[5, 1], [5, 1], [5, 1], [6, 2]], atol=1e-5)


def test_shear_by_hand():
    # Axis 0 leans by one half: (x, y) comes to (x + y / 2, y). Row y = +-2 of the centre moves by one voxel.
    image = some(5, 5)
    done = moved_any(image, placement([0], [1, 1], [0.5]), (1.0, 1.0))
    np.testing.assert_allclose(done[1:, 4], image[:-1, 4], atol=1e-5)
    np.testing.assert_allclose(done[:-1, 0], image[1:, 0], atol=1e-5)
    np.testing.assert_allclose(done[:, 2], image[:, 2], atol=1e-5)


def test_up_to_90_degrees_right_stays_right():
    random = np.random.default_rng(0)
    for _ in range(500):
        turns = random.uniform(-90, 90, 3)
        cosines = np.cos(np.radians(turns))
        matrix = placement(turns.tolist(), [1, 1, 1], [0, 0, 0])
        assert matrix[0, 0] == pytest.approx(cosines[1] * cosines[2])
        assert placement(turns.tolist(), [0.7, 1, 1.3], random.uniform(-0.5, 0.5, 3).tolist())[0, 0] >= 0
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(matrix) == pytest.approx(1)


# The spline, and reading at its positions


@pytest.mark.parametrize(("n", "distance"), [(9, 9.0), (16, 5.0), (12, 1.7), (1, 1.0)])
def test_the_splines_weights_are_scipys(n, distance):
    weights, places = spline_weights(n, distance), spline_places(n, distance)
    at = np.arange(n) - (n - 1) / 2
    for column, place in enumerate(places):
        basis = BSpline.basis_element(place + distance * np.arange(-2, 3), extrapolate=False)
        np.testing.assert_allclose(weights[:, column], np.nan_to_num(basis(at)), atol=1e-12)
    np.testing.assert_allclose(weights.sum(1), 1)
    np.testing.assert_allclose(weights @ places, at, atol=1e-12)  # a line stays a line


@pytest.mark.parametrize("shape", [(13, 17), (7, 9, 11), (40, 60, 50), (1, 6, 5)])
def test_reading_is_scipys_map_coordinates(shape):
    random = np.random.default_rng(0)
    distances = [max(n / 2, 2.0) for n in shape]
    control = positions(shape, distances, np.eye(len(shape)), np.zeros(len(shape)), np.ones(len(shape)))
    control += random.uniform(-3, 3, control.shape)
    image, label = some(2, *shape), some(3, *shape, seed=1).mul(3).floor() - 1
    read, marked = read_at(image, label, control, distances)
    dense = control
    for axis, (n, distance) in enumerate(zip(shape, distances, strict=True), start=1):
        dense = np.moveaxis(np.tensordot(spline_weights(n, distance), dense, (1, axis)), 0, axis)
    for theirs, ours in zip(image, read, strict=True):
        expected = ndimage.map_coordinates(theirs.numpy(), dense, order=1, mode="nearest")
        np.testing.assert_allclose(ours, expected, atol=2e-5)
    for theirs, ours in zip(label, marked, strict=True):
        expected = ndimage.map_coordinates(theirs.numpy(), dense, order=0, mode="nearest")
        assert (ours.numpy() != expected).mean() < 2e-3  # exactly between two voxels


@pytest.mark.parametrize("dims", [2, 3])
def test_image_and_label_move_together(dims):
    """The image is its label: wherever all voxels it was mixed from agree, both must have that value."""
    of = tiny(dims, augment=OFF | {"rotate_degrees": 60, "scale": 0.3, "elastic_mm": 16, "probability": 1})
    change, size = augment(of), of.patch.size
    label = (some(2, *size) > 0.5).float()
    given = {"image": label[:1].expand(of.in_channels, *size), "label": label}
    for seed in range(5):
        change.set_random_state(seed=seed)
        done = change(given)
        for slices in done["image"]:
            clear = (slices == 0) | (slices == 1)
            assert 0.001 < clear.float().mean() < 1
            assert torch.equal(slices[clear], done["label"][0][clear])


@pytest.mark.parametrize("dims", [2, 3])
def test_displacements_stay_within_what_was_asked_for_and_never_fold(dims):
    """An image that holds its own places in mm is interpolated exactly: its change is the displacement."""
    spacing_mm = (1.0, 2.0, 4.0)[:dims]
    shape = (64, 32, 16)[:dims]
    rules = Augment(**OFF, elastic_mm=8, elastic_grid_mm=20, probability=1)  # the most that is allowed
    ramps = [
        (torch.arange(n) * mm).reshape([-1 if a == axis else 1 for a in range(dims)]).expand(shape)
        for axis, (n, mm) in enumerate(zip(shape, spacing_mm, strict=True))
    ]
    image = torch.stack(ramps).float()
    deform = Deform(rules, spacing_mm)
    for seed in range(5):
        deform.set_random_state(seed=seed)
        done = deform({"image": image, "label": image[:1]})["image"]
        change = (done - image).abs().amax(dim=tuple(range(1, dims + 1)))
        assert (change <= 8 + 1e-3).all()
        assert (change > 1).all()
        inner = (slice(10, -10), slice(5, -5), slice(3, -3))[:dims]  # the border's repetition folds
        slopes = [np.gradient(done[a].numpy(), *spacing_mm) for a in range(dims)]
        jacobian = np.array(slopes)[(slice(None), slice(None), *inner)]
        assert (np.linalg.det(np.moveaxis(jacobian, (0, 1), (-2, -1))) > 0).all()


def test_matrices_go_along_each_axis():
    values, matrix = some(2, 3, 4, 5), some(6, 4, seed=1)
    for axis, n in enumerate(values.shape):
        part = matrix[:, :1].expand(6, n) if n > 4 else matrix[:, :n]
        expected = np.moveaxis(np.tensordot(part.numpy(), values.numpy(), (1, axis)), 0, axis)
        np.testing.assert_allclose(along(values, part, axis), expected, atol=1e-5)


# Intensity


def test_gamma_by_hand_and_as_monai():
    # low 1, range 4: 1 + 4 * ((3 - 1) / 4)^2 = 2.
    values = torch.tensor([[1.0, 3.0, 5.0]])
    torch.testing.assert_close(Gamma(0.5, 1).change(values, 2.0), torch.tensor([[1.0, 2.0, 5.0]]))
    patch = some(1, 8, 9) * 3 - 1
    torch.testing.assert_close(
        Gamma(0.5, 1).change(patch, 0.7), AdjustContrast(0.7)(patch).as_tensor(), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("step", [Gamma, Contrast])
def test_factors_and_exponents_lie_about_1(step):
    each = step(0.3, 1)
    each.set_random_state(seed=0)
    drawn = [each.draw(3) for _ in range(500)]
    assert 0.7 <= min(drawn) < 0.71
    assert 1.29 < max(drawn) <= 1.3


def test_contrast_and_brightness_by_hand():
    values = torch.tensor([[-1.0, 0.0, 2.0]])
    assert Contrast(0.5, 1).change(values, 1.5).tolist() == [[-1.5, 0.0, 3.0]]
    assert Brightness(0.5, 1).change(values, 0.25).tolist() == [[-0.75, 0.25, 2.25]]
    each = Brightness(0.2, 1)
    each.set_random_state(seed=0)
    drawn = [each.draw(3) for _ in range(500)]
    assert -0.2 <= min(drawn) < -0.19
    assert 0.19 < max(drawn) <= 0.2


def test_noise_has_the_standard_deviation_that_was_drawn_and_differs_between_slices():
    noise = Noise(0.5, 1)
    noise.set_random_state(seed=0)
    drawn = [noise.draw(3) for _ in range(500)]
    assert 0 <= min(drawn)[0] < max(drawn)[0] <= 0.5
    assert len({seed for _, seed in drawn}) == 500
    done = noise.change(torch.full((2, 40, 50), 3.0), (0.25, 7))
    # 4,000 voxels: the standard error of the mean is 0.25 / 63 = 0.004, of the deviation 0.003.
    assert float(done.mean()) == pytest.approx(3, abs=0.016)
    assert float(done.std()) == pytest.approx(0.25, abs=0.012)
    correlation = np.corrcoef(done[0].flatten(), done[1].flatten())[0, 1]
    assert abs(correlation) < 0.1


def test_cutout_by_hand():
    cutout = Cutout(0.5, 1, channels=2)
    image = torch.arange(2.0 * 3 * 4).reshape(2, 3, 4)
    cutout.randomize = lambda data: None
    cutout.box = (slice(0, 1), slice(1, 3))
    done = cutout({"image": image, "label": torch.ones(1, 3, 4)})
    # The mean of 0..11 is 5.5, of 12..23 it is 17.5.
    assert done["image"][:, 0].tolist() == [[0, 5.5, 5.5, 3], [12, 17.5, 17.5, 15]]
    assert torch.equal(done["image"][:, 1:], image[:, 1:])
    assert torch.equal(done["label"], torch.ones(1, 3, 4))


def test_cutout_hides_at_most_the_share_of_each_edge():
    cutout = Cutout(0.4, 1)
    cutout.set_random_state(seed=0)
    given = {"image": some(1, 20, 30, 10), "label": torch.ones(1, 20, 30, 10)}
    lengths = []
    for _ in range(200):
        cutout.randomize(given)
        assert cutout.box is not None
        lengths.append([part.stop - part.start for part in cutout.box])
        assert all(p.start >= 0 and p.stop <= n for p, n in zip(cutout.box, (20, 30, 10), strict=True))
    assert np.min(lengths, 0).tolist() == [1, 1, 1]
    assert np.max(lengths, 0).tolist() == [7, 11, 3]  # rounded down from less than 8, 12 and 4


def test_clip_by_hand():
    done = Clip()({"image": torch.tensor([[-0.5, 0.5, 1.5]]), "label": torch.zeros(1, 3)})
    assert done["image"].tolist() == [[0.0, 0.5, 1.0]]


# Resolution


@pytest.mark.parametrize("sd", [0.3, 1.0, 2.4])
@pytest.mark.parametrize("shape", [(12, 9), (8, 10, 7)])
def test_blur_is_scipys_and_keeps_the_mean(sd, shape):
    patch = some(2, *shape)
    done = Blur(3, 1).change(patch, sd)
    expected = [ndimage.gaussian_filter(each.numpy(), sd, mode="reflect", truncate=4.0) for each in patch]
    np.testing.assert_allclose(done, expected, atol=1e-5)
    assert float(done.mean()) == pytest.approx(float(patch.mean()), abs=1e-6)


def test_no_blur_is_the_identity_and_a_wide_one_comes_back_from_both_ends():
    np.testing.assert_array_equal(gaussian(4, 0.0), np.eye(4))
    for n in (1, 2, 5):  # 4 standard deviations reach beyond the line several times
        np.testing.assert_allclose(gaussian(n, 6.0).sum(0), 1)
        np.testing.assert_allclose(gaussian(n, 6.0).sum(1), 1)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.77, 0.99])
@pytest.mark.parametrize("shape", [(12, 9), (8, 10, 7)])
def test_low_resolution_is_torchs_interpolate(share, shape):
    patch = some(1, *shape)
    done = LowResolution(1, 1).change(patch, share)
    kept = [max(1, round(n * (1 - share))) for n in shape]
    small = F.interpolate(patch[None], size=kept, mode="nearest-exact")
    linear = "bilinear" if len(shape) == 2 else "trilinear"
    expected = F.interpolate(small, size=shape, mode=linear, align_corners=False)[0]
    torch.testing.assert_close(done, expected, atol=1e-5, rtol=0)


def test_half_the_resolution_by_hand():
    # Of six voxels 1, 3 and 5 are kept (the centres of pairs, 1, 3, 5, round up); voxel i lies at
    # (i + 1/2) / 2 - 1/2 of the three: -1/4, 1/4, 3/4, 5/4, 7/4, 9/4, beyond the ends the ends go on.
    line = np.array([0, 10, 0, 20, 0, 40.0])
    np.testing.assert_allclose(coarse(6, 3) @ line, [10, 12.5, 17.5, 25, 35, 40])


# MR


def test_a_bias_field_by_hand():
    # The polynomial x alone on -1, 0, 1: factors exp(-s), 1, exp(s) with s = log 2; the lowest voxel is 1.
    coefficients = np.zeros((4, 4))
    coefficients[1, 0] = -0.2  # scaled to an extreme of 1; the sign turns it round
    values = torch.tensor([[[1.0, 3.0], [3.0, 3.0], [5.0, 3.0]]])
    done = BiasField(1, 1).change(values, Field(coefficients, float(np.log(2))))
    # 1 + (3 - 1) * 2 = 5, 1 + 2 = 3, 1 + (3 - 1) / 2 = 2; 1 + (5 - 1) / 2 = 3.
    torch.testing.assert_close(done, torch.tensor([[[1.0, 5.0], [3.0, 3.0], [3.0, 2.0]]]))


@pytest.mark.parametrize("dims", [2, 3])
def test_a_bias_field_is_positive_smooth_and_bounded(dims):
    bias = BiasField(0.5, 1)
    bias.set_random_state(seed=0)
    values = torch.ones(1, *[32] * dims)
    values[(0, *[0] * dims)] = 0  # no signal there, so that the field is what is seen elsewhere
    extremes = []
    for _ in range(30):
        field = bias.change(values, bias.draw(dims))[0]
        field[(0,) * dims] = field[(0,) * (dims - 1) + (1,)]
        assert 1 / 1.5 - 1e-5 <= float(field.min()) <= float(field.max()) <= 1.5 + 1e-5
        extremes.append(float(field.log().abs().max()))
        for axis in range(dims):
            # A cubic on -1..1 with an extreme of 1 has a slope of at most 9 (Markov 1889: n^2),
            # so in steps of 2/31 its exponent changes by at most 0.58 times the strength.
            assert float(torch.diff(field.log(), dim=axis).abs().max()) <= 0.58 * np.log(1.5)
    assert max(extremes) > 0.7 * np.log(1.5)


def test_ghosts_by_hand():
    """Without every 4th line of k-space, but with the mean: the patch, less the mean of itself shifted by
    0, 1/4, 1/2 and 3/4 of its length, plus its mean (the comb is its own Fourier transform)."""
    values = some(1, 16, 3)
    done = Ghosting(1, 1).change(values, Ghosts(0, 4, 1.0)).numpy()
    rolled = np.mean([np.roll(values.numpy(), 4 * m, axis=1) for m in range(4)], axis=0)
    np.testing.assert_allclose(
        done, values.numpy() - rolled + values.numpy().mean(1, keepdims=True), atol=1e-5
    )


@pytest.mark.parametrize("shape", [(16, 12), (9, 16, 4)])
def test_ghosts_change_at_most_their_share_and_keep_the_mean(shape):
    ghosting = Ghosting(0.6, 1)
    ghosting.set_random_state(seed=0)
    values = some(2, *shape)
    seen = set()
    for _ in range(100):
        drawn = ghosting.draw(len(shape))
        seen.add(drawn.axis)
        done = ghosting.change(values, drawn)
        assert 4 <= drawn.number <= 10
        assert 0 <= drawn.share <= 0.6
        assert float((done - values).norm()) <= drawn.share * float(values.norm()) + 1e-4
        torch.testing.assert_close(done.mean(drawn.axis + 1), values.mean(drawn.axis + 1), atol=1e-5, rtol=0)
    assert seen == set(range(len(shape)))


def test_a_patient_who_moves_at_once_is_simply_shifted():
    # All lines but the mean's have the phase of the second position: a whole number of voxels is a roll.
    values = some(2, 5, 9)
    done = Motion(5, 1, (1.0, 1.0)).change(values, Moved(1, 0.0, 2.0))
    np.testing.assert_allclose(done, np.roll(values.numpy(), 2, axis=2), atol=1e-5)


def test_motion_leaves_the_inner_lines_of_k_space_and_all_magnitudes():
    motion = Motion(10, 1, (2.0, 4.0), channels=1)
    motion.set_random_state(seed=0)
    values = some(1, 33, 15)
    shifts: list[list[float]] = [[], []]
    for _ in range(200):
        axis, before, shift = motion.draw(2)
        shifts[axis].append(shift)
        assert 0.2 <= before <= 0.8
        done = motion.change(values, Moved(axis, before, shift))
        ours, theirs = (np.fft.rfft(v.numpy(), axis=axis + 1) for v in (done, values))
        inner = int(before * (values.shape[axis + 1] // 2)) + 1
        part = tuple(slice(inner) if a == axis + 1 else slice(None) for a in range(3))
        np.testing.assert_allclose(ours[part], theirs[part], atol=1e-4)
        np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-4)
    # At most 10 mm: 5 voxels of 2 mm, 2.5 of 4 mm.
    assert 4.5 < max(map(abs, shifts[0])) <= 5
    assert 2.25 < max(map(abs, shifts[1])) <= 2.5


# Recipes


def checked(base: Recipe, rules: object) -> Recipe:
    return Recipe.checked({**yaml.safe_load(base.yaml()), "augment": rules})


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("dims", [2, 3])
def test_presets_become_numbers_at_once(name, dims):
    for base in (tiny(dims), tiny(dims, **MR)):
        made = checked(base, name)
        rules = yaml.safe_load(made.yaml())["augment"]
        assert set(rules) == set(Augment.model_fields)
        assert all(isinstance(value, (bool, int, float, list)) for value in rules.values())
        assert Recipe.parse(made.yaml()) == made
        assert Recipe.checked(yaml.safe_load(made.yaml())).digest == made.digest


def test_the_preset_none_changes_nothing():
    made = checked(tiny(), "none")
    assert made.augment.probability == 0
    assert augment(made).transforms == ()


def test_presets_of_ct_are_in_hu_and_without_artefacts_of_mr():
    # The window -1024..276 is 1300 HU wide: 50 / 1300 = 0.03846, 20 / 1300 = 0.01538.
    rules = checked(tiny(), "full").augment
    assert (rules.bias_field, rules.ghosting, rules.motion_mm) == (0, 0, 0)
    assert (rules.noise_sd, rules.brightness) == (0.03846, 0.01538)
    assert rules.clip
    light = checked(tiny(), "light").augment
    assert (light.bias_field, light.ghosting, light.motion_mm) == (0, 0, 0)


def test_presets_of_mr_have_them_and_follow_the_normalisation():
    rules = checked(tiny(3, **MR), "full").augment
    assert min(rules.bias_field, rules.ghosting, rules.motion_mm) > 0
    assert (rules.noise_sd, rules.clip) == (0.3, False)
    percentile = {"modality": "MR", "prepare": {"intensity": {"kind": "percentile"}}}
    other = checked(tiny(3, **percentile), "full").augment
    assert (other.noise_sd, other.clip) == (0.06, True)


@pytest.mark.parametrize("parts", [{}, MR], ids=["CT", "MR"])
def test_light_is_lighter_than_full(parts):
    light, full = (checked(tiny(3, **parts), name).augment.model_dump() for name in ("light", "full"))
    less = [f for f in light if isinstance(light[f], float) and light[f] < full[f]]
    assert {"rotate_degrees", "scale", "noise_sd", "gamma", "brightness", "contrast", "elastic_mm"} <= set(
        less
    )
    assert not [f for f in light if isinstance(light[f], float) and light[f] > full[f]]


def test_presets_flip_only_where_no_label_has_a_side():
    assert checked(tiny(), "full").augment.flip_axes == ()
    assert checked(tiny(labels=[{"name": "lungs", "values": [1]}]), "full").augment.flip_axes == (0,)


def test_recipes_from_before_mean_what_they_did():
    rules = Recipe.read("hippocampus_mr_3d").augment
    assert (rules.flip_axes, rules.rotate_degrees, rules.scale, rules.noise_sd) == ((0,), 15, 0.15, 0.1)
    assert (rules.gamma, rules.brightness, rules.contrast, rules.probability) == (0, 0.05, 0.1, 0.5)
    new = set(Augment.model_fields) - {*OFF, "flip_axes", "probability", "elastic_grid_mm"}
    assert not any(getattr(rules, field) for field in new)
    held = Model.load(Path(cli.__file__).parents[1] / "models" / "phantom_lungs.safetensors").recipe.augment
    assert (held.rotate_degrees, held.scale, held.probability) == (20, 0.15, 0.5)
    assert not any(getattr(held, field) for field in new)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"augment": "fulll"}, "augment is 'fulll': give none, light, full"),
        ({"patch": {"size": [32, 32]}, "augment": {"flip_axes": [2]}}, r"2 \(S-I\), an axis that 2D"),
        (
            {
                "labels": [{"name": "right_lung", "values": [1], "side": "right"}],
                "augment": {"flip_axes": [0]},
            },
            r"exchange the sides of \['right_lung'\]",
        ),
        ({"augment": {"rotate_degrees": 91}}, "put right on the left"),
        ({**MR, "augment": {"clip": True}}, "z-scores are not"),
        ({"augment": {"elastic_mm": 9, "elastic_grid_mm": 20}}, "would fold the patch: at most 8"),
        ({"augment": {"ghosting": 1.1}}, r"augment\.ghosting"),
        ({"augment": "full", "modality": "PET"}, "modality"),
    ],
)
def test_impossible_rules_are_refused(parts, message):
    with pytest.raises(UsageError, match=message) as caught:
        tiny(**parts)
    assert caught.value.reason == "recipe-field"


def test_what_is_possible_is_not_refused():
    assert tiny(2, augment={"flip_axes": [0, 1]}).augment.flip_axes == (0, 1)
    one = {"labels": [{"name": "right_lung", "values": [1], "side": "right"}]}
    change = augment(tiny(3, **one, augment=OFF | {"flip_axes": [1]}))
    given = {"image": some(1, 16, 24, 16), "label": torch.ones(1, 16, 24, 16)}
    assert torch.equal(change(given)["label"], given["label"])
    whole = tiny(labels=[{"name": "lungs", "values": [1]}], augment={"rotate_degrees": 180})
    assert whole.augment.rotate_degrees == 180


def test_the_schema_knows_the_presets():
    schema = Recipe.json_schema()["properties"]["augment"]
    assert {"enum": list(PRESETS)} in schema["anyOf"]


# The picture


def said(*arguments: object, code: int = 0) -> str:
    """What a command says on stderr."""
    return invoke(*arguments, code=code)[1]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    rows = ["id,image,label,split"]
    for case in phantoms(folder, "val", "train"):
        assert case.label is not None
        rows.append(f"{case.id},{case.images[0].name},{case.label.name},{case.split}")
    (folder / "cases.csv").write_text("\n".join(rows) + "\n")
    return folder / "cases.csv"


@pytest.mark.parametrize("dims", [2, 3])
def test_the_command_draws_a_patch_and_its_changes(manifest, tmp_path, dims):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(checked(tiny(dims), "full").yaml())
    picture, other = tmp_path / "augmented.png", tmp_path / "other.png"
    assert "case case_1, 15 random changes" in said("augment", recipe, manifest, "-o", picture)
    seen = images.imread(picture)
    assert seen.shape[1] == 768  # four tiles of 2.4 inches at 80 dots an inch
    assert near(seen, COLOURS[0]).size or near(seen, COLOURS[1]).size
    said("augment", recipe, manifest, "-o", other)
    assert other.read_bytes() == picture.read_bytes()
    said("augment", recipe, manifest, "-o", other, "--case", "case_0", "--seed", 1, "--count", 2)
    assert images.imread(other).shape[1] == 384


def test_cases_that_are_not_there_are_refused(manifest, tmp_path):
    picture = tmp_path / "augmented.png"
    assert "no case 'none'" in said(
        "augment", "lung_ct_2d", manifest, "-o", picture, "--case", "none", code=2
    )
    text = manifest.read_text().replace(",train", ",test")
    untrained = manifest.with_name("untrained.csv")
    untrained.write_text(text)
    assert "no case has split 'train'" in said("augment", "lung_ct_2d", untrained, "-o", picture, code=2)
    assert not picture.exists()


def near(picture: np.ndarray, colour: str) -> np.ndarray:
    wanted = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.argwhere(np.abs(picture[..., :3] - wanted).max(-1) < 0.12)


def test_samples_are_shown_as_radiologists_look_at_them(tmp_path):
    """What is right and in front (large x, large y) is drawn top left; what is unknown is outlined too."""
    label = np.zeros((1, 2, 20, 30), np.float32)
    label[0, 0, 14:18, 22:28] = 1
    label[0, 1, 2:5, 3:8] = -1
    gradient = np.linspace(0, 1, 600, dtype=np.float32).reshape(1, 20, 30)
    names = ["a", "b", "c", "d", "e", "f", "g"]
    picture = images.imread(
        samples(gradient, label, tmp_path / "s.png", names=names[:2], pixel_mm=(2.0, 1.0))
    )
    tile = picture[: picture.shape[0] - 45]
    rows, columns = near(tile, COLOURS[0]).T
    assert rows.mean() < tile.shape[0] / 2
    assert columns.mean() < tile.shape[1] / 2
    # 20 voxels of 2 mm are wider than 30 of 1 mm are high.
    assert tile.shape[1] / tile.shape[0] == pytest.approx(40 / 30, abs=0.05)
    assert near(tile, "#8A949E").size
    many = samples(
        np.zeros((3, 20, 30), np.float32),
        np.zeros((3, 7, 20, 30), np.float32),
        tmp_path / "m.png",
        names=names,
        pixel_mm=(1.0, 1.0),
    )
    assert many.is_file()
