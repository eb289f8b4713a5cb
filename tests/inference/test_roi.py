"""Masks of some of a model's labels, from `medseg segment --roi` and `segment_file`."""

import json

import numpy as np
import pytest
from support.batches import chest
from support.commands import run

import medseg

LEFT_ML = 4 * 12 * 6 * 2.88  # the left box of the chest


@pytest.fixture
def desk(tmp_path, monkeypatch):
    chest().save(tmp_path / "scan.nii.gz")
    chest(5).save(tmp_path / "other.nii.gz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_mask_has_the_labels_asked_for_with_the_values_of_the_model(desk, monkeypatch, capsys):
    assert run(monkeypatch, "medseg segment scan.nii.gz -o all.nii.gz --model threshold") == 0
    assert run(monkeypatch, "medseg segment scan.nii.gz -o m.nii.gz --model threshold --roi left_lung") == 0
    assert "right_lung" not in capsys.readouterr().out.split("left_lung")[-1]
    whole, only = (
        medseg.read_mask(name, medseg.load_segmenter("threshold").labels)
        for name in ("all.nii.gz", "m.nii.gz")
    )
    (left,) = (label for label in whole.labels if label.name == "left_lung")
    np.testing.assert_array_equal(only.array, np.where(whole.array == left.value, left.value, 0))
    facts, before = json.loads((desk / "m.json").read_text()), json.loads((desk / "all.json").read_text())
    assert facts["roi"] == ["left_lung"]
    assert "roi" not in before
    assert facts["labels"] == {"left_lung": [left.value]}
    assert facts["volumes_ml"] == pytest.approx({"left_lung": LEFT_ML})
    assert facts["airless_ml"].keys() == {"left_lung"}
    assert len(before["airless_ml"]) == 2


@pytest.mark.parametrize("scans", ["scan.nii.gz -o m.nii.gz", "scan.nii.gz other.nii.gz -o masks/"])
def test_unknown_names_are_refused_before_a_mask_is_made(desk, monkeypatch, capsys, scans):
    assert run(monkeypatch, f"medseg segment {scans} --model threshold --roi left_lung,rigt_lung") == 2
    said = capsys.readouterr().err
    assert said.count("no label 'rigt_lung'") == 1
    assert "did you mean right_lung" in said
    assert "The labels are: right_lung, left_lung" in said
    assert not list(desk.rglob("m*.nii.gz"))


def test_an_option_without_a_name_is_refused_and_it_may_be_repeated(desk, monkeypatch, capsys):
    given = "medseg segment scan.nii.gz -o m.nii.gz --model threshold --roi"
    assert run(monkeypatch, f"{given} ''") == 2
    assert run(monkeypatch, f"{given} left_lung --roi 'right_lung, '") == 0
    assert json.loads((desk / "m.json").read_text())["roi"] == ["left_lung", "right_lung"]


def test_statistics_are_of_these_labels_too(desk):
    made = medseg.segment_file(
        "scan.nii.gz",
        "m.nii.gz",
        model="threshold",
        stats="s.json",
        runtime=medseg.Runtime(roi=("left_lung",)),
    )
    assert made.mask.volumes_ml() == pytest.approx({"left_lung": LEFT_ML})
    assert json.loads((desk / "s.json").read_text())["intensities"].keys() == {"left_lung"}


@pytest.mark.parametrize("names", ["left_lung", ["left_lung"], " left_lung,", ("left_lung", "left_lung")])
def test_names_may_be_text_or_a_list(desk, names):
    made = medseg.segment_file(
        "scan.nii.gz", "m.nii.gz", model="threshold", runtime=medseg.Runtime(roi=names)
    )
    assert made.facts["roi"] == ["left_lung"]
    assert made.facts["airless_ml"].keys() == made.facts["labels"].keys() == {"left_lung"}


def test_a_prediction_of_some_labels():
    prediction = medseg.load_segmenter("threshold").prepare(chest()).predict()
    assert prediction.only("left_lung").mask.volumes_ml() == pytest.approx({"left_lung": LEFT_ML})
    assert prediction.only() is prediction


def test_each_label_may_have_a_file_of_its_own_beside_the_label_map(desk, monkeypatch):
    given = "medseg segment scan.nii.gz -o m.nii.gz --model threshold --per-label organs"
    assert run(monkeypatch, given) == 0
    assert {path.name for path in (desk / "organs").iterdir()} == {
        f"{side}_lung{ending}" for side in ("left", "right") for ending in (".nii.gz", ".json")
    }
    labels = {label.name: label for label in medseg.load_segmenter("threshold").labels}
    whole = medseg.read_mask("m.nii.gz", tuple(labels.values())).array
    for name, label in labels.items():
        alone = medseg.read_mask(f"organs/{name}.nii.gz", ()).array
        np.testing.assert_array_equal(alone, whole == label.value)
    facts = json.loads((desk / "organs" / "left_lung.json").read_text())
    assert facts["labels"] == {"left_lung": [1]}
    assert facts["volumes_ml"] == pytest.approx({"left_lung": LEFT_ML})
    assert facts["model_sha256"] == json.loads((desk / "m.json").read_text())["model_sha256"]


def test_several_scans_have_a_folder_each_with_the_labels_asked_for(desk, monkeypatch):
    given = "medseg segment scan.nii.gz other.nii.gz -o masks/ --model threshold --roi left_lung"
    assert run(monkeypatch, f"{given} --per-label organs") == 0
    assert sorted(path.relative_to(desk).as_posix() for path in desk.rglob("organs/*/*.nii.gz")) == [
        "organs/other/left_lung.nii.gz",
        "organs/scan/left_lung.nii.gz",
    ]


def test_foreign_files_and_the_mask_itself_are_refused_before_a_mask_is_made(desk, monkeypatch, capsys):
    (desk / "organs").mkdir()
    (desk / "organs" / "left_lung.nii.gz").write_bytes(b"mine")
    assert (
        run(monkeypatch, "medseg segment scan.nii.gz -o m.nii.gz --model threshold --per-label organs") == 2
    )
    assert "not written by medseg" in capsys.readouterr().err
    assert (
        run(monkeypatch, "medseg segment scan.nii.gz -o left_lung.nii.gz --model threshold --per-label .")
        == 2
    )
    assert not (desk / "m.nii.gz").exists()
    assert not (desk / "left_lung.nii.gz").exists()
    assert (desk / "organs" / "left_lung.nii.gz").read_bytes() == b"mine"
