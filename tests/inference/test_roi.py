"""Masks of some of a model's labels, from `medseg segment --roi` and `segment_file`."""

import json
import shlex
import sys

import numpy as np
import pytest
from support.batches import chest

import medseg
from medseg import cli

LEFT_ML = 4 * 12 * 6 * 2.88  # the left box of the chest


@pytest.fixture
def desk(tmp_path, monkeypatch):
    chest().save(tmp_path / "scan.nii.gz")
    chest(5).save(tmp_path / "other.nii.gz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch, command: str) -> int:
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


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


def test_a_prediction_of_some_labels():
    prediction = medseg.load_segmenter("threshold").prepare(chest()).predict()
    assert prediction.only("left_lung").mask.volumes_ml() == pytest.approx({"left_lung": LEFT_ML})
    assert prediction.only() is prediction
