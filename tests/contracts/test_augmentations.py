"""The contract of every augmentation in the registry, in 2D and 3D.

A row that is added needs a line in `ON`; `test_every_field_has_its_row` says so.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from support.worlds import tiny

from medseg.preprocessing.augmentation import REGISTRY, augment
from medseg.recipe import Augment, Recipe

ON: dict[str, Any] = {
    "flip_axes": [0, 1],
    "rotate_degrees": 40,
    "scale": 0.3,
    "shear": 0.3,
    "translate_mm": 20,
    "elastic_mm": 30,
    "noise_sd": 0.2,
    "blur_voxels": 2,
    "gamma": 0.5,
    "brightness": 0.3,
    "contrast": 0.4,
    "low_resolution": 0.8,
    "bias_field": 1,
    "ghosting": 1,
    "motion_mm": 40,
    "cutout": 0.6,
    "clip": True,
}
OFF = {field: type(value)() for field, value in ON.items()}
ROWS = [(kind, field) for kind, row in REGISTRY.items() for field in row.fields]
GEOMETRY = ("flip", "deform")
NOT_DRAWN = ("clip",)

each_row = pytest.mark.parametrize(("kind", "field"), ROWS, ids=lambda name: name)
in_2d_and_3d = pytest.mark.parametrize("dims", [2, 3])


def recipe(dims: int, channels: int = 1, **fields: Any) -> Recipe:
    rules = OFF | {"elastic_grid_mm": 80, "probability": 1} | fields
    return tiny(
        dims,
        modality="MR",
        channels=["T1", "T2"][:channels],
        prepare={"spacing_mm": [8, 8, 10], "intensity": {"kind": "percentile"}},
        augment=rules,
    )


def patch(of: Recipe, seed: int = 0) -> dict[str, torch.Tensor]:
    """Intensities around 0..1, some outside; labels of 1, 0 and -1 without any symmetry."""
    random = torch.Generator().manual_seed(seed)
    size = of.patch.size
    image = 0.5 + 0.5 * torch.randn(of.in_channels, *size, generator=random)
    return {"image": image, "label": torch.randint(-1, 2, (2, *size), generator=random).float()}


def changed(of: Recipe, given: dict[str, torch.Tensor], seed: int = 1) -> dict[str, torch.Tensor]:
    change = augment(of)
    change.set_random_state(seed=seed)
    return change(given)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[key], other[key]) for key in ("image", "label"))


def global_states() -> tuple[bytes, bytes]:
    numpy = np.random.get_state(legacy=False)["state"]["key"]  # noqa: NPY002  # what must not change
    return numpy.tobytes(), torch.get_rng_state().numpy().tobytes()


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def test_every_field_has_its_row():
    fields = [field for row in REGISTRY.values() for field in row.fields]
    assert sorted(fields) == sorted(ON)
    assert set(Augment.model_fields) == {*fields, "elastic_grid_mm", "probability", "kind", "larger_cut"}


@in_2d_and_3d
def test_nothing_changes_if_everything_is_off(dims):
    of = recipe(dims)
    given = patch(of)
    assert augment(of).transforms == ()
    assert same(changed(of, given), given)


@each_row
@in_2d_and_3d
def test_it_changes_the_patch_and_nothing_else(kind, field, dims):
    of = recipe(dims, **{field: ON[field]})
    given = patch(of)
    before = {key: values.clone() for key, values in given.items()}
    all_done = [changed(of, given, seed) for seed in range(8)]
    assert same(given, before)  # the input is left as it was
    assert any(not torch.equal(done["image"], given["image"]) for done in all_done)
    for done in all_done:
        assert done["image"].shape == given["image"].shape
        assert done["image"].dtype == done["label"].dtype == torch.float32
        assert torch.isfinite(done["image"]).all()
        assert set(done["label"].unique().tolist()) <= {-1.0, 0.0, 1.0}
        if kind not in GEOMETRY:
            assert torch.equal(done["label"], given["label"])


@each_row
@in_2d_and_3d
def test_it_depends_on_the_seed_alone(kind, field, dims):
    of = recipe(dims, **{field: ON[field]})
    given = patch(of)
    before = global_states()
    change = augment(of)
    change(given)  # what was drawn before must not matter
    change.set_random_state(seed=3)
    first = change(given)
    copied = pickle.loads(pickle.dumps(augment(of)))  # as for a worker
    copied.set_random_state(seed=3)
    assert same(first, copied(given))
    others = [changed(of, given, seed) for seed in range(8)]
    assert any(not same(first, other) for other in others) or kind in NOT_DRAWN
    assert before == global_states()


@pytest.mark.parametrize("size", [(148, 96), (40, 56, 40)], ids=["2d", "3d"])
def test_the_number_of_threads_does_not_matter(size):
    dims = len(size)
    all_on = {field: ON[field] for field in ON if field != "clip"}
    of = recipe(dims, **all_on).model_copy(
        update={"patch": tiny(dims).patch.model_copy(update={"size": size})}
    )
    given = patch(of)
    done = []
    for count in (1, 2, 3):
        with threads(count):
            done.append(changed(of, given))
    assert same(done[0], done[1])
    assert same(done[0], done[2])


@each_row
@in_2d_and_3d
def test_a_constant_patch_stays_finite_and_its_labels_too(kind, field, dims):
    of = recipe(dims, **{field: ON[field]})
    size = of.patch.size
    for value in (0.0, 0.7):
        given = {"image": torch.full((of.in_channels, *size), value), "label": torch.full((2, *size), -1.0)}
        for seed in range(4):
            done = changed(of, given, seed)
            assert torch.isfinite(done["image"]).all()
            assert torch.equal(done["label"], given["label"])
            if field not in ("noise_sd", "brightness", "contrast"):
                torch.testing.assert_close(done["image"], given["image"], atol=1e-6, rtol=0)


@each_row
def test_neighbouring_slices_change_together(kind, field):
    """Three equal slices of two scan channels stay equal under every augmentation."""
    of = recipe(2, channels=2, **{field: ON[field]})
    one = patch(of)["image"][:2]
    given = {"image": torch.cat([one] * 3), "label": patch(of)["label"]}
    for seed in range(8):
        slices = changed(of, given, seed)["image"].reshape(3, 2, *of.patch.size)
        if kind == "noise":  # each voxel has its own, of one standard deviation
            sd = (slices - one).std(dim=(2, 3))
            torch.testing.assert_close(sd, sd[:1].expand(3, 2), rtol=0.15, atol=0)
        else:
            # To rounding: a product of matrices may round the last rows otherwise.
            torch.testing.assert_close(slices, slices[:1].expand_as(slices), rtol=0, atol=1e-5)


@each_row
@in_2d_and_3d
def test_scan_channels_change_on_their_own_and_move_together(kind, field, dims):
    """Both scan channels hold the same picture: geometry keeps them equal, intensity does not."""
    of = recipe(dims, channels=2, **{field: ON[field]})
    one = patch(recipe(dims))["image"][:1]
    given = {"image": one.expand(of.in_channels, *of.patch.size).clone(), "label": patch(of)["label"]}
    together = []
    for seed in range(8):
        image = changed(of, given, seed)["image"]
        together.append(torch.equal(image[0], image[1]))
    assert all(together) == (kind in (*GEOMETRY, *NOT_DRAWN, "cutout"))


@pytest.mark.parametrize("kind", [kind for kind in REGISTRY if kind not in ("flip", *NOT_DRAWN)])
@in_2d_and_3d
def test_with_probability_0_nothing_changes(kind, dims):
    fields = {field: ON[field] for field in REGISTRY[kind].fields}
    of = recipe(dims, **fields, probability=0)
    given = patch(of)
    assert all(same(changed(of, given, seed), given) for seed in range(4))


@in_2d_and_3d
def test_probability_is_how_often(dims):
    """Binomial, n = 400, p = 0.3: 120, standard deviation 9.2; 4 of them are allowed."""
    of = recipe(dims, brightness=0.1, probability=0.3)
    given = patch(of)
    count = sum(not torch.equal(changed(of, given, seed)["image"], given["image"]) for seed in range(400))
    assert abs(count - 120) < 37


@in_2d_and_3d
def test_no_voxel_is_copied_to_another_device(dims):
    """Tensors of torch's `meta` device cannot be read back, so copying voxels to the CPU would fail."""
    of = recipe(dims, **{field: ON[field] for field in ON if field != "noise_sd"})
    given = {key: values.to("meta") for key, values in patch(of).items()}
    done = changed(of, given)
    assert done["image"].device.type == done["label"].device.type == "meta"
    assert done["image"].shape == given["image"].shape
