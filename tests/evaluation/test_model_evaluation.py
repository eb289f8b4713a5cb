"""Masks of other tools against the truth: which labels are scored, and which files are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.commands import invoke
from support.layouts import series
from support.worlds import tiny

from medseg.datasets.manifest import Case
from medseg.errors import UsageError
from medseg.evaluation.model_evaluation import evaluate
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask, Volume
from medseg.system.notices import collect_notices

GRID = Grid.from_spacing((12, 10, 8), (2, 2, 2))
LESION = (Label(name="lesion", values=(1,)),)
SIDES = (Label(name="right_lung", values=(1,)), Label(name="left_lung", values=(2,)))


def lungs() -> np.ndarray:
    """Right lung (1) at larger x than the left lung (2), of unequal size."""
    array = np.zeros(GRID.shape, np.uint8)
    array[7:11, 2:8, 2:6], array[1:5, 2:8, 2:7] = 1, 2
    return array


def case(folder: Path, truth: np.ndarray, name: str = "c0") -> Case:
    (folder / "truth").mkdir(exist_ok=True)
    label = Mask(truth, GRID, ()).save(folder / "truth" / f"{name}.nii.gz")
    scan = Volume(np.zeros(GRID.shape, np.float32), GRID).save(folder / f"{name}_scan.nii.gz")
    return Case(id=name, images=(scan,), label=label)


def masks(folder: Path, array: np.ndarray, name: str = "c0.nii.gz", labels: tuple[Label, ...] = ()) -> Path:
    (folder / "masks").mkdir(exist_ok=True)
    Mask(array, GRID, labels).save(folder / "masks" / name)
    return folder / "masks"


def test_masks_are_scored_for_the_labels_that_the_recipes_model_paints(tmp_path: Path) -> None:
    """`lung_ct` learns one label and paints two sides: exchanged sides do not count as agreement."""
    exchanged = np.array([0, 2, 1], np.uint8)[lungs()]
    cases = [case(tmp_path, lungs())]
    table = evaluate(cases, masks=masks(tmp_path, exchanged), labels="lung_ct").table
    assert table[["label", "dice"]].values.tolist() == [["right_lung", 0], ["left_lung", 0]]
    same = evaluate(cases, masks=masks(tmp_path, lungs()), labels="lung_ct").table
    assert same["dice"].tolist() == [1, 1]


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".seg.nrrd", ".mha", ".mhd", ".hdr", ".nii.gz"])
def test_masks_of_every_format_are_found(tmp_path: Path, suffix: str) -> None:
    truth = (lungs() == 1).astype(np.uint8)
    folder = masks(tmp_path, truth, f"c0{suffix}", LESION)
    (folder / "c0.json").write_text("{}")
    (folder / "c01.nii.gz").write_text("another case")
    found = evaluate([case(tmp_path, truth)], masks=folder, labels=LESION)
    assert found.failures == {}
    assert found.table["dice"].tolist() == [1]


def test_a_missing_and_an_ambiguous_mask_fail_their_cases_only(tmp_path: Path) -> None:
    truth = (lungs() == 1).astype(np.uint8)
    cases = [case(tmp_path, truth, name) for name in ("c0", "c1", "c2")]
    masks(tmp_path, truth, "c0.nii.gz")
    masks(tmp_path, truth, "c2.nii.gz")
    folder = masks(tmp_path, truth, "c2.nrrd", LESION)
    found = evaluate(cases, masks=folder, labels=LESION)
    assert found.table["status"].tolist() == ["ok", "failed", "failed"]
    assert found.failures["c1"].startswith("not-found: ")
    assert "no mask is named c1" in found.failures["c1"]
    assert "2 masks could belong to case c2: c2.nii.gz, c2.nrrd" in found.failures["c2"]


@pytest.mark.parametrize(
    ("truth_value", "value", "message"),
    [
        (255, 1, "the truth of 1 of 1 cases has voxels with value 255"),
        (1, 10, "the prediction of 1 of 1 cases has voxels with value 10"),
        (1, 1, ""),
    ],
)
def test_values_of_no_label_are_reported(tmp_path: Path, truth_value: int, value: int, message: str) -> None:
    drawn = lungs() == 1
    folder = masks(tmp_path, (drawn * value).astype(np.uint8))
    cases = [case(tmp_path, (drawn * truth_value).astype(np.uint8))]
    with collect_notices() as notices:
        evaluate(cases, masks=folder, labels=LESION)
    matching = [notice for notice in notices if notice.reason == "values-without-label"]
    assert len(matching) == bool(message)
    assert all(message in each.text and "the labels are lesion (1)" in each.text for each in matching)
    assert all(each.path == "c0" for each in matching)


def test_equal_unknown_values_of_many_cases_are_one_notice_without_the_ignore_value(
    tmp_path: Path,
) -> None:
    truth = lungs()
    truth[0, 0, 0] = 9  # ignored
    cases = [case(tmp_path, truth, f"c{n}") for n in range(3)]
    for n in range(3):
        folder = masks(tmp_path, (lungs() > 0).astype(np.uint8) * 7, f"c{n}.nii.gz")
    recipe = tiny(labels=[{"name": "lungs", "values": [1, 2]}], ignore_value=9)
    with collect_notices() as notices:
        evaluate(cases, masks=folder, labels=recipe)
    (only,) = [notice for notice in notices if notice.reason == "values-without-label"]
    assert "the prediction of 3 of 3 cases has voxels with value 7" in only.text


def test_masks_need_labels_which_are_distinct(tmp_path: Path) -> None:
    cases = [case(tmp_path, lungs())]
    folder = masks(tmp_path, lungs())
    with pytest.raises(UsageError, match="--masks with --recipe or --label"):
        evaluate(cases, masks=folder)
    with pytest.raises(UsageError, match="share the same name"):
        evaluate(cases, masks=folder, labels=(*LESION, *LESION))


def test_the_command_takes_labels_without_a_recipe(tmp_path: Path) -> None:
    one = case(tmp_path, lungs())
    folder = masks(tmp_path, lungs())
    (tmp_path / "cases.csv").write_text(f"id,image,label\nc0,{one.images[0]},{one.label}\n")
    arguments = (
        "evaluate",
        tmp_path / "cases.csv",
        "--masks",
        folder,
        "--split",
        "all",
        "-o",
        tmp_path / "o",
    )
    out, _ = invoke(*arguments, "--label", "right=1,3", "--label", "left=2")
    assert [line.split(" | ")[0] for line in out.splitlines()[2:4]] == ["| right", "| left"]
    _, err = invoke(*arguments, "--label", "right=1", "--recipe", "lung_ct", code=2)
    assert "--masks with --recipe or --label" in err
    _, err = invoke(*arguments, "--label", "right", code=2)
    assert "cannot read a label from 'right'" in err


@pytest.mark.parametrize("format_", ["dicom-seg", "rtstruct"])
def test_dicom_masks_are_put_on_the_grid_of_their_scan(tmp_path: Path, format_: str) -> None:
    pytest.importorskip("highdicom")
    scan = series(tmp_path / "ct", 0)
    array = np.zeros(scan.grid.shape, np.uint8)
    array[5:15, 4:14, 2:5] = 1
    (tmp_path / "masks").mkdir()
    mask = Mask(array, scan.grid, LESION, scan.source)
    mask.save(tmp_path / "masks" / "c0.dcm", format=format_)
    truth = Mask(array, scan.grid, LESION).save(tmp_path / "truth.nii.gz")
    one = Case(id="c0", images=(tmp_path / "ct",), label=truth)
    found = evaluate([one], masks=tmp_path / "masks", labels=LESION)
    assert found.failures == {}
    assert found.table["dice"].tolist() == [1]


@pytest.mark.parametrize("annotated", [None, ("right_lung",)])
def test_a_label_that_no_truth_has_is_reported(tmp_path: Path, annotated: tuple[str, ...] | None) -> None:
    """Truths of both lungs as one label, as in many data sets, and masks with sides."""
    folder = masks(tmp_path, lungs())
    one = case(tmp_path, (lungs() > 0).astype(np.uint8)).model_copy(update={"annotated": annotated})
    with collect_notices() as notices:
        evaluate([one], masks=folder, labels=SIDES)
    found = [notice for notice in notices if notice.reason == "label-in-no-truth"]
    assert len(found) == (annotated is None)
    for notice in found:
        assert "no truth of 1 cases has a voxel of left_lung (in 1 predictions)" in notice.text
        assert "--label NAME=1,2" in notice.remedy


def test_labels_that_some_truth_has_are_not_reported(tmp_path: Path) -> None:
    """A patient with one lung beside others, and a label that neither truth nor mask has."""
    masks(tmp_path, lungs())
    folder = masks(tmp_path, lungs(), "c1.nii.gz")
    cases = [case(tmp_path, (lungs() == 1).astype(np.uint8)), case(tmp_path, lungs(), "c1")]
    with collect_notices() as notices:
        evaluate(cases, masks=folder, labels=[*SIDES, Label(name="lesion", values=(3,))])
    assert not [notice for notice in notices if notice.reason == "label-in-no-truth"]
