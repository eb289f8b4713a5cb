"""The Dice against the number of training cases."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from support.worlds import phantoms, tiny

from medseg.cross_validation.learning_curve import TABLE, _order, learning_curve
from medseg.datasets.manifest import Case
from medseg.errors import UsageError
from medseg.inference.model import Model
from medseg.training.hardware import Hardware

CPU = Hardware("cpu", workers=0)
RECIPE = tiny(train={"epochs": 1, "steps_per_epoch": 1})
pytestmark = pytest.mark.filterwarnings("ignore::medseg.errors.InputWarning")


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    made: list[Case] = phantoms(tmp_path_factory.mktemp("cases"), "train", "train", "val")
    return made


def test_subsets_are_nested_and_a_curve_is_continued(cases: list[Case], tmp_path: Path) -> None:
    folder, epochs = tmp_path / "curve", []

    def ended(size: int, end: object) -> None:
        epochs.append(size)

    table = learning_curve(RECIPE, cases, folder, sizes=[1], hardware=CPU, on_epoch=ended)
    assert table["cases"].unique().tolist() == [1]
    table = learning_curve(RECIPE, cases, folder, sizes=[2, 1], hardware=CPU, on_epoch=ended)
    assert epochs == [1, 2]  # the first size was not trained again
    used = [
        set(Model.load(folder / f"cases_000{size}" / "model.safetensors").provenance["train_cases"])
        for size in (1, 2)
    ]
    assert (len(used[0]), len(used[1])) == (1, 2)
    assert used[0] < used[1]
    assert set(table["label"]) >= {"right_lung", "left_lung"}
    first, second = (table[(table["label"] == "right_lung") & (table["cases"] == n)].iloc[0] for n in (1, 2))
    assert pd.isna(first["gain"])
    assert second["gain"] == pytest.approx(second["dice_mean"] - first["dice_mean"])
    assert (folder / TABLE).read_text().count("\n") == 1 + len(table)


def test_impossible_sizes_and_changes_are_refused(cases: list[Case], tmp_path: Path) -> None:
    for listed, sizes in ((cases, [3]), (cases[:2], [1]), (cases, [0, 1]), (cases, [])):
        with pytest.raises(UsageError) as caught:
            learning_curve(RECIPE, listed, tmp_path / "none", sizes=sizes, hardware=CPU)
        assert caught.value.reason == "curve-cases"
    (tmp_path / "curve").mkdir()
    (tmp_path / "curve" / "subsets.json").write_text('{"recipe_digest": "other"}')
    with pytest.raises(UsageError, match="recipe_digest") as caught:
        learning_curve(RECIPE, cases, tmp_path / "curve", sizes=[1], hardware=CPU)
    assert caught.value.reason == "curve-changed"


def test_cases_of_a_patient_stay_together() -> None:
    made = [
        Case(id=f"{patient}{n}", patient=patient, images=(Path("a"),), label=Path("b"), split="train")
        for n in range(2)
        for patient in "abc"
    ]
    val = Case(id="v", images=(Path("a"),), label=Path("b"), split="val")
    order, _ = _order([*made, val], RECIPE, [1])
    assert [a.patient for a in order[::2]] == [b.patient for b in order[1::2]]
