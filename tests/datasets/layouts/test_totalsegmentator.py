"""The layout of TotalSegmentator: one file per organ."""

from __future__ import annotations

import numpy as np
import pytest
from support.commands import invoke
from support.layouts import GRID, TRUTH, put

from medseg.datasets.layouts import manifest_of, totalsegmentator
from medseg.datasets.manifest import Manifest
from medseg.errors import InputRefused, InputWarning, UsageError
from medseg.images.label import Label
from medseg.images.volume import Mask
from medseg.io import read_mask
from medseg.phantom.thorax import Thorax, default_grid


def test_organs_of_totalsegmentator_become_two_lungs(tmp_path):
    case = tmp_path / "s0000"
    put(case, "ct.nii.gz")
    (case / "segmentations").mkdir()
    half = GRID.shape[2] // 2
    for name, value, part in (
        ("lung_upper_lobe_right", 1, np.s_[..., half:]),
        ("lung_middle_lobe_right", 1, np.s_[..., half - 1 : half]),
        ("lung_lower_lobe_right", 1, np.s_[..., : half - 1]),
        ("lung_upper_lobe_left", 2, np.s_[..., half:]),
        ("lung_lower_lobe_left", 2, np.s_[..., :half]),
        ("heart", 3, np.s_[...]),
    ):
        array = np.zeros(GRID.shape, np.uint8)
        array[part] = (TRUTH.array == value)[part]
        Mask(array, GRID, (Label(name=name, values=(1,)),)).save(case / "segmentations" / f"{name}.nii.gz")
    put(tmp_path, "s0001/segmentations/heart.nii.gz", label=True)  # no lung, no scan
    put(tmp_path, "s0002/ct.nii.gz")
    put(tmp_path, "s0002/segmentations/lung_lower_lobe_left.nii.gz", label=True)
    with pytest.warns(InputWarning) as message:
        manifest = manifest_of(tmp_path, made=tmp_path / "labels")
    lines = sorted(str(each.message).rsplit("/", 1)[1] for each in message)
    assert lines[0] == "s0001: it has no partner and is left out"
    assert lines[1].startswith("s0002: no file for lung_upper_lobe_right, lung_middle_lobe_right")
    (one,) = manifest.cases
    assert one.id == "s0000"
    assert "1 lung_upper_lobe_right" in manifest.description
    made = read_mask(one.label, ())
    assert (made.array == np.where(np.isin(TRUTH.array, (1, 2)), TRUTH.array, 0)).all()

    _, message = invoke(
        "manifest", tmp_path, "-o", tmp_path / "t.yaml", "--organs", "heart,lung_lower_lobe_left"
    )
    assert "Labels: 1 heart, 2 lung_lower_lobe_left." in message
    (one,) = Manifest.read(tmp_path / "t.yaml").cases
    left = (TRUTH.array == 2) & (np.arange(GRID.shape[2]) < half)
    wanted = np.where(TRUTH.array == 3, 1, np.where(left, 2, 0))
    assert (read_mask(one.label, ()).array == wanted).all()


def test_organs_have_values_by_their_order_or_as_given():
    assert totalsegmentator.values_of("heart, aorta") == {"heart": 1, "aorta": 2}
    assert totalsegmentator.values_of("kidney_left=2,kidney_right=2") == {"kidney_left": 2, "kidney_right": 2}


@pytest.mark.parametrize("text", ["", "heart,", "heart,heart", "heart=0", "heart=x", "heart=256", "a,b=1"])
def test_invalid_organs_are_refused(text):
    with pytest.raises(UsageError, match="is not a list of organs") as caught:
        totalsegmentator.values_of(text)
    assert caught.value.reason == "organs"


def test_organs_need_the_layout_totalsegmentator(tmp_path):
    with pytest.raises(UsageError, match="not in pairs"):
        manifest_of(tmp_path, "pairs", made=tmp_path, organ_values={"heart": 1})


def test_organs_that_overlap_or_have_another_grid_are_refused(tmp_path):
    files = {}
    for name, array in (("right", TRUTH.array == 1), ("left", TRUTH.array == 2)):
        files[name] = tmp_path / f"{name}.nii.gz"
        Mask(array.astype(np.uint8), GRID, ()).save(files[name])
    assert set(np.unique(totalsegmentator.together(files, {"right": 1, "left": 2}).array)) == {0, 1, 2}
    Mask((TRUTH.array > 0).astype(np.uint8), GRID, ()).save(files["left"])
    with pytest.raises(InputRefused, match="are also in an organ of another value") as caught:
        totalsegmentator.together(files, {"right": 1, "left": 2})
    assert caught.value.reason == "organs-overlap"
    Thorax().truth(default_grid((12.0, 14.0, 25.0))).save(files["left"])
    with pytest.raises(InputRefused, match="left is not on the grid of the other organs"):
        totalsegmentator.together(files, {"right": 1, "left": 2})
