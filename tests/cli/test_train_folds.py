"""``medseg train`` with --folds, --fold, --from and --max-time, and the report of a cross-validation."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import invoke
from support.worlds import phantoms, tiny, untrained

from medseg.datasets.manifest import Manifest
from medseg.inference.model import Model
from medseg.recipe import Recipe
from medseg.training import provenance

pytestmark = pytest.mark.filterwarnings("ignore:.*belongs to no label:medseg.errors.InputWarning")
FAST = ("-d", "cpu", "--workers", 0)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    recipe, cases = tmp_path / "tiny.yaml", tmp_path / "cases.csv"
    recipe.write_text(tiny(train={"steps_per_epoch": 1, "epochs": 1}).yaml())
    Manifest("tiny", tuple(phantoms(tmp_path, "train", "train"))).write(cases)
    return recipe, cases


def test_folds_start_from_a_model_and_are_reported(files: tuple[Path, Path], tmp_path: Path) -> None:
    source, cv = tmp_path / "source.safetensors", tmp_path / "cv"
    untrained(tiny()).save(source)
    command = ("train", *files, "-o", cv, "--folds", 2, "--from", source, *FAST)
    out, err = invoke(*command, "--fold", 1)
    assert "other folds are not finished" in out
    assert "fold 1, epoch 1/1" in err
    invoke("report", cv)
    text = (cv / "report.html").read_text()
    assert "not begun" in text
    assert "The scores follow when all folds are finished" in text
    out, err = invoke(*command, "--resume")
    assert "right_lung: out-of-fold Dice" in out
    assert "with 2 folds" in out
    assert "fold 0, epoch 1/1" in err
    assert "fold 1, epoch" not in err
    for fold in range(2):
        assert provenance.read(cv / f"fold_{fold}").facts["source"]["digest"] == Model.load(source).digest
    text = (cv / "report.html").read_text()
    for words in ("Out of fold", "right lung", "Scores by fold", "Worst cases", "data:image/png;base64,"):
        assert words in text
    assert "not begun" not in text
    out, _ = invoke("report", cv)
    assert out == f"{cv / 'report.html'}\n"
    _, err = invoke("train", *files, "-o", cv, "--folds", 3, "--resume", *FAST, code=2)
    assert "--folds is 3, but this cross-validation has 2 folds" in err


def test_fold_alone_needs_folds(files: tuple[Path, Path], tmp_path: Path) -> None:
    _, err = invoke("train", *files, "-o", tmp_path / "cv", "--fold", 0, code=2)
    assert "--fold needs --folds" in err
    _, err = invoke("train", *files, "-o", tmp_path / "cv", "--folds", 2, "--fold", 2, *FAST, code=2)
    assert "there is no fold 2" in err


def test_a_fold_of_a_folder_takes_the_recipe_that_was_planned(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, cv = tmp_path / "data", tmp_path / "cv"
    folder.mkdir()
    planned, cases = tmp_path / "cv.yaml", tmp_path / "cv.cases.csv"  # beside the folder of the training
    files[0].rename(planned)
    files[1].rename(cases)
    recipe = planned.read_bytes()
    command = ("train", folder, "-o", cv, "--folds", 2, "--max-time", "1s", *FAST)
    _, err = invoke(*command, code=2)  # all folds: nothing says that this is the same cross-validation
    assert "replaces nothing" in err
    out, _ = invoke(*command, "--fold", 0)
    assert "other folds are not finished" in out
    out, _ = invoke(*command, "--fold", 1)
    assert "with 2 folds" in out
    assert planned.read_bytes() == recipe
    assert Model.load(cv / "fold_0" / "model.safetensors").recipe == Recipe.read(planned)
