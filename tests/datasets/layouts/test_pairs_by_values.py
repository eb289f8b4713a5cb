"""Labels that are recognised by the values of their voxels."""

import numpy as np
import pytest
from support.commands import invoke
from support.layouts import GRID, SCAN, found, put

from medseg.datasets.layouts.folder_summary import summary
from medseg.errors import InputWarning, UsageError
from medseg.images.volume import Volume
from medseg.io.label_maps import is_label_map


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 2], True),
        ([0.0, 1.0], True),
        ([0, 0.5, 1], False),
        ([0], False),  # empty: no evidence
        ([1, 2], False),  # no background
        ([-1, 0, 1], False),
        (range(200), False),  # a scan of 8 bits
    ],
)
def test_a_label_map_has_few_whole_values_from_zero_on(tmp_path, values, expected):
    array = np.resize(np.asarray(list(values), dtype=np.float32), GRID.shape)
    Volume(array, GRID).save(tmp_path / "a.nii.gz")
    assert is_label_map(tmp_path / "a.nii.gz") is expected


def test_a_scan_is_no_label_map(tmp_path):
    SCAN.save(tmp_path / "a.nii.gz")
    assert not is_label_map(tmp_path / "a.nii.gz")
    (tmp_path / "b.nii.gz").write_bytes(b"not an image")
    assert not is_label_map(tmp_path / "b.nii.gz")


def test_folders_with_foreign_names_are_told_apart_by_values(tmp_path):
    put(tmp_path, "thorax/a.nii.gz", "thorax/b.nii.gz", "thorax/c.nii.gz")
    put(tmp_path, "lunge/a.nii.gz", "lunge/b.nii.gz", label=True)
    with pytest.warns(InputWarning) as messages:
        assert found(tmp_path) == {
            "a": ("thorax/a.nii.gz", "lunge/a.nii.gz", "a"),
            "b": ("thorax/b.nii.gz", "lunge/b.nii.gz", "b"),
        }
    assert "files in lunge are taken as labels by their values" in str(messages[0].message)
    assert "c.nii.gz" in str(messages[1].message)


def test_a_name_that_adds_a_foreign_word_is_a_label_by_its_values(tmp_path):
    put(tmp_path, "x/a.nii.gz", "y/b.nii.gz")
    put(tmp_path, "x/a_lunge.nii.gz", "y/b_lunge.nii.gz", label=True)
    with pytest.warns(InputWarning, match="ends in _lunge are taken as labels"):
        assert found(tmp_path) == {
            "x_a": ("x/a.nii.gz", "x/a_lunge.nii.gz", "x_a"),
            "y_b": ("y/b.nii.gz", "y/b_lunge.nii.gz", "y_b"),
        }


@pytest.mark.parametrize("word", ["roi", "lesion", "contour", "mask", "seg", "ROI", "ground_truth"])
def test_words_of_the_field_name_labels(tmp_path, word):
    put(tmp_path, "a.nii.gz")
    put(tmp_path, f"a_{word}.nii.gz", label=True)
    assert found(tmp_path) == {"a": ("a.nii.gz", f"a_{word}.nii.gz", "a")}


def test_two_scans_are_no_pair(tmp_path):
    put(tmp_path, "a.nii.gz", "a_late.nii.gz")
    with pytest.raises(UsageError, match="does not have any known layout"):
        found(tmp_path)


def test_a_folder_without_a_layout_is_described_beside_what_each_layout_needs(tmp_path):
    put(tmp_path, "scans/a.nii.gz", "scans/b.nii.gz", "more/c.nrrd")
    (tmp_path / "notes.txt").write_text("x")
    assert summary(tmp_path) == "2 .nii.gz, 1 .nrrd, 1 .txt in more, scans"
    _, err = invoke("manifest", tmp_path, "-o", tmp_path / "m.csv", code=2)
    assert "it holds 2 .nii.gz, 1 .nrrd, 1 .txt in more, scans" in err
    assert "pairs            images/a.nii.gz with labels/a.nii.gz" in err
    assert "sub-*/" in err
