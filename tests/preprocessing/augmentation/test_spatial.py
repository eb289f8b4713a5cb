from __future__ import annotations

import numpy as np
import pytest
import torch
from support.augmentation import OFF, some
from support.worlds import tiny

from medseg.images.label import Label
from medseg.preprocessing.augmentation import augment
from medseg.preprocessing.augmentation.interpolation import along, read_at
from medseg.preprocessing.augmentation.spatial import Deform, Flip, placement, positions
from medseg.preprocessing.label_classes import LabelClasses
from medseg.recipe import Augment
from medseg.recipe.augmentation import mirrored


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


def test_the_recipe_defines_mirror_images_of_labels():
    of = tiny(3, augment=OFF | {"flip_axes": [0]})  # right_lung and left_lung
    change = augment(of)
    size = of.patch.size
    right = torch.zeros(2, *size)
    right[0, : size[0] // 2] = 1
    given = {"image": right[:1].clone(), "label": right}
    hidden = []
    for seed in range(8):
        change.set_random_state(seed=seed)
        done = change(given)
        hidden.append(bool(done["label"][1].any()))
        # What is bright is what is labelled, whichever side it is on now.
        assert torch.equal(done["image"][0], done["label"].sum(0))
        assert done["label"][0].any() != done["label"][1].any()
    assert set(hidden) == {True, False}


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
def test_mirror_images_by_name(names, places):
    """A name with a colon has no side in the recipe; else its words say which."""
    labels = []
    for value, name in enumerate(names, 1):
        word = name.lower().replace("_", " ").replace("-", " ")
        side = "left" if "left" in word or "lt" in word.split() or "l" in word.split() else "right"
        labels.append(Label(name=name, values=(value,), side=None if name.endswith(":") else side))
    assert mirrored(labels) == places


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_rotation_by_90_degrees_agrees_with_numpy_in_2d(turns):
    image = some(5, 5)
    done = moved(image, placement([90 * turns], [1, 1], [0]))
    np.testing.assert_allclose(done, np.rot90(image.numpy(), turns, (0, 1)), atol=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_rotation_by_90_degrees_agrees_with_numpy_about_each_axis(axis):
    image = some(5, 5, 5)
    turns = [90.0 * (a == axis) for a in range(3)]
    done = moved(image, placement(turns, [1, 1, 1], [0, 0, 0]))
    expected = np.rot90(image.numpy(), 1, ((axis + 1) % 3, (axis + 2) % 3))
    np.testing.assert_allclose(done, expected, atol=1e-4)


def test_angles_are_those_of_the_patient_if_voxels_are_not_square():
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
    # 4 mm are two voxels of 2 mm: what was in voxel 0 is in voxel 2, and is repeated before it.
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
def test_displacements_stay_within_their_limits_and_never_fold(dims):
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


def test_matrices_are_applied_along_each_axis():
    values, matrix = some(2, 3, 4, 5), some(6, 4, seed=1)
    for axis, n in enumerate(values.shape):
        part = matrix[:, :1].expand(6, n) if n > 4 else matrix[:, :n]
        expected = np.moveaxis(np.tensordot(part.numpy(), values.numpy(), (1, axis)), 0, axis)
        np.testing.assert_allclose(along(values, part, axis), expected, atol=1e-5)


def test_classes_with_a_table_move_as_channels_do():
    of = tiny(3, augment=OFF | {"flip_axes": [0, 1], "rotate_degrees": 30, "elastic_mm": 8, "probability": 1})
    change, size = augment(of), of.patch.size
    labels = torch.randint(-1, 2, (2, *size), generator=torch.Generator().manual_seed(3))
    given = LabelClasses.from_channels(labels.numpy())
    table = torch.from_numpy(given.table)
    classes = {"label": torch.from_numpy(given.classes)[None], "table": table}
    for seed in range(6):
        change.set_random_state(seed=seed)
        expected = change({"image": some(1, *size), "label": labels.float()})
        change.set_random_state(seed=seed)
        done = change({"image": some(1, *size), **classes})
        assert torch.equal(done["image"], expected["image"])
        assert torch.equal(done["table"].T[:, done["label"][0].int()].float(), expected["label"])
