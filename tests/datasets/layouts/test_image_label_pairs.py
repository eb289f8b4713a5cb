"""Scans and labels in folders without a standard."""

from __future__ import annotations

import pytest
from support.layouts import found, masked, put

from medseg.datasets.layouts import manifest_of
from medseg.errors import InputWarning, UsageError


def test_linked_folders_of_cases_are_followed_and_missing_ones_named(tmp_path):
    store, view = tmp_path / "store", tmp_path / "view"
    put(store, "p0/ct.nii.gz", "p1/ct.nii.gz")
    put(store, "p0/mask.nii.gz", "p1/mask.nii.gz", label=True)
    put(view, "p2/ct.nii.gz")
    put(view, "p2/mask.nii.gz", label=True)
    for name in ("p0", "p1", "p3"):
        (view / name).symlink_to(store / name)
    with pytest.warns(InputWarning, match=r"p3 \(a link that leads nowhere\)") as caught:
        made = found(view)
    assert {case: image for case, (image, _, _) in made.items()} == {
        name: f"{name}/ct.nii.gz" for name in ("p0", "p1", "p2")
    }
    assert len(caught) == 1


def test_linked_folders_of_series_are_followed(tmp_path):
    masked(tmp_path / "store", 1)
    (tmp_path / "view").mkdir()
    (tmp_path / "view" / "patient").symlink_to(tmp_path / "store")
    ((image, label, _),) = found(tmp_path / "view").values()
    assert (image, label) == ("patient/ct", "patient/rtstruct/1.dcm")


def test_images_and_labels_in_folders_side_by_side(tmp_path):
    put(tmp_path, "imagesTr/a.nii.gz", "imagesTr/b_0000.nii.gz", "imagesTr/c.nii.gz")
    put(tmp_path, "labelsTr/a.nii.gz", "labelsTr/b.nii.gz", "labelsTr/d.nii.gz", label=True)
    with pytest.warns(InputWarning) as message:
        assert found(tmp_path) == {
            "a": ("imagesTr/a.nii.gz", "labelsTr/a.nii.gz", "a"),
            "b_0000": ("imagesTr/b_0000.nii.gz", "labelsTr/b.nii.gz", "b_0000"),
        }
    assert [str(each.message).split(":")[0].rsplit("/", 1)[1] for each in message] == ["c.nii.gz", "d.nii.gz"]


def test_labels_beside_their_images(tmp_path):
    put(tmp_path, "a.nii.gz", "b.nrrd")
    put(tmp_path, "a_mask.nii.gz", "b-label.nrrd", label=True)
    assert found(tmp_path) == {"a": ("a.nii.gz", "a_mask.nii.gz", "a"), "b": ("b.nrrd", "b-label.nrrd", "b")}
    put(tmp_path, "a_seg.nii.gz", label=True)
    with pytest.raises(UsageError, match=r"2 labels could belong to this image: a_mask.*, a_seg"):
        found(tmp_path, "pairs")


def test_one_folder_per_case(tmp_path):
    put(tmp_path, "p1/ct.nii.gz", "p2/ct.nii.gz")
    put(tmp_path, "p1/lung_mask.nii.gz", "p2/lung_mask.nii.gz", label=True)
    assert found(tmp_path) == {
        "p1": ("p1/ct.nii.gz", "p1/lung_mask.nii.gz", "p1"),
        "p2": ("p2/ct.nii.gz", "p2/lung_mask.nii.gz", "p2"),
    }
    put(tmp_path, "p2/tumour_mask.nii.gz", label=True)
    with pytest.raises(UsageError, match="1 images and 2 labels in one folder"):
        found(tmp_path, "pairs")


def test_visits_of_one_person_are_one_patient(tmp_path):
    put(tmp_path, "data/p1/2019/ct.nii.gz", "data/p1/2020/ct.nii.gz", "data/p2/2020/ct.nii.gz")
    for place in ("p1/2019", "p1/2020", "p2/2020"):
        put(tmp_path / "data", f"{place}/mask.nii.gz", label=True)
    cases = manifest_of(tmp_path, made=tmp_path).cases
    assert {case.id: case.patient for case in cases} == {"p1_2019": "p1", "p1_2020": "p1", "p2_2020": "p2"}


def test_two_files_with_the_same_name_are_refused(tmp_path):
    put(tmp_path, "images/a.nii.gz", "images/a_0000.nii.gz")
    put(tmp_path, "labels/a.nii.gz", label=True)
    with pytest.raises(UsageError, match=r"files with the same name: a\.nii\.gz, a_0000") as caught:
        found(tmp_path)
    assert caught.value.reason == "layout-ambiguous"
