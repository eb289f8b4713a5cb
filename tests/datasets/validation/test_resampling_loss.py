"""What resampling leaves of labels: by hand, and as preparation itself leaves it."""

from __future__ import annotations

import numpy as np
import pytest
from support.worlds import tiny

from medseg.datasets.manifest import Case
from medseg.datasets.validation import check
from medseg.datasets.validation.resampling_loss import prepared_voxels
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask, Volume
from medseg.preprocessing.preparation import prepare

LESION = Label(name="lesion", values=(1,))
ORGAN = Label(name="organ", values=(2, 1))


def recipe(spacing: float | tuple[float, float, float], *labels: Label):
    spacing = spacing if isinstance(spacing, tuple) else (spacing,) * 3
    return tiny(
        labels=[label.model_dump() for label in labels], prepare={"spacing_mm": spacing, "crop": None}
    )


def blocks(size: int, shape: tuple[int, int, int] = (36, 36, 36)) -> np.ndarray:
    """Cubes of some voxels, at different places of the coarser grid."""
    array = np.zeros(shape, np.uint8)
    for n, start in enumerate(range(4, 28, 8)):
        array[start : start + size, start + n : start + n + size, start + 2 : start + 2 + size] = 1
    return array


def test_lesions_of_2_mm_vanish_at_3_mm_and_stay_at_1_mm():
    # A voxel of 3 mm has 27 mm3, of which a lesion of 8 mm3 fills at most 0.30.
    truth = Mask(blocks(2), Grid.from_spacing((36, 36, 36)), ())
    assert prepared_voxels(truth, (LESION,), (3, 3, 3)) == (0,)
    assert prepared_voxels(truth, (LESION,), (1, 1, 1)) == (3 * 8,)
    assert prepared_voxels(Mask(truth.array * 0, truth.grid, ()), (LESION,), (3, 3, 3)) == (0,)


@pytest.mark.parametrize("spacing", [(3.0, 3.0, 3.0), (2.0, 2.0, 5.0), (1.0, 0.8, 2.3), (0.5, 1.0, 1.0)])
@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAL"])
def test_it_equals_what_is_left_after_preparation(spacing, codes):
    rng = np.random.default_rng(0)
    array = blocks(4, (37, 36, 35))
    array[20:30, 3:12, 5:25] = 2
    array[0:2, 30:, 0] = 1  # at the edge of the scan
    array[rng.integers(0, 35, 20), rng.integers(0, 35, 20), rng.integers(0, 35, 20)] = 1
    truth = Mask(array, Grid.from_spacing(array.shape, (1.0, 0.9, 1.5)), ()).oriented(codes)
    wanted = recipe(spacing, LESION, ORGAN)
    scan = Volume(np.zeros(truth.grid.shape, np.float32), truth.grid)
    label = prepare(wanted, (scan,), truth).label
    exact = tuple(int((one == 1).sum()) for one in label)
    # float32 sums in another order may differ where a voxel is covered by exactly one half.
    found = prepared_voxels(truth, wanted.labels, spacing)
    assert found == pytest.approx(exact, abs=2, rel=0.01)


@pytest.fixture
def cases(tmp_path):
    def make(array: np.ndarray, split: str, name: str) -> Case:
        rng = np.random.default_rng(len(name))
        grid = Grid.from_spacing(array.shape)
        hu = np.where(np.indices(array.shape)[0] < 5, -1000, 40) + rng.normal(0, 10, array.shape)
        scan = Volume(hu.astype(np.float32) + sum(map(ord, name)) % 7, grid).save(tmp_path / f"{name}.nii.gz")
        return Case(
            id=name,
            images=(scan,),
            split=split,
            label=Mask(array, grid, ()).save(tmp_path / f"{name}_l.nii.gz"),
        )

    return make


def test_labels_that_resampling_removes_are_reported(cases):
    large, small = np.zeros((36, 36, 36), np.uint8), blocks(2)
    large[8:28, 8:28, 8:28] = 1
    made = [cases(large, "train", "large"), cases(small, "train", "small"), cases(large, "val", "valid")]
    report = check(made, recipe(3.0, LESION))
    (finding,) = [each for each in report.findings if each.code.startswith("label-lost")]
    assert (finding.case, finding.code, finding.severity) == ("small", "label-lost", "warning")
    assert (
        "lesion has 24 voxel(s) (0.024 ml), but nothing is left after resampling to 3 x 3 x 3 mm"
        in finding.problem
    )
    assert not any(each.code == "label-lost" for each in check(made, recipe(1.0, LESION)).findings)


def test_thin_structures_that_shrink_are_reported(cases):
    # A sheet of 2 mm is cut at one half of 3.5 mm: where it straddles two prepared slices nothing is left.
    sheet = np.zeros((36, 36, 36), np.uint8)
    sheet[4:32, 4:32, ::9] = 1
    codes = {
        each.code for each in check([cases(sheet, "test", "sheet")], recipe((1.0, 1.0, 4.0), LESION)).findings
    }
    assert "label-lost" in codes


def test_a_label_that_is_lost_in_all_training_cases_is_an_error(cases):
    made = [cases(blocks(2), "train", f"c{n}") for n in range(2)] + [cases(blocks(2), "val", "v")]
    findings = check(made, recipe(3.0, LESION)).findings
    error = next(each for each in findings if each.severity == "error" and each.code.startswith("label"))
    assert error.code == "label-lost-everywhere"
    assert (
        "nothing of label lesion is left after resampling to 3 x 3 x 3 mm in any of the 2 training cases"
        in error.problem
    )
    assert [each.case for each in findings if each.code == "label-lost"] == ["c0", "c1", "v"]
