"""medseg's own plan: what a data set leads to, by hand."""

from __future__ import annotations

from math import prod

import pytest

from medseg.images.label import Label
from medseg.planning.default_plan import budget, default_recipe
from medseg.planning.fingerprint import CaseSize, Fingerprint, Intensities, LabelSize
from medseg.planning.structures import Structures

GIB = 1 << 30


def data_set(*, spacing, shape, modality="MR", stored=None, thin=(40.0, 40.0, 40.0), cases=20):
    case = CaseSize(spacing_mm=spacing, stored=stored or shape, shape=shape)
    channel = Intensities(name="a", mean=0, sd=1, median=0, minimum=-9e2, maximum=9e2, low=-500, high=300)
    label = LabelSize(
        value=1, name="organ", cases=cases, median_ml=100, smallest_ml=9, parts=20, thin_mm=thin
    )
    return Fingerprint(
        name="s", modality=modality, cases=(case,) * cases, channels=(channel,), labels=(label,)
    )


def planned(found, device="cpu", memory=8 * GIB, labels=1):
    named = tuple(Label(name=f"l{n}", values=(n,)) for n in range(1, labels + 1))
    known = Structures(named, labels > 1, "All.")
    start = {"name": "s", "modality": found.modality, "channels": ["a"]}
    start["labels"] = [label.model_dump(mode="json") for label in named]
    return default_recipe(found, known, budget(device, memory), start)


CHEST = {"spacing": (0.8, 0.8, 2.5), "shape": (512, 512, 130), "modality": "CT"}


def test_a_small_case_is_one_patch_at_its_own_spacing():
    recipe = planned(data_set(spacing=(1.0, 1.0, 1.0), shape=(36, 50, 35)), labels=2).recipe
    assert recipe.prepare.spacing_mm == (1, 1, 1)
    assert recipe.patch.size == (40, 56, 40)
    assert recipe.network.widths == (16, 32, 64, 128)
    assert recipe.exclusive
    assert recipe.train.precision == "fp32"


def test_a_large_case_gets_coarser_voxels_until_a_patch_covers_an_eighth():
    recipe = planned(data_set(**CHEST)).recipe
    x, y, z = recipe.prepare.spacing_mm
    assert x == y > 0.8
    voxels = prod(
        n * old / new for n, old, new in zip((512, 512, 130), (0.8, 0.8, 2.5), (x, y, z), strict=True)
    )
    assert prod(recipe.patch.size) >= 0.11 * voxels
    assert 2 * prod(recipe.patch.size) <= 1.2 * 2**18
    assert recipe.prepare.crop is not None


def test_small_structures_keep_voxels_fine():
    draft = planned(data_set(**CHEST, thin=(6.0, 6.0, 6.0)))
    assert max(draft.recipe.prepare.spacing_mm[:2]) <= 2.0  # three voxels across 6 mm
    assert draft.recipe.prepare.spacing_mm[2] == 2.5  # never finer than the data
    assert "as far as the small structures allow" in draft.reasons["prepare.spacing_mm"]


@pytest.mark.parametrize(
    ("spacing", "shape", "dims"),
    [
        ((1.0, 1.0, 3.3), (200, 200, 40), 3),
        ((0.6, 0.6, 4.0), (105, 81, 15), 2),
        ((1.0, 1.0, 1.0), (200, 200, 5), 2),
    ],
)
def test_thick_or_few_slices_are_segmented_in_2d(spacing, shape, dims):
    recipe = planned(data_set(spacing=spacing, shape=shape)).recipe
    assert recipe.spatial_dims == dims
    assert recipe.patch.neighbours == (1 if dims == 2 else 0)


def test_a_single_slice_has_no_neighbours():
    assert planned(data_set(spacing=(1.0, 1.0, 1.0), shape=(300, 200, 1))).recipe.patch.neighbours == 0


def test_long_voxels_are_not_halved_at_first():
    network = planned(data_set(spacing=(1.0, 1.0, 3.3), shape=(96, 96, 24))).recipe.network
    assert network.strides[1] == (2, 2, 1)
    assert network.kernels[0] == (3, 3, 1)


def test_a_gpu_gets_more():
    small, large = (planned(data_set(**CHEST), device).recipe for device in ("cpu", "gpu"))
    assert prod(large.patch.size) > 4 * prod(small.patch.size)
    assert large.network.widths[0] == 32


def test_less_memory_makes_smaller_patches():
    found = data_set(**CHEST)
    assert prod(planned(found, memory=GIB // 8).recipe.patch.size) < prod(planned(found).recipe.patch.size)


def test_ct_is_windowed_to_its_foreground():
    intensity = planned(data_set(**CHEST)).recipe.prepare.intensity
    assert (intensity.low_hu, intensity.high_hu) == (-500, 300)


def test_a_z_score_of_a_mostly_empty_scan_is_that_of_its_voxels():
    whole = data_set(spacing=(1.0, 1.0, 1.0), shape=(60, 60, 60))
    sparse = data_set(spacing=(1.0, 1.0, 1.0), shape=(60, 60, 60), stored=(80, 80, 60))
    assert not planned(whole).recipe.prepare.intensity.nonzero
    assert planned(sparse).recipe.prepare.intensity.nonzero


def test_every_decision_has_a_reason():
    draft = planned(data_set(**CHEST))
    decided = {
        "labels",
        "prepare.spacing_mm",
        "prepare.crop",
        "prepare.intensity",
        "patch",
        "network",
        "loss",
    }
    assert decided | {"augment", "train"} <= draft.reasons.keys()
