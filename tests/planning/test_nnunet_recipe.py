"""nnU-Net's plans as recipes: axes in the order of the body."""

from __future__ import annotations

import pytest

from medseg.errors import UsageError
from medseg.images.label import Label
from medseg.planning.fingerprint import CaseSize, Fingerprint, Intensities
from medseg.planning.nnunet_recipe import nnunet_recipe, plan_like_nnunet
from medseg.planning.structures import Structures

KNOWN = Structures(tuple(Label(name=f"l{n}", values=(n,)) for n in (1, 2)), True, "All.")


def data_set(spacing, shape, cases, modality="MR"):
    case = CaseSize(spacing_mm=spacing, stored=shape, shape=shape)
    channel = Intensities(name="a", mean=0, sd=1, median=0, minimum=-9e2, maximum=9e2, low=-500, high=300)
    return Fingerprint(name="s", modality=modality, cases=(case,) * cases, channels=(channel,))


def recipe(found, like="nnunet", configuration=None, memory_gb=None):
    start = {"name": "s", "modality": found.modality, "channels": ["a"]}
    start["labels"] = [label.model_dump(mode="json") for label in KNOWN.labels]
    plan = plan_like_nnunet(found, KNOWN, like=like, memory_gb=memory_gb, ignored=False)
    return nnunet_recipe(found, KNOWN, plan, like=like, configuration=configuration, start=start).recipe


CHEST = data_set((0.977, 0.977, 3.0), (512, 512, 136), 36, "CT")


def test_a_chest_as_in_the_reference_plan():
    made = recipe(CHEST)
    assert made.prepare.spacing_mm == (0.977, 0.977, 3.0)
    assert made.patch.size == (192, 192, 56)
    assert made.network.strides[1] == (2, 2, 1)
    assert made.network.kernels[0] == (3, 3, 1)
    assert (made.train.batch_size, made.train.epochs, made.train.steps_per_epoch) == (2, 1000, 250)
    assert made.network.deep_supervision == (1, 0.5, 0.25, 0.125)


def test_resenc_has_its_own_network():
    made = recipe(CHEST, "nnunet-resenc-l")
    assert made.network.kind == "residual_encoder_unet"
    assert made.patch.size == (256, 256, 80)


def test_the_longest_voxels_may_lie_along_any_axis():
    sagittal = recipe(data_set((3.0, 0.977, 0.977), (136, 512, 512), 36, "CT"))
    assert sagittal.patch.size == (56, 192, 192)
    assert sagittal.prepare.spacing_mm == (3.0, 0.977, 0.977)
    assert sagittal.network.strides[1] == (1, 2, 2)


def test_2d_keeps_the_distance_of_slices():
    made = recipe(data_set((0.8, 0.9, 3.0), (300, 400, 60), 9), configuration="2d")
    assert made.spatial_dims == 2
    assert made.prepare.spacing_mm == (0.8, 0.9, 3.0)
    assert made.patch.size[0] < made.patch.size[1]


def test_the_first_stage_of_a_cascade_is_coarser():
    full, low = recipe(CHEST), recipe(CHEST, configuration="3d_lowres")
    assert low.prepare.spacing_mm[0] > full.prepare.spacing_mm[0]


def test_what_cannot_be_expressed_is_refused():
    small = data_set((1.0, 1.0, 1.0), (36, 50, 35), 9)
    with pytest.raises(UsageError, match="use 2d, 3d_fullres") as refused:
        recipe(small, configuration="3d_lowres")
    assert refused.value.reason == "plan-configuration"
    with pytest.raises(UsageError, match="axial"):
        recipe(data_set((3.0, 0.9, 0.9), (60, 300, 300), 9), configuration="2d")


def test_memory_scales_the_patch():
    assert recipe(CHEST, memory_gb=4).patch.size < recipe(CHEST).patch.size


def test_training_and_intensities_are_those_of_nnunet():
    made = recipe(CHEST)
    intensity = made.prepare.intensity
    assert (intensity.low_hu, intensity.high_hu) == (-500, 300)
    assert (intensity.mean_hu, intensity.sd_hu) == (0, 1)
    assert made.augment.kind == "nnunet"
    # 192 / 56 = 3.4 > 3: turned in the plane only.
    assert (made.augment.flat_axis, made.augment.rotate_degrees) == (2, 180)
    assert (made.train.forced_foreground, made.train.foreground_fraction) == (True, 0.33)
    assert made.loss.batch_dice  # there is a low resolution as well
    assert not recipe(data_set((1.0, 1.0, 1.0), (36, 50, 35), 9)).loss.batch_dice
    assert recipe(CHEST, configuration="2d").loss.batch_dice
