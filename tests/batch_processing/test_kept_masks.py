"""Masks and files of another origin are never replaced by a batch, and masks of a row belong to it."""

import json
import shutil

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from support.batches import chest, config_for, run, table, voxels
from support.worlds import tiny, untrained

from medseg import Volume, batch, merge_batch, write_dicom_series
from medseg.batch_processing.case_discovery import items
from medseg.batch_processing.settings import BatchResources
from medseg.errors import InputWarning, UsageError


@pytest.fixture
def two(scans):
    """Two cases."""
    return items(scans / "cases.csv")[:2]


def edit(path):
    """One voxel more, as an annotator would draw it."""
    image = nib.load(path)
    array = np.asarray(image.dataobj).copy()
    array[0, 0, 0] = 1
    nib.save(nib.Nifti1Image(array, image.affine, image.header), path)
    return path.read_bytes()


def test_a_corrected_mask_is_kept_until_its_redoing_is_requested(two, scans, tmp_path):
    out = tmp_path / "out"
    run(two, config_for(out))
    first = (out / "masks/c0.nii.gz").read_bytes()
    corrected = edit(out / "masks/c0.nii.gz")
    for changed in (False, True):
        if changed:  # even if the scan has changed
            chest(9).save(scans / "0.nii.gz")
        with pytest.warns(InputWarning, match="edited"):
            ended = run(two, config_for(out), resume=True)
        assert (ended.done, ended.skipped, ended.edited) == (0, 2, ("c0",))
        assert (out / "masks/c0.nii.gz").read_bytes() == corrected
        assert "edited" in table(out).loc["c0", "warnings"]
    chest(0).save(scans / "0.nii.gz")
    with pytest.warns(InputWarning, match="renamed"):
        ended = run(two, config_for(out), redo_edited=True)
    assert (ended.done, ended.edited) == (1, ())
    assert (out / "masks/c0.nii.gz").read_bytes() == first
    assert (out / "masks/c0.edited.nii.gz").read_bytes() == corrected
    assert run(two, config_for(out), resume=True).skipped == 2


def test_an_edited_mask_of_one_of_two_models_is_kept(two, tmp_path):
    out = tmp_path / "out"
    model = untrained(tiny()).save(tmp_path / "model.safetensors")
    config = config_for(out, models=("threshold", str(model)))
    run(two[:1], config)
    corrected = edit(out / "masks/threshold/c0.nii.gz")
    (out / "masks/tiny_3d/c0.nii.gz").unlink()
    with pytest.warns(InputWarning, match="edited"):
        assert run(two[:1], config, resume=True).done == 1
    assert (out / "masks/threshold/c0.nii.gz").read_bytes() == corrected
    assert (out / "masks/tiny_3d/c0.nii.gz").exists()


def redraw(path):
    with Image.open(path) as picture:
        arrow = picture.convert("RGB")
    arrow.putpixel((0, 0), (255, 0, 0))
    arrow.save(path)


def correct_a_number(path):
    path.write_text(path.read_text().replace(".", ".1", 1))


def rename_series(path):
    held = pydicom.dcmread(path)
    held.SeriesDescription = "corrected"
    held.save_as(path)


@pytest.mark.parametrize(
    ("name", "options", "change"),
    [
        ("overlays/ct.png", {"overlays": True}, redraw),
        ("dicom/ct.dcm", {"dicom": "dicom-seg"}, rename_series),
        ("dicom/ct.dcm", {"dicom": "rtstruct"}, rename_series),
        ("measures/ct.csv", {"measure": "lung"}, correct_a_number),
    ],
)
def test_other_edited_files_of_a_case_are_kept(tmp_path, name, options, change):
    (tmp_path / "scans").mkdir()
    write_dicom_series(chest(), tmp_path / "scans" / "ct")
    out, found = tmp_path / "out", items(tmp_path / "scans")
    config = config_for(out, any_modality=True, **options)
    assert run(found, config).done == 1
    path, first = out / name, (out / name).read_bytes()
    change(path)
    corrected = path.read_bytes()
    with pytest.warns(InputWarning, match=f"{name} was edited"):
        ended = run(found, config, resume=True)
    assert (ended.done, ended.skipped, ended.edited) == (0, 1, ("ct",))
    assert path.read_bytes() == corrected
    assert f"{name} was edited" in table(out).loc["ct", "warnings"]
    with pytest.warns(InputWarning, match="renamed"):
        assert run(found, config, redo_edited=True).done == 1
    assert path.read_bytes() == first
    stem = path.name.partition(".")[0]
    assert path.with_name(path.name.replace(stem, f"{stem}.edited")).read_bytes() == corrected
    path.write_bytes(first[:100])  # cut off by a power failure: made again
    assert run(found, config, resume=True).done == 1
    assert path.read_bytes() == first


def test_an_edited_probability_map_is_kept_and_the_other_one_stays(tmp_path):
    """A voxel of one label's map is changed; the mask and the other label's map are as they were."""
    model, out = tmp_path / "tiny.safetensors", tmp_path / "out"
    untrained(tiny()).save(model)
    (tmp_path / "scans").mkdir()
    write_dicom_series(chest(), tmp_path / "scans" / "ct")
    found = items(tmp_path / "scans")
    config = config_for(out, models=(str(model),), probabilities=True, any_modality=True, device="cpu")
    assert run(found, config).done == 1
    right, left = sorted((out / "probabilities").rglob("*.nii.gz"), key=lambda path: "left" in path.name)
    first, other = right.read_bytes(), left.read_bytes()
    corrected = edit(right)
    assert corrected != first
    with pytest.warns(InputWarning, match=f"{right.name} was edited"):
        ended = run(found, config, resume=True)
    assert (ended.done, ended.skipped, ended.edited) == (0, 1, ("ct",))
    assert (right.read_bytes(), left.read_bytes()) == (corrected, other)
    with pytest.warns(InputWarning, match="renamed"):
        assert run(found, config, redo_edited=True).done == 1
    assert (right.read_bytes(), left.read_bytes()) == (first, other)
    assert [path.read_bytes() for path in right.parent.iterdir() if ".edited" in path.name] == [corrected]


def test_pictures_of_another_origin_are_not_replaced(two, tmp_path):
    other = tmp_path / "out" / "overlays" / "c0.png"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"drawn by hand")
    with pytest.raises(UsageError) as refused:
        run(two, config_for(tmp_path / "out", overlays=True))
    assert (refused.value.reason, refused.value.where) == ("foreign-file", str(other))
    assert other.read_bytes() == b"drawn by hand"


def test_a_mask_does_not_overwrite_a_truth(scans, tmp_path):
    out = tmp_path / "data"
    shutil.copytree(scans, out / "images")
    truth = out / "masks" / "1.nii.gz"
    truth.parent.mkdir()
    shutil.copy(scans / "0.nii.gz", truth)
    before = truth.read_bytes()
    with pytest.raises(UsageError) as refused:
        batch(out / "images", out, model="threshold", resources=BatchResources(workers=1))
    assert refused.value.reason == "foreign-file"
    assert str(truth) in str(refused.value)
    assert truth.read_bytes() == before
    assert not (out / "masks" / "0.nii.gz").exists()


@pytest.mark.parametrize("link", [False, True])
def test_a_mask_does_not_overwrite_a_scan(tmp_path, link):
    scan = tmp_path / "masks" / "0.nii.gz"
    scan.parent.mkdir()
    chest().save(scan)
    named = scan
    if link:
        named = tmp_path / "0.nii.gz"
        named.symlink_to(scan)
    before = scan.read_bytes()
    with pytest.raises(UsageError) as refused:
        batch(named, tmp_path, model="threshold", resources=BatchResources(workers=1))
    assert refused.value.reason == "overwrites-input"
    assert str(named) in str(refused.value)
    assert scan.read_bytes() == before


def test_a_manifest_is_not_replaced_by_the_table(scans):
    (scans / "cases.csv").rename(scans / "results.csv")
    before = (scans / "results.csv").read_bytes()
    with pytest.raises(UsageError) as refused:
        batch(scans / "results.csv", scans, model="threshold", resources=BatchResources(workers=1))
    assert refused.value.reason == "overwrites-input"
    assert (scans / "results.csv").read_bytes() == before


@pytest.mark.parametrize("content", [b'{"ev', b'{"event": "start", "time": 17'])
def test_the_beginning_of_a_journal_is_replaced(two, tmp_path, content):
    """A full disk left it, and nothing else."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "journal.jsonl").write_bytes(content)
    assert run(two[:1], config_for(tmp_path / "out")).done == 1


@pytest.mark.parametrize("content", [b"my diary", b'{"event": "party"'])
def test_a_journal_of_another_origin_is_not_replaced(two, tmp_path, content):
    (tmp_path / "journal.jsonl").write_bytes(content)
    with pytest.raises(UsageError) as refused:
        run(two, config_for(tmp_path))
    assert refused.value.reason == "foreign-file"
    assert (tmp_path / "journal.jsonl").read_bytes() == content


def test_a_table_of_another_origin_is_not_replaced(two, tmp_path):
    (tmp_path / "results.csv").write_text("my results")
    with pytest.raises(UsageError) as refused:
        run(two, config_for(tmp_path))
    assert refused.value.reason == "foreign-file"
    assert (tmp_path / "results.csv").read_text() == "my results"


def test_a_failed_case_does_not_keep_the_mask_of_an_earlier_run(two, scans, tmp_path):
    out = tmp_path / "out"
    run(two, config_for(out, overlays=True))
    before = (out / "masks/c1.nii.gz").read_bytes()
    (scans / "1.nii.gz").write_bytes(b"cut off")
    ended = run(two, config_for(out, overlays=True), resume=True)
    assert ended.failures == ("c1",)
    assert not (out / "masks/c1.nii.gz").exists()
    assert [path.name for path in sorted((out / "overlays").iterdir())] == ["c0.png", "c1.previous.png"]
    assert (out / "masks/c1.previous.nii.gz").read_bytes() == before
    assert "renamed to masks/c1.previous.nii.gz" in table(out).loc["c1", "warnings"]


def test_masks_of_two_models_are_not_mixed(two, tmp_path):
    out = tmp_path / "out"
    model = untrained(tiny()).save(tmp_path / "model.safetensors")
    run(two[:1], config_for(out))
    before = voxels(out / "masks/c0.nii.gz")
    with pytest.raises(UsageError) as refused:
        run(two, config_for(out, models=(str(model),)), resume=True)
    assert refused.value.reason == "other-model"
    np.testing.assert_array_equal(voxels(out / "masks/c0.nii.gz"), before)
    # Both in one run have a folder each.
    assert run(two[:1], config_for(out, models=("threshold", str(model))), resume=True).done == 1


def test_a_mask_that_was_moved_just_before_a_kill_is_recognised(two, tmp_path):
    out = tmp_path / "out"
    run(two, config_for(out))
    lines = (out / "journal.jsonl").read_text().splitlines(keepends=True)
    cases = [line for line in lines if json.loads(line)["event"] == "case"]
    digests = json.loads(cases[0])["files"]
    (out / "journal.jsonl").write_text("".join(line for line in lines if line != cases[0]))
    with pytest.raises(UsageError, match="c0"):
        run(two, config_for(out), resume=True)
    (out / "results.csv").unlink()  # it is written after the journal
    intents = out / ".scratch" / "intents"
    intents.mkdir(parents=True)
    (intents / "1.json").write_text(json.dumps(digests))
    assert run(two, config_for(out), resume=True).done == 1


def test_lost_thumbnails_are_drawn_again(two, tmp_path):
    out = tmp_path / "out"
    run(two, config_for(out))
    before = (out / "thumbnails.jsonl").read_bytes().splitlines(keepends=True)
    (out / "thumbnails.jsonl").write_bytes(before[0] + before[1][:50])
    assert run(two, config_for(out), resume=True).skipped == 2
    assert (out / "thumbnails.jsonl").read_bytes().splitlines(keepends=True) == before


def test_swapped_scans_are_segmented_again(tmp_path):
    """Two scans of one size and time exchange their names; another is only copied."""
    import os

    for number in range(3):
        Volume(chest().array + np.int16(number), chest().grid).save(tmp_path / f"{number}.nii")
        os.utime(tmp_path / f"{number}.nii", ns=(0, 0))
    out, found = tmp_path / "out", items(tmp_path)
    run(found, config_for(out))
    (tmp_path / "0.nii").rename(tmp_path / "x")
    (tmp_path / "1.nii").rename(tmp_path / "0.nii")
    (tmp_path / "x").rename(tmp_path / "1.nii")
    shutil.copy2(tmp_path / "2.nii", tmp_path / "y")
    (tmp_path / "y").replace(tmp_path / "2.nii")
    ended = run(found, config_for(out), resume=True)
    assert (ended.done, ended.skipped) == (2, 1)


def test_cases_whose_scans_are_gone_are_named(two, tmp_path):
    out = tmp_path / "out"
    run(two, config_for(out))
    mask = (out / "masks/c0.nii.gz").read_bytes()
    with pytest.warns(InputWarning, match=r"1 case.* left out of the table: c0"):
        run(two[1:], config_for(out), resume=True)
    assert list(table(out).index) == ["c1"]
    assert (out / "masks/c0.nii.gz").read_bytes() == mask
    assert run(two, config_for(out), resume=True).skipped == 2  # the journal still knows it
    assert list(table(out).index) == ["c0", "c1"]


def test_every_edited_mask_has_a_copy_of_its_own(two, tmp_path):
    out = tmp_path / "out"
    run(two[:1], config_for(out))
    corrected = []
    for value in (1, 2, 3):
        image = nib.load(out / "masks/c0.nii.gz")
        array = np.asarray(image.dataobj).copy()
        array[0, 0, :value] = value
        nib.save(nib.Nifti1Image(array, image.affine, image.header), out / "masks/c0.nii.gz")
        corrected.append((out / "masks/c0.nii.gz").read_bytes())
        with pytest.warns(InputWarning, match="renamed"):
            assert run(two[:1], config_for(out), redo_edited=True).done == 1
    copies = {path.read_bytes() for path in (out / "masks").glob("c0.edited*")}
    assert copies == set(corrected)
    assert len(copies) == 3


@pytest.mark.parametrize(
    "edit_table",
    [
        lambda text: "\n".join(f"{line},note" for line in text.splitlines()),
        lambda text: text + "c7,,threshold,done\n",
        lambda text: text.replace("\nc0,", "\nc0,patient of the reader", 1),
        lambda text: text.replace("case,", "\ufeffcase;", 1),
        lambda text: "my notes\n",
    ],
)
@pytest.mark.parametrize("merged", [False, True])
def test_an_edited_table_is_kept(two, tmp_path, edit_table, merged):
    out = tmp_path / "out"
    run(two, config_for(out))
    own = (out / "results.csv").read_text()
    assert (run(two, config_for(out), resume=True).skipped, (out / "results.csv").read_text()) == (2, own)
    assert merge_batch(out).results.read_text() == own
    (out / "results.csv").write_text(edit_table(own))
    edited = (out / "results.csv").read_text()
    with pytest.warns(InputWarning, match=r"renamed to results\.edited\.csv"):
        _ = merge_batch(out) if merged else run(two, config_for(out), resume=True)
    assert (out / "results.edited.csv").read_text() == edited
    assert (out / "results.csv").read_text() == own
