"""Folders as public data sets have them, made small: the manifests and the voxels of their labels."""

from __future__ import annotations

import pytest
from support.commands import invoke
from support.layouts import found, msd, put

from medseg.datasets.layouts import REGISTRY, manifest_of, named
from medseg.datasets.manifest import Manifest
from medseg.errors import InputWarning, UsageError


def test_the_layout_of_an_ambiguous_folder_must_be_given(tmp_path):
    put(msd(tmp_path), "sub-1/anat/sub-1_T1w.nii.gz")
    with pytest.raises(UsageError, match=r"could be dataset\.json or bids") as caught:
        manifest_of(tmp_path, made=tmp_path)
    assert caught.value.reason == "layout-ambiguous"
    with pytest.warns(InputWarning, match="sub-1"):
        assert len(manifest_of(tmp_path, "dataset.json", made=tmp_path).cases) == 4


def test_labels_in_another_folder_are_matched_by_name(tmp_path):
    """COVID-19-CT-Seg: 20 scans, and three folders of masks, one of which is used."""
    put(tmp_path, "scans/coronacases_001.nii.gz", "scans/radiopaedia_4.nii.gz")
    for kind in ("Lung_Mask", "Infection_Mask", "Lung_and_Infection_Mask"):
        put(tmp_path / kind, "coronacases_001.nii.gz", "radiopaedia_4.nii.gz", label=True)
    out = tmp_path / "covid.csv"
    invoke("manifest", tmp_path / "scans", "--labels", tmp_path / "Lung_and_Infection_Mask", "-o", out)
    cases = Manifest.read(out).cases
    assert [case.id for case in cases] == ["coronacases_001", "radiopaedia_4"]
    assert {case.label.parent.name for case in cases} == {"Lung_and_Infection_Mask"}
    with pytest.raises(UsageError, match="no such folder"):
        named(tmp_path / "scans", tmp_path / "gone")


def test_folders_without_a_known_layout_are_refused(tmp_path):
    put(tmp_path, "a.nii.gz")
    with pytest.raises(UsageError, match="does not have any known layout"):
        found(tmp_path)
    with pytest.raises(UsageError, match="unknown layout 'x'"):
        found(tmp_path, "x")
    with pytest.raises(UsageError, match="no such folder"):
        manifest_of(tmp_path / "gone", made=tmp_path)
    with pytest.raises(UsageError, match="no case"):
        found(tmp_path, "pairs")


def test_every_layout_has_a_title_and_is_listed_in_the_help():
    assert all(row.title for row in REGISTRY.values())
    message, _ = invoke("manifest", "--help")
    assert all(kind in "".join(message.split()).replace("│", "") for kind in REGISTRY)


def test_the_command_splits_by_patient_and_makes_folds(tmp_path):
    data = tmp_path / "data"
    for number in range(6):
        put(data, f"images/c{number}.nii.gz")
        put(data, f"labels/c{number}.nii.gz", label=True)
    out, _ = invoke(
        "manifest", data, "-o", tmp_path / "m.csv", "--val", "0.34", "--test", "0.17", "--seed", "1"
    )
    assert out.startswith("6 cases of 6 patients: 1 test, 3 train, 2 val")
    assert len(Manifest.read(tmp_path / "m.csv").split("val")) == 2
    invoke("manifest", tmp_path / "m.csv", "-o", tmp_path / "k.yaml", "--folds", "3")
    names = [f"k_fold{number}.yaml" for number in range(3)]
    assert sorted(p.name for p in tmp_path.glob("k_*")) == names
    held = [case.id for name in names for case in Manifest.read(tmp_path / name).split("val")]
    assert len(held) == len(set(held)) == 5  # the one that was test stays so
    invoke("manifest", data, "-o", tmp_path / "m.csv", "--folds", "2", "--val", "0.5", code=2)
    invoke(
        "manifest", data, "-o", tmp_path / "m.csv", "--labels", data / "labels", "--layout", "pairs", code=2
    )
    invoke("manifest", tmp_path / "m.csv", "-o", tmp_path / "n.csv", "--layout", "pairs", code=2)
    out, _ = invoke("manifest", data, "-o", tmp_path / "n.yaml", "--only", "c[12]", "--name", "two")
    assert out == "2 cases of 2 patients: 2 no split\n"
    assert Manifest.read(tmp_path / "n.yaml").name == "two"
    _, message = invoke("manifest", data, "-o", tmp_path / "n.yaml", "--only", "x*", code=2)
    assert "it has no case" in message
