"""Cleaning steps of a finished mask, on label maps that can be counted by hand."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from support.worlds import tiny

from medseg.errors import UsageError
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask
from medseg.inference.cleaning_steps import cleaned
from medseg.recipe import CleaningStep, Postprocess

GRID = Grid.from_spacing((10, 8, 6), (1.0, 2.0, 5.0))  # a voxel has 10 mm3 = 0.01 ml
ORGAN, LESION = Label(name="organ", values=(1, 2)), Label(name="lesion", values=(2,))
A, B = Label(name="a", values=(1,)), Label(name="b", values=(2,))


def mask(array: np.ndarray, *labels: Label) -> Mask:
    return Mask(array.astype(np.uint8), GRID, labels)


def blocks() -> np.ndarray:
    array = np.zeros(GRID.shape, dtype=np.uint8)
    array[0:3, 0:3, 0:3] = 1  # 27 voxels
    array[3:5, 0:3, 0:3] = 2  # 18 voxels beside them
    array[8:10, 6:8, 4:6] = 2  # 8 voxels far away
    array[0, 7, 5] = 1  # 1 voxel far away
    return array


def test_only_the_label_of_the_step_is_cleaned() -> None:
    found = cleaned(mask(blocks(), A, B), [CleaningStep(labels=("b",), keep_components=1)])
    wanted = blocks()
    wanted[8:10, 6:8, 4:6] = 0
    np.testing.assert_array_equal(found.array, wanted)


def test_several_labels_are_cleaned_as_one() -> None:
    found = cleaned(mask(blocks(), A, B), [CleaningStep(labels=("a", "b"), keep_components=1)])
    wanted = blocks()
    wanted[8:10, 6:8, 4:6] = wanted[0, 7, 5] = 0
    np.testing.assert_array_equal(found.array, wanted)


def test_small_components_are_removed_by_volume_and_by_share() -> None:
    # 1 voxel = 0.01 ml; a tenth of 27 voxels is 2.7 voxels.
    for step in (CleaningStep(labels=("a",), min_volume_ml=0.02), CleaningStep(labels=("a",), min_share=0.1)):
        found = cleaned(mask(blocks(), A, B), [step])
        wanted = blocks()
        wanted[0, 7, 5] = 0
        np.testing.assert_array_equal(found.array, wanted)


def test_a_removed_lesion_becomes_the_organ_around_it() -> None:
    array = np.ones(GRID.shape)
    array[1:4, 1:4, 1:4], array[7, 5, 4] = 2, 2
    found = cleaned(mask(array, ORGAN, LESION), [CleaningStep(labels=("lesion",), keep_components=1)])
    assert found.array[7, 5, 4] == 1
    assert found.volumes_ml() == pytest.approx({"organ": 4.8, "lesion": 0.27})


def test_holes_are_filled_where_the_mask_is_background() -> None:
    array = np.zeros(GRID.shape)
    array[1:6, 1:6, 1:6] = 1
    array[2, 2, 2], array[4, 4, 4] = 0, 2  # a hole, and another label within
    found = cleaned(mask(array, A, B), [CleaningStep(labels=("a",), fill_holes=True)])
    assert found.array[2, 2, 2] == 1
    assert found.array[4, 4, 4] == 2


def test_the_order_of_the_axes_in_memory_does_not_matter() -> None:
    steps = [CleaningStep(labels=("b",), keep_components=1), CleaningStep(labels=("a",), min_share=0.5)]
    wanted = cleaned(mask(blocks(), A, B), steps).array
    for axes in permutations(range(3)):
        array = np.ascontiguousarray(blocks().transpose(axes)).transpose(np.argsort(axes))
        np.testing.assert_array_equal(cleaned(mask(array, A, B), steps).array, wanted)


def test_without_steps_a_recipe_keeps_its_yaml_and_its_digest() -> None:
    assert "steps" not in Postprocess().model_dump()
    assert "steps:" not in tiny().yaml()
    step = {"labels": ["right_lung"], "keep_components": 1}
    recipe = tiny(postprocess={"steps": [step]})
    assert type(recipe).parse(recipe.yaml()) == recipe
    assert str(recipe.postprocess.steps[0]) == "right_lung: keep_components 1"


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"labels": ["heart"], "keep_components": 1}, "heart"),
        ({"labels": ["right_lung"]}, "give keep_components"),
        ({"labels": ["right_lung", "left_lung"], "fill_holes": True}, "needs one label"),
        ({"labels": ["right_lung", "right_lung"], "keep_components": 1}, "must be different"),
    ],
)
def test_steps_that_make_no_sense_are_refused(step: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        tiny(postprocess={"steps": [step]})
