"""A batch does every case once, whatever happens to a case, a worker or the run."""

import os
import subprocess

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from support.batches import GRID, chest, config_for, medseg, run, table, voxels
from support.worlds import tiny, untrained

from medseg import Volume
from medseg.batch_processing.case_discovery import items, shard
from medseg.batch_processing.summary import merge_batch
from medseg.errors import InputWarning, UsageError
from medseg.io import read as read_scan
from medseg.io import write_dicom_series
from medseg.phantom.thorax import Thorax, default_grid
from medseg.visualization.labelled_masks import read_named


def test_every_case_has_a_mask_and_a_row(scans, tmp_path):
    out = tmp_path / "out"
    ended = run(items(scans / "cases.csv"), config_for(out), workers=1)
    assert (ended.done, ended.skipped, ended.failed, ended.left) == (6, 0, 0, 0)
    found = table(out)
    assert list(found.index) == [f"c{number}" for number in range(6)]
    # By paper and pencil: 288 and 432 voxels of 12 x 12 x 20 mm.
    assert found["left_lung_ml"].tolist() == [pytest.approx(288 * 2.88)] * 6
    assert found["right_lung_ml"].tolist() == [pytest.approx(432 * 2.88)] * 6
    assert found["left_lung_mean"].tolist() == [-800] * 6
    assert found["right_lung_p95"].tolist() == [-700] * 6
    assert set(found["status"]) == {"done"}
    assert found["input_sha256"].nunique() == 6
    assert found["seconds_segment"].notna().all()
    assert found["right_lung_components"].tolist() == [1] * 6
    assert not found["right_lung_at_border"].any()
    mask = nib.load(out / found.loc["c3", "mask"])
    np.testing.assert_array_equal(mask.affine, GRID.affine)
    assert int((np.asarray(mask.dataobj) == 1).sum()) == 432
    left = {path.name for path in out.iterdir()}
    assert left == {"masks", "results.csv", "journal.jsonl", "thumbnails.jsonl", ".lock"}


def test_bad_scans_are_named_and_do_not_stop_the_others(scans, tmp_path):
    (scans / "1.nii.gz").write_bytes((scans / "1.nii.gz").read_bytes()[:200])
    (scans / "2.nii.gz").unlink()
    with (scans / "cases.csv").open("a") as file:
        file.write("bad/name,3.nii.gz\nc7,3.nii.gz,too many\nc8,\n")
    out = tmp_path / "out"
    ended = run(items(scans / "cases.csv"), config_for(out))
    assert (ended.done, ended.failed) == (4, 5)
    reasons = table(out)["reason"].dropna().to_dict()
    assert reasons == {
        "c1": "unreadable",
        "c2": "not-found",
        "bad_name": "manifest-field",
        "row_9": "manifest-csv",
        "c8": "manifest-missing-field",
    }
    assert "row 8" in table(out).loc["bad_name", "message"]


def test_a_second_run_redoes_only_changed_cases(scans, tmp_path):
    out = tmp_path / "out"
    cases = items(scans / "cases.csv")
    run(cases, config_for(out))
    masks = out / "masks"
    before = {path.name: path.stat().st_mtime_ns for path in masks.glob("*.nii.gz")}
    chest(50).save(scans / "1.nii.gz")  # another input
    (masks / "c2.nii.gz").unlink()  # a mask that is gone
    (masks / "c3.nii.gz").write_bytes((masks / "c4.nii.gz").read_bytes()[:-9])  # one that was cut off
    done: list[str] = []
    ended = run(
        cases,
        config_for(out),
        resume=True,
        show=lambda event: done.append(event["case"]) if event["event"] == "case" else None,
    )
    assert sorted(done) == ["c1", "c2", "c3"]
    assert (ended.done, ended.skipped) == (3, 3)
    after = {path.name: path.stat().st_mtime_ns for path in masks.glob("*.nii.gz")}
    assert {name for name in after if after[name] == before[name]} == {f"c{n}.nii.gz" for n in (0, 4, 5)}
    assert int((voxels(masks / "c3.nii.gz") == 1).sum()) == 432
    # Other options: everything again.
    assert run(cases, config_for(out, any_modality=True), resume=True).done == 6


def test_a_folder_with_results_needs_resume(scans, tmp_path):
    out = tmp_path / "out"
    run(items(scans / "cases.csv")[:1], config_for(out))
    with pytest.raises(UsageError, match="results of 1 cases") as refused:
        run(items(scans / "cases.csv"), config_for(out))
    assert refused.value.reason == "has-results"


def test_refused_scans_are_tried_again_only_when_asked(scans, tmp_path):
    (scans / "1.nii.gz").write_bytes(b"nothing of the kind")
    out, cases = tmp_path / "out", items(scans / "cases.csv")[:2]
    assert run(cases, config_for(out)).failed == 1
    again = run(cases, config_for(out), resume=True)
    assert (again.done, again.failed, again.skipped) == (0, 1, 1)
    stamped = (scans / "1.nii.gz").stat()
    chest().save(scans / "1.nii.gz")
    os.utime(scans / "1.nii.gz", ns=(stamped.st_atime_ns, stamped.st_mtime_ns))
    assert run(cases, config_for(out), retry_failed=True).done == 1


def test_label_names_do_not_become_paths(tmp_path):
    Thorax.random(3).scan(default_grid((8.0, 9.0, 12.0)), seed=3).save(tmp_path / "3.nii.gz")
    names = ["GTV/CTV", "../../../outside", ".."]
    labels = [{"name": name, "values": [n]} for n, name in enumerate(names, start=1)]
    model = untrained(tiny(labels=labels)).save(tmp_path / "model.safetensors")
    out = tmp_path / "in" / "out"
    config = config_for(out, models=(str(model),), probabilities=True, per_label=True)
    ended = run(items(tmp_path / "3.nii.gz"), config)
    assert (ended.done, ended.failed) == (1, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3.nii.gz", "in", "model.safetensors"]
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["out"]
    assert len(list((out / "probabilities").iterdir())) == len(names)
    assert len(list((out / "per_label" / "3").iterdir())) == len(names)
    assert {f"{name}_ml" for name in names} <= set(table(out).columns)


def test_a_binary_mask_of_each_label_is_written_and_kept_like_the_mask(scans, tmp_path):
    out, cases = tmp_path / "out", items(scans / "cases.csv")[:1]
    config = config_for(out, per_label=True)
    assert run(cases, config).done == 1
    written = {path.name: path for path in (out / "per_label" / cases[0].id).iterdir()}
    assert sorted(written) == ["left_lung.nii.gz", "right_lung.nii.gz"]
    whole = voxels(out / f"masks/{cases[0].id}.nii.gz")
    for value, name in enumerate(("right_lung", "left_lung"), 1):
        np.testing.assert_array_equal(voxels(written[f"{name}.nii.gz"]), whole == value)
    before = {name: path.read_bytes() for name, path in written.items()}
    assert run(cases, config, resume=True).skipped == 1
    written["left_lung.nii.gz"].unlink()
    assert run(cases, config, resume=True).done == 1
    assert {name: path.read_bytes() for name, path in written.items()} == before


def test_several_models_share_a_scan_and_get_one_row_each(tmp_path):
    patient = Thorax.random(3)
    patient.scan(default_grid((8.0, 9.0, 12.0), "LPS"), seed=3).save(tmp_path / "3.nii.gz")
    model = untrained(tiny()).save(tmp_path / "model.safetensors")
    out = tmp_path / "out"
    ended = run(
        items(tmp_path / "3.nii.gz"),
        config_for(out, models=("threshold", str(model)), overlays=True, probabilities=True),
    )
    assert (ended.done, ended.failed) == (1, 0)
    found = table(out)
    assert found["mask"].tolist() == ["masks/threshold/3.nii.gz", "masks/tiny_3d/3.nii.gz"]
    assert found["input_sha256"].nunique() == 1
    from medseg import segment

    alone = segment(tmp_path / "3.nii.gz", model=model)
    np.testing.assert_array_equal(voxels(out / "masks/tiny_3d/3.nii.gz"), alone.array)
    assert (out / "overlays/tiny_3d/3.png").read_bytes()[:4] == b"\x89PNG"
    maps = sorted((out / "probabilities/tiny_3d").iterdir())
    assert maps
    entropies = found.filter(regex="_entropy$")
    assert entropies.iloc[0].isna().all()
    assert entropies.iloc[1].dropna().between(0, 1).all()
    assert len(entropies.iloc[1].dropna())
    values = voxels(maps[0])
    assert values.shape == alone.grid.shape
    assert 0 <= values.min() <= values.max() <= 1


def test_dicom_scans_get_a_dicom_mask(tmp_path):
    pytest.importorskip("highdicom")
    (tmp_path / "in").mkdir()
    write_dicom_series(chest(), tmp_path / "in" / "series")
    chest().save(tmp_path / "in" / "other.nii.gz")
    out = tmp_path / "out"
    assert run(items(tmp_path / "in"), config_for(out, dicom="dicom-seg")).done == 2
    import pydicom

    assert pydicom.dcmread(out / "dicom" / "series.dcm").Modality == "SEG"
    assert [path.name for path in (out / "dicom").iterdir()] == ["series.dcm"]


def test_warnings_appear_in_the_table_and_the_summary(scans, tmp_path):
    Volume(np.zeros(GRID.shape, np.int16), GRID).save(scans / "2.nii.gz")
    words = ("-o", tmp_path / "out", "--model", "threshold", "--workers", 1)
    command = medseg("batch", scans / "cases.csv", *words)
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "c2: threshold: done, warning: no lung was found" in ended.stderr
    assert "\nwith warnings: c2\n" in ended.stderr
    warned = table(tmp_path / "out")["warnings"]
    assert warned["c2"].startswith("no lung was found")
    assert warned.drop("c2").isna().all()


def test_masks_of_a_batch_keep_their_label_names(scans, tmp_path):
    run(items(scans / "cases.csv"), config_for(tmp_path / "out"))
    mask = read_named(tmp_path / "out" / "masks" / "c3.nii.gz", read_scan(scans / "3.nii.gz"))
    assert [(label.name, label.values) for label in mask.labels] == [
        ("right_lung", (1,)),
        ("left_lung", (2,)),
    ]


def test_duplicate_ids_get_numbers(tmp_path):
    (tmp_path / "m.csv").write_text("id,image\na,1.nii\nA,2.nii\na_1,3.nii\nb,4.nii\n")
    with pytest.warns(InputWarning, match="more than once"):
        names = [item.id for item in items(tmp_path / "m.csv")]
    assert len({name.casefold() for name in names}) == 4
    assert names[2:] == ["a_1", "b"]


def test_shards_divide_the_cases_and_merge_again(scans, tmp_path):
    found, out = items(scans / "cases.csv"), tmp_path / "out"
    parts = [shard(found, f"{number}/4") for number in (1, 2, 3, 4)]
    assert sorted(item.id for part in parts for item in part) == [item.id for item in found]
    for number, part in enumerate(parts[:3], start=1):
        run(part, config_for(out), shard=f"{number}-of-4")
    assert len(pd.read_csv(out / "results-1-of-4.csv")) == 2
    assert not (out / "results.csv").exists()
    merged = merge_batch(out)
    assert (merged.skipped, merged.failed, merged.left) == (5, 0, 0)
    assert len(table(out)) == 5
    # The whole run knows what the shards have done.
    assert (run(found, config_for(out), resume=True).skipped) == 5
    for bad in ("0/4", "5/4", "1", "a/b"):
        with pytest.raises(UsageError) as refused:
            shard(found, bad)
        assert refused.value.reason == "shard"
    with pytest.raises(UsageError) as refused:
        merge_batch(scans)
    assert refused.value.reason == "no-journal"
