"""Channels and labels of ``dataset.json``, and what is said about files that are nearly right."""

from __future__ import annotations

import json

import pytest

from medseg.errors import UsageError
from medseg.planning.dataset_description import Description, describe_dataset


def described(folder, **content):
    (folder / "dataset.json").write_text(json.dumps(content))
    return describe_dataset(folder)


def test_msd(tmp_path):
    found = described(tmp_path, modality={"0": "MRI"}, labels={"0": "background", "1": "Anterior"})
    assert found == Description(("MRI",), {1: "Anterior"})


def test_nnunet_with_an_ignored_value(tmp_path):
    labels = {"background": 0, "liver": 1, "tumour": 2, "ignore": 3}
    found = described(tmp_path, channel_names={"0": "CT"}, labels=labels)
    assert found == Description(("CT",), {1: "liver", 2: "tumour"}, (), 3)


def test_nnunet_regions(tmp_path):
    labels = {"background": 0, "whole": [1, 2], "core": [2]}
    found = described(tmp_path, channel_names={"0": "T1"}, labels=labels, regions_class_order=[1, 2])
    assert [(each.name, each.values) for each in found.regions] == [("whole", (1, 2)), ("core", (2,))]


def test_a_folder_without_the_file_says_nothing(tmp_path):
    assert describe_dataset(tmp_path) == Description()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"labels": {"background": 0}}, "channel_names"),
        ({"channel_names": {"0": "CT"}}, "labels is missing"),
        ({"channel_names": {"1": "CT"}, "labels": {"background": 0, "a": 1}}, "numbered from 0"),
        ({"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1.5}}, "1.5"),
        ({"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": [1, 2]}}, "regions_class_order"),
    ],
)
def test_what_is_missing_is_named(tmp_path, content, said):
    with pytest.raises(UsageError, match=said) as refused:
        described(tmp_path, **content)
    assert refused.value.reason == "plan-dataset"
