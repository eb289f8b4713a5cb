"""What `--resume` makes of clocks, exchanged data and models that are not those of the first run."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.batches import chest, config_for, run, table, voxels
from support.worlds import tiny, untrained

from medseg import Volume, merge_batch, write_dicom_series
from medseg.batch_processing.case_discovery import items
from medseg.errors import InputWarning


@pytest.mark.parametrize("ahead_s", [400 * 86400, -50 * 365 * 86400])
@pytest.mark.parametrize("shards", [(None,), ("1/2", "2/2")])
def test_the_table_shows_the_last_run_whatever_the_clock_said(scans, tmp_path, ahead_s, shards):
    """A year ahead or before 1980 in the first run, or in every shard of it; then a scan is replaced."""
    out, found = tmp_path / "out", items(scans / "cases.csv")[:2]
    for shard in shards:
        run(found, config_for(out), shard=shard, resume=True)
    for path in out.glob("journal*.jsonl"):
        events = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(e | {"time": e["time"] + ahead_s}) + "\n" for e in events))
    larger = np.array(chest().array)
    larger[
        4:8, 6:20
    ] = -800  # 14 rows instead of 12 and all 10 slices: at least 1.6 ml each of 12 x 12 x 20 mm
    Volume(larger, chest().grid).save(scans / "0.nii.gz")
    merge_batch(out)
    before = table(out).loc["c0", "input_sha256"]
    assert sum(run(found, config_for(out), shard=shard, resume=True).done for shard in shards) == 1
    assert sum(run(found, config_for(out), shard=shard, resume=True).done for shard in shards) == 0
    merge_batch(out)
    assert table(out).loc["c0", "input_sha256"] != before
    assert table(out)["status"].tolist() == ["done", "done"]


def exchange(one: Path, other: Path) -> None:
    """Exchanges two files, which keep their sizes and times of modification."""
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


@pytest.mark.parametrize("kind", ["slices of series", ".nhdr", ".mhd", ".hdr", "written in place"])
def test_exchanged_content_of_equal_size_and_time_is_noticed(tmp_path, kind):
    """The scans differ by 1 HU, so that their files have one size; every file has one time."""
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    for number in range(3):
        volume = Volume(chest().array + np.int16(number), chest().grid)
        if kind == "slices of series":
            write_dicom_series(volume, scans / f"s{number}")
        else:
            volume.save(scans / f"s{number}{kind if kind.startswith('.') else '.nii'}")
    files = sorted(path for path in scans.rglob("*") if path.is_file())
    for path in files:
        os.utime(path, ns=(0, 0))
    found = items(scans)
    assert run(found, config_for(out, any_modality=True)).done == 3
    voxels_of = [
        [p for p in files if f"s{n}" in str(p) and p.suffix not in (".nhdr", ".mhd", ".hdr")] for n in (0, 1)
    ]
    data = [each[-1] for each in voxels_of]
    if kind == "written in place":
        kept = data[0].read_bytes()
        shutil.copyfile(data[1], data[0])
        data[1].write_bytes(kept)
    else:
        assert data[0].stat().st_size == data[1].stat().st_size
        exchange(*data)
    for path in data:
        os.utime(path, ns=(0, 0))
    ended = run(found, config_for(out, any_modality=True), resume=True)
    assert (ended.done + ended.failed, ended.skipped) == (2, 1)


def test_a_model_that_was_trained_again_under_its_name_is_applied_again(scans, tmp_path):
    """Its labels are the same, so that the numbers in the masks keep their meaning; the digest tells."""
    out, found = tmp_path / "out", items(scans / "cases.csv")[:2]
    config = config_for(out, models=(str(tmp_path / "model.safetensors"),))
    digests = []
    for seed in (1, 2):
        model = untrained(tiny(), seed=seed)
        model.save(tmp_path / "model.safetensors")
        assert run(found, config, resume=True).done == 2
        digests.append(model.digest)
        assert table(out)["model_sha256"].tolist() == [model.digest] * 2
    assert digests[0] != digests[1]
    assert run(found, config, resume=True).skipped == 2


def test_masks_of_every_model_are_set_aside_if_the_case_fails_later(scans, tmp_path):
    out, found = tmp_path / "out", items(scans / "cases.csv")[:2]
    model = untrained(tiny()).save(tmp_path / "model.safetensors")
    config = config_for(out, models=("threshold", str(model)))
    run(found, config)
    before = [voxels(out / f"masks/{name}/c1.nii.gz") for name in ("threshold", "tiny_3d")]
    (scans / "1.nii.gz").unlink()
    assert run(found, config, resume=True).failures == ("c1",)
    for name, mask in zip(("threshold", "tiny_3d"), before, strict=True):
        assert not (out / f"masks/{name}/c1.nii.gz").exists()
        np.testing.assert_array_equal(voxels(out / f"masks/{name}/c1.previous.nii.gz"), mask)


@pytest.mark.parametrize("left", [b"", b"[]\n", b"\xff\xfe\n", None])
def test_thumbnails_are_drawn_again_whatever_became_of_their_file(scans, tmp_path, left):
    out, found = tmp_path / "out", items(scans / "cases.csv")[:2]
    run(found, config_for(out))
    path = out / "thumbnails.jsonl"
    before = path.read_bytes().splitlines()
    if left is None:
        path.unlink()
    else:
        path.write_bytes(left)
    assert run(found, config_for(out), resume=True).skipped == 2
    assert set(before) <= set(path.read_bytes().splitlines())


def test_an_edited_mask_of_one_label_is_kept(scans, tmp_path):
    out, found = tmp_path / "out", items(scans / "cases.csv")[:1]
    config = config_for(out, per_label=True)
    run(found, config)
    place, first = out / "per_label/c0/left_lung.nii.gz", (out / "per_label/c0/left_lung.nii.gz").read_bytes()
    image = nib.load(place)
    array = np.asarray(image.dataobj).copy()
    array[0, 0, :3] = 1
    nib.save(nib.Nifti1Image(array, image.affine, image.header), place)
    corrected = place.read_bytes()
    with pytest.warns(InputWarning, match="edited"):
        assert run(found, config, resume=True).edited == ("c0",)
    assert place.read_bytes() == corrected
    with pytest.warns(InputWarning, match="renamed"):
        assert run(found, config, redo_edited=True).done == 1
    assert place.read_bytes() == first
    assert place.with_name("left_lung.edited.nii.gz").read_bytes() == corrected
