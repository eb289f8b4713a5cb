"""A label is added to a trained model with cases that are annotated for it alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import medseg
from medseg.datasets.manifest import Case
from medseg.errors import UsageError
from medseg.inference.model import Model
from medseg.recipe import Recipe
from medseg.training import session
from medseg.training.kept_labels import FOLDER, missing_labels, values
from medseg.training.trainer import Hardware, TrainingOptions, train

CPU = Hardware(workers=0)
GRID = medseg.Grid.from_spacing((24, 24, 24), (2.0, 2.0, 2.0))
NAMES = ("one", "two", "three")
pytestmark = pytest.mark.filterwarnings("ignore::medseg.errors.InputWarning")


def recipe(count: int, **train: object) -> Recipe:
    return Recipe.checked(
        {
            "name": "blobs",
            "modality": "MR",
            "channels": ["T1"],
            "labels": [{"name": name, "values": [n]} for n, name in enumerate(NAMES[:count], start=1)],
            "prepare": {"spacing_mm": [2, 2, 2], "intensity": {"kind": "zscore", "nonzero": False}},
            "patch": {"size": [8, 8, 8]},
            "network": {"widths": [8, 8], "norm": "batch"},
            "loss": {"kind": "dice_ce"},
            "augment": "none",
            "train": {
                "epochs": 4,
                "steps_per_epoch": 40,
                "batch_size": 8,
                "learning_rate": 0.02,
                "validate_every": 4,
                **train,
            },
        }
    )


def blobs(folder: Path, seed: int, split: str, *labels: int) -> Case:
    """A scan with three balls of different intensity, and a label map with some of them."""
    random = np.random.default_rng(seed)
    array, at = np.zeros(GRID.shape, np.uint8), np.stack(np.indices(GRID.shape), -1)
    centres = random.permutation([[6, 6, 6], [17, 17, 6], [6, 17, 17], [17, 6, 17]])[:3]
    for value, centre in enumerate(centres + random.integers(-1, 2, (3, 3)), start=1):
        array[np.linalg.norm(at - centre, axis=-1) < 4.5] = value
    scan = np.array([500.0, 100.0, 1500.0, 900.0])[array] + random.normal(0, 30, array.shape)
    image, label = folder / f"{seed}.nii.gz", folder / f"{seed}_label.nii.gz"
    medseg.Volume(scan.astype(np.float32), GRID).save(image)
    kept = np.where(np.isin(array, labels), array, 0).astype(np.uint8)
    names = tuple(medseg.Label(name=NAMES[n - 1], values=(n,)) for n in (1, 2, 3))
    medseg.Mask(kept, GRID, names).save(label)
    annotated = None if len(labels) > 1 else tuple(NAMES[n - 1] for n in labels)
    return Case(id=f"case_{seed}", images=(image,), label=label, split=split, annotated=annotated)  # type: ignore[arg-type]  # a split


def dice(model: Model, case: Case, value: int) -> float:
    found = medseg.Segmenter(model, device="cpu", engine="torch")(medseg.read(case.images[0])).array == value
    truth = medseg.read(case.label).array == value
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model, list[Case], list[Case]]:
    """A model of two labels, four cases with the third alone, and test cases with all three."""
    folder = tmp_path_factory.mktemp("blobs")
    first = [blobs(folder, seed, "train", 1, 2) for seed in range(6)]
    old = train(recipe(2), first, folder / "old", hardware=CPU)
    few = [blobs(folder, seed, "train", 3) for seed in range(10, 14)]
    return folder, old, few, [blobs(folder, seed, "test", 1, 2, 3) for seed in range(20, 24)]


def test_the_new_label_is_learned_and_the_old_ones_are_kept(world) -> None:
    folder, old, few, test = world
    kept = Recipe.checked(FINE)
    new = train(kept, few, folder / "new", hardware=CPU, options=TrainingOptions(source=old))
    for value in (1, 2):
        before, after = (np.mean([dice(model, case, value) for case in test]) for model in (old, new))
        assert before > 0.85
        assert after > before - 0.02
    assert np.mean([dice(new, case, 3) for case in test]) > 0.85
    facts = json.loads((folder / "new" / "run.json").read_text())["source"]["pseudo_labels"]
    assert facts == {case.id: ["one", "two"] for case in few}
    assert new.provenance["source"]["pseudo_labels"] == facts


def test_the_annotation_takes_precedence_over_the_model(world) -> None:
    folder, old, few, _ = world
    made = few[0].model_copy(update={"id": "overlap"})
    everywhere = np.full(GRID.shape, 3, np.uint8)
    everywhere[:20] = 0
    made = made.model_copy(update={"label": folder / "half.nii.gz"})
    medseg.Mask(everywhere, GRID, (medseg.Label(name="three", values=(3,)),)).save(made.label)
    short = Recipe.checked(json.loads(recipe(3, epochs=1, steps_per_epoch=1).model_dump_json()) | FINE_ONLY)
    first = train(short, [made], folder / "half", hardware=CPU, options=TrainingOptions(source=old))
    again = session.rerun(folder / "half", folder / "again", hardware=CPU, progress=False)
    assert again.digest == first.digest
    combined = medseg.read(folder / "half" / FOLDER / "overlap.nii.gz").array
    predicted = medseg.Segmenter(old, device="cpu", engine="torch")(medseg.read(made.images[0])).array
    assert (combined[20:] == 3).all()
    np.testing.assert_array_equal(combined[:20], predicted[:20])
    assert (combined[:20] > 0).any()


def test_what_cannot_be_kept_is_refused(world) -> None:
    _, old, few, _ = world
    whole = [case.model_copy(update={"annotated": None}) for case in few]
    with pytest.raises(UsageError, match="column annotated") as caught:
        missing_labels(whole, recipe(3), old.recipe)
    assert caught.value.reason == "keep-labels"
    merged = Recipe.checked(
        json.loads(recipe(2).model_dump_json())
        | {"labels": [{"name": "one", "values": [3, 1]}, {"name": "two", "values": [1, 3]}]}
        | {"loss": {"kind": "dice_bce"}}
    )
    with pytest.raises(UsageError, match="no value of the recipe's labels stands for one alone"):
        values(merged, old.recipe, ["one", "two"])


def test_values_of_the_model_become_those_of_the_recipe() -> None:
    other = [{"name": "two", "values": [7]}, {"name": "one", "values": [2]}, {"name": "new", "values": [1]}]
    target = Recipe.checked(json.loads(recipe(2).model_dump_json()) | {"labels": other})
    assert values(target, recipe(2), ["one", "two"]) == {1: 2, 2: 7}
    assert values(target, recipe(2), ["two"]) == {2: 7}


FINE_ONLY = {"fine_tune": {"keep_labels": True}}
FINE = json.loads(recipe(3).model_dump_json()) | FINE_ONLY
