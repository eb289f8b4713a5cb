"""What resampling leaves of labels: by hand, and as preparation itself leaves it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from support.worlds import tiny

from medseg.datasets.manifest import Case
from medseg.datasets.validation import Facts, apply_case_rules, check
from medseg.datasets.validation.resampling_loss import Remains, remains
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask, Volume
from medseg.preprocessing.preparation import prepare
from medseg.training.case_cache import cached

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
    assert remains(truth, (LESION,), (3, 3, 3)) == (Remains(0, parts=3, lost=3),)
    assert remains(truth, (LESION,), (1, 1, 1)) == (Remains(3 * 8, parts=3, lost=0),)
    assert remains(Mask(truth.array * 0, truth.grid, ()), (LESION,), (3, 3, 3)) == (Remains(0, 0, 0),)


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SAL", "PIR"])
def test_each_lesion_counts_whatever_the_others_keep(codes):
    # Voxels of 1 x 1 x 2 mm, prepared at 3 x 3 x 3: the cube of 12 mm is kept; a lesion of 2 x 2 x 2 mm fills
    # 8 of 27 mm3, one of 1 x 1 x 8 mm no more than a ninth of any voxel, one of 6 x 6 x 6 mm a whole voxel.
    array = np.zeros((48, 48, 30), np.uint8)
    array[4:16, 4:16, 2:8] = 1
    array[30:32, 8:10, 4], array[40, 40, 10:14], array[20:26, 30:36, 20:23] = 1, 1, 1
    array[17:19, 17:19, 8] = 1  # near the cube, but not connected to it
    truth = Mask(array, Grid.from_spacing(array.shape, (1.0, 1.0, 2.0)), ()).oriented(codes)
    (left,) = remains(truth, (LESION,), (3, 3, 3))
    assert (left.parts, left.lost) == (5, 3)
    (whole,) = remains(truth, (LESION,), (1, 1, 2))
    assert whole == Remains(int(array.sum()), 5, 0)
    # The line of 1 x 1 x 8 mm is 16.5 voxels from the middle, 23.57 steps of 0.7 mm: 0.3 mm off the nearest
    # prepared line along x and y, where interpolation leaves 0.7 x 0.7 = 0.49 of it, less than one half.
    (finer,) = remains(truth, (LESION,), (0.7, 0.7, 0.9))
    assert (finer.parts, finer.lost) == (5, 1)


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
    found = remains(truth, wanted.labels, spacing)
    assert tuple(each.voxels for each in found) == exact
    for one, each, label_of in zip(label, found, wanted.labels, strict=True):
        before, count = ndimage.label(np.isin(truth.array, label_of.values), np.ones((3, 3, 3)))
        specks = int((np.bincount(before.ravel())[1:] == 1).sum())
        assert each.parts == count - specks
        _, after = ndimage.label(one == 1, np.ones((3, 3, 3)))
        # Parts cannot split at these spacings, but can merge: what is not lost is there.
        assert each.parts + specks - each.lost >= after


def exclusive(spacing: float, count: int):
    labels = [{"name": f"part_{value}", "values": [value]} for value in range(1, count + 1)]
    return tiny(labels=labels, loss={"kind": "dice_ce"}, prepare={"spacing_mm": (spacing,) * 3, "crop": None})


def prepared_voxels(wanted, truth: Mask) -> tuple[int, ...]:
    scan = Volume(np.zeros(truth.grid.shape, np.float32), truth.grid)
    label = prepare(wanted, (scan,), truth).label
    assert label is not None
    return tuple(int((one == 1).sum()) for one in label)


def test_an_exclusive_label_that_loses_a_tie_is_lost():
    # 1 x 2 x 2 voxels of 1 mm fill one half of one prepared voxel of 2 mm, and the label around it the other
    # half. Equal shares take turns, as on a chessboard: of two lesions in neighbouring voxels one is lost.
    wanted = exclusive(2.0, 2)
    found = []
    for start in (6, 8):
        array = np.full((16, 16, 16), 2, np.uint8)
        array[start, 6:8, 6:8] = 1
        truth = Mask(array, Grid.from_spacing(array.shape), ())
        (lesion, rest) = remains(truth, wanted.labels, (2, 2, 2), exclusive=True)
        assert (lesion.voxels, rest.voxels) == prepared_voxels(wanted, truth)
        assert lesion == Remains(1 - lesion.lost, 1, lesion.lost)
        found.append(lesion.lost)
    assert sorted(found) == [0, 1]


def test_an_exclusive_label_without_half_of_a_voxel_may_have_the_most_of_it():
    # A voxel of 3 mm takes 1/4, 1/2 and 1/4 of the voxels along each axis. Label 1 has 3/4 of the middle
    # plane, 3/8 of the whole; labels 2 and 3 have the planes beside it, 1/4 each; the rest is background.
    array = np.zeros((9, 9, 9), np.uint8)
    array[3, 3:6, 3:6], array[4, 3:5, 3:6], array[5, 3:6, 3:6] = 2, 1, 3
    truth = Mask(array, Grid.from_spacing(array.shape), ())
    wanted = exclusive(3.0, 3)
    found = remains(truth, wanted.labels, (3, 3, 3), exclusive=True)
    assert tuple(each.voxels for each in found) == prepared_voxels(wanted, truth) == (1, 0, 0)
    assert [each.lost for each in found] == [0, 1, 1]
    assert [each.voxels for each in remains(truth, wanted.labels, (3, 3, 3))] == [0, 0, 0]


@pytest.mark.parametrize("spacing", [0.7, 1.0, 2.0, 2.6])
@pytest.mark.parametrize("codes", ["RAS", "LPI", "SAL"])
def test_exclusive_labels_are_counted_as_preparation_leaves_them(spacing, codes):
    rng = np.random.default_rng(int(spacing * 10))
    array = np.kron(rng.integers(0, 6, (7, 6, 5)), np.ones((3, 2, 3))).astype(np.uint8)
    array[rng.integers(0, 21, 30), rng.integers(0, 12, 30), rng.integers(0, 15, 30)] = 1
    truth = Mask(array, Grid.from_spacing(array.shape, (1.0, 1.1, 1.0)), ()).oriented(codes)
    wanted = exclusive(spacing, 5)
    found = remains(truth, wanted.labels, (spacing,) * 3, exclusive=True)
    assert tuple(each.voxels for each in found) == prepared_voxels(wanted, truth)


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
    assert "3 of its 3 connected part(s) are gone" in finding.problem
    assert not any(each.code == "label-lost" for each in check(made, recipe(1.0, LESION)).findings)


def test_lesions_that_resampling_removes_are_counted(cases):
    large = np.zeros((36, 36, 36), np.uint8)
    large[8:28, 8:28, 8:28] = 1
    both = np.maximum(large, 0)
    both[2:4, 2:4, 2:4] = both[31:33, 31:33, 31:33] = 1
    made = [cases(both, "train", "both"), cases(large, "train", "large"), cases(large, "val", "v")]
    findings = check(made, recipe(3.0, LESION)).findings
    (finding,) = [each for each in findings if "lost" in each.code]
    assert (finding.case, finding.code, finding.severity) == ("both", "lesions-lost", "warning")
    assert (
        finding.problem
        == "lesion: nothing is left of 2 of its 3 connected part(s) after resampling to 3 x 3 x 3 mm"
    )
    assert not any("lost" in each.code for each in check(made, recipe(1.0, LESION)).findings)


def test_training_tells_of_lost_lesions_also_from_its_cache(cases, tmp_path):
    large = np.zeros((36, 36, 36), np.uint8)
    large[8:28, 8:28, 8:28] = 1
    large[2:4, 2:4, 2:4] = 1
    case = cases(large, "train", "c")
    for _ in range(2):  # prepared, then found in the cache
        held = cached(case, recipe(3.0, LESION), tmp_path / "cache")
        (finding,) = [
            each for each in apply_case_rules(case, held.facts(), recipe(3.0, LESION)) if "lost" in each.code
        ]
        assert "1 of its 2 connected part(s)" in finding.problem


def test_a_single_voxel_is_a_speck_and_not_a_lesion():
    array = blocks(2, (20, 20, 20))
    array[15, 15, 15] = 1
    truth = Mask(array, Grid.from_spacing(array.shape, (1.0, 1.0, 1.0)), ())
    (found,) = remains(truth, (LESION,), (3, 3, 3))
    blocks_alone, _ = ndimage.label(blocks(2, (20, 20, 20)), np.ones((3, 3, 3)))
    assert (found.parts, found.lost) == (int(blocks_alone.max()), int(blocks_alone.max()))


def test_facts_of_earlier_versions_have_no_parts():
    old = '{"kept": [{"values": [1], "spacing_mm": [3, 3, 3], "voxels": 7}]}'
    kept = Facts.model_validate_json(old).kept_of(LESION, (3, 3, 3))
    assert kept is not None
    assert (kept.voxels, kept.parts, kept.lost) == (7, 0, 0)


def test_thin_structures_that_shrink_are_reported(cases):
    # A sheet of 2 mm is cut at one half of 3.5 mm: where it straddles two prepared slices nothing is left.
    sheet = np.zeros((36, 36, 36), np.uint8)
    sheet[4:32, 4:32, ::9] = 1
    codes = {
        each.code for each in check([cases(sheet, "test", "sheet")], recipe((1.0, 1.0, 4.0), LESION)).findings
    }
    assert "label-lost" in codes


def test_an_exclusive_lesion_that_loses_its_ties_is_reported(cases):
    codes = []
    for n, start in enumerate((6, 8)):
        array = np.zeros((36, 36, 36), np.uint8)
        array[4:32, 4:32, 4:32] = 2
        array[start, 6:8, 6:8] = 1
        findings = check([cases(array, "test", f"case{n}")], exclusive(2.0, 2)).findings
        codes += [each.code for each in findings if "lost" in each.code]
    assert codes == ["label-lost"]


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
