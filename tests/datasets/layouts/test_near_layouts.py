"""Messages about folders that are nearly those of MSD or nnU-Net."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medseg.datasets.layouts import manifest_of
from medseg.errors import UsageError


def dataset(folder: Path, *parts: str, json_file: bool = True) -> Path:
    """An nnU-Net folder of two cases with these subfolders; the files are empty."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        (folder / part).mkdir()
        for case in ("a", "b"):
            name = f"{case}_0000.nii.gz" if part.startswith("images") else f"{case}.nii.gz"
            (folder / part / name).write_bytes(b"")
    facts = {"channel_names": {"0": "CT"}, "labels": {"background": 0}, "numTraining": 2}
    if json_file:
        (folder / "dataset.json").write_text(json.dumps({**facts, "file_ending": ".nii.gz"}))
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(UsageError) as caught:
        manifest_of(folder, made=folder / "made")
    return str(caught.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    said = refusal(dataset(tmp_path / "a", "imagesTr"))
    assert "labelsTr/ is missing beside dataset.json" in said
    assert "masks into labelsTr/ as CASE" in said
    assert "imagesTr/ is missing" in refusal(dataset(tmp_path / "b", "labelsTr"))
    assert "imagesTr/ and labelsTr/ are missing" in refusal(dataset(tmp_path / "c"))


def test_the_folder_above_and_the_folder_below_are_named(tmp_path: Path) -> None:
    whole = dataset(tmp_path / "raw" / "Dataset004", "imagesTr", "labelsTr")
    said = refusal(tmp_path / "raw")
    assert "the data set is in Dataset004" in said
    assert f"give the folder {whole}" in said
    said = refusal(whole / "imagesTr")
    assert "a part of the data set above it" in said
    assert f"give the folder {whole}" in said
    dataset(tmp_path / "raw" / "Dataset005", "imagesTr", "labelsTr", json_file=False)
    assert "it holds 2 data sets: Dataset004, Dataset005" in refusal(tmp_path / "raw")


def test_without_dataset_json_what_is_missing_is_listed(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "data", "imagesTr", json_file=False)
    (folder / "imagesTr" / "b_0000.nii.gz").unlink()
    (folder / "imagesTr" / "a_0000.nii.gz").unlink()
    said = refusal(folder)
    assert "it has imagesTr/, but labelsTr/ and dataset.json are missing" in said


def test_other_folders_are_described_as_before(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    assert "it holds 1 .txt" in refusal(tmp_path)
    assert "--layout" in refusal(tmp_path)
