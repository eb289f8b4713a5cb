"""No command replaces its inputs, or files that medseg did not write."""

import json
import os

import pytest
from support.batches import chest
from support.worlds import tiny, untrained

import medseg
from medseg.errors import UsageError
from medseg.io.overwrite_guard import OverwriteGuard


def refusal(check) -> UsageError:
    with pytest.raises(UsageError) as refused:
        check()
    return refused.value


@pytest.mark.parametrize("link", ["same", "symbolic", "hard", "folder"])
def test_an_output_that_is_an_input_is_refused_with_both_names(tmp_path, link):
    scan = tmp_path / "data" / "scan.nii.gz"
    scan.parent.mkdir()
    scan.write_bytes(b"scan")
    output = scan
    if link == "symbolic":
        output = tmp_path / "link.nii.gz"
        output.symlink_to(scan)
    elif link == "hard":
        output = tmp_path / "hard.nii.gz"
        os.link(scan, output)
    elif link == "folder":
        (tmp_path / "view").symlink_to(scan.parent)
        output = tmp_path / "view" / scan.name
    error = refusal(lambda: OverwriteGuard([scan]).check(output))
    assert error.reason == "overwrites-input"
    assert str(scan) in str(error)
    assert str(output) in str(error)


def test_a_file_in_an_input_folder_is_an_input(tmp_path):
    (tmp_path / "1.dcm").write_bytes(b"slice")
    guard = OverwriteGuard([tmp_path])
    assert refusal(lambda: guard.check(tmp_path / "1.dcm")).reason == "overwrites-input"
    guard.check(tmp_path / "new.dcm")


def test_a_mask_may_replace_an_earlier_mask_only(tmp_path):
    chest().save(tmp_path / "0.nii.gz")
    made = medseg.segment_file(tmp_path / "0.nii.gz", tmp_path / "mask.nii.gz", model="threshold")
    again = medseg.segment_file(tmp_path / "0.nii.gz", tmp_path / "mask.nii.gz", model="threshold")
    assert made.path.read_bytes() == again.path.read_bytes()
    for output, stats in (("0.nii.gz", None), ("mask.nii.gz", "0.nii.gz")):
        error = refusal(
            lambda output=output, stats=stats: medseg.segment_file(
                tmp_path / "0.nii.gz", tmp_path / output, model="threshold", stats=stats and tmp_path / stats
            )
        )
        assert error.reason == "overwrites-input"


@pytest.mark.parametrize("name", ["0.nii.gz", "mask.nii.gz"])
def test_a_preview_does_not_replace_its_scan_or_mask(tmp_path, name):
    chest().save(tmp_path / "0.nii.gz")
    medseg.segment_file(tmp_path / "0.nii.gz", tmp_path / "mask.nii.gz", model="threshold")
    before = (tmp_path / name).read_bytes()
    error = refusal(lambda: medseg.preview(tmp_path / "0.nii.gz", tmp_path / "mask.nii.gz", tmp_path / name))
    assert error.reason == "overwrites-input"
    assert (tmp_path / name).read_bytes() == before


def data_set(folder):
    """A scan and its truth in ``masks/``, where evaluations write their masks."""
    (folder / "masks").mkdir()
    chest().save(folder / "0.nii.gz")
    mask = medseg.segment(folder / "0.nii.gz", model="threshold")
    mask.save(folder / "masks" / "c0.nii.gz")
    (folder / "cases.csv").write_text("id,image,label,split\nc0,0.nii.gz,masks/c0.nii.gz,test\n")
    return folder / "masks" / "c0.nii.gz"


def test_an_evaluation_does_not_replace_the_truth(tmp_path):
    truth = data_set(tmp_path)
    before = truth.read_bytes()
    error = refusal(lambda: medseg.evaluate(tmp_path / "cases.csv", tmp_path, model="threshold"))
    assert error.reason == "overwrites-input"
    assert truth.read_bytes() == before


def test_an_evaluation_does_not_replace_masks_of_another_origin(tmp_path):
    data_set(tmp_path)
    other = tmp_path / "out" / "masks" / "c0.nii.gz"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"drawn by hand")
    error = refusal(lambda: medseg.evaluate(tmp_path / "cases.csv", tmp_path / "out", model="threshold"))
    assert error.reason == "foreign-file"
    assert other.read_bytes() == b"drawn by hand"
    other.unlink()
    for _ in range(2):  # its own masks it may replace
        medseg.evaluate(tmp_path / "cases.csv", tmp_path / "out", model="threshold")


@pytest.mark.parametrize("name", ["recipe.yaml", "cases.json", "history.csv"])
def test_a_training_does_not_replace_files_of_another_origin(tmp_path, name):
    from medseg.training.provenance import check_outputs

    (tmp_path / name).write_text("mine")
    assert refusal(lambda: check_outputs(tmp_path, [], tiny())).reason == "foreign-file"
    assert refusal(lambda: check_outputs(tmp_path, [tmp_path / name], tiny())).reason == "overwrites-input"
    (tmp_path / name).unlink()
    check_outputs(tmp_path, [], tiny())


def test_a_training_that_was_killed_in_its_first_moments_can_be_started_again(tmp_path):
    from medseg.training.provenance import check_outputs

    (tmp_path / "recipe.yaml").write_text(tiny().yaml())
    check_outputs(tmp_path, [], tiny())
    assert refusal(lambda: check_outputs(tmp_path, [], tiny(2))).reason == "foreign-file"


def test_an_edited_mask_is_not_segmented_over(tmp_path):
    chest().save(tmp_path / "0.nii.gz")
    made = medseg.segment_file(tmp_path / "0.nii.gz", tmp_path / "mask.nii.gz", model="threshold")
    edited = made.mask.array.copy()
    edited[0, 0, 0] = 1
    medseg.Mask(edited, made.mask.grid, made.mask.labels).save(made.path)
    before = made.path.read_bytes()
    error = refusal(lambda: medseg.segment_file(tmp_path / "0.nii.gz", made.path, model="threshold"))
    assert error.reason == "foreign-file"
    assert made.path.read_bytes() == before


@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.json", "stats.json", "mask.mha", "data.zraw"])
def test_a_segmentation_does_not_replace_files_of_another_origin(tmp_path, name):
    chest().save(tmp_path / "0.nii.gz")
    (tmp_path / name).write_text('{"labels": "of another program"}')
    output = {"mask.mha": "mask.mha", "data.zraw": "data.mhd"}.get(name, "mask.nii.gz")
    error = refusal(
        lambda: medseg.segment_file(
            tmp_path / "0.nii.gz", tmp_path / output, model="threshold", stats=tmp_path / "stats.json"
        )
    )
    assert (error.reason, error.where) == ("foreign-file", str(tmp_path / name))
    assert (tmp_path / name).read_text() == '{"labels": "of another program"}'
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["0.nii.gz", name])


def test_a_sidecar_of_an_earlier_version_is_believed(tmp_path):
    chest().save(tmp_path / "0.nii.gz")
    made = medseg.segment_file(tmp_path / "0.nii.gz", tmp_path / "mask.nii.gz", model="threshold")
    del made.facts["files"]
    (tmp_path / "mask.json").write_text(json.dumps(made.facts))
    medseg.segment_file(tmp_path / "0.nii.gz", tmp_path / "mask.nii.gz", model="threshold")


def test_statistics_may_be_written_into_the_sidecar(tmp_path):
    chest().save(tmp_path / "0.nii.gz")
    for _ in range(2):
        medseg.segment_file(
            tmp_path / "0.nii.gz", tmp_path / "m.nii.gz", model="threshold", stats=tmp_path / "m.json"
        )
    assert "intensities" in json.loads((tmp_path / "m.json").read_text())


@pytest.mark.parametrize("name", ["scan.nrrd", "scan.mhd", "scan.nii"])
def test_a_conversion_replaces_only_equal_content(tmp_path, name):
    chest().save(tmp_path / "0.nii.gz")
    chest(1).save(tmp_path / "1.nii.gz")
    medseg.convert(tmp_path / "0.nii.gz", tmp_path / name)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    medseg.convert(tmp_path / "0.nii.gz", tmp_path / name)
    error = refusal(lambda: medseg.convert(tmp_path / "1.nii.gz", tmp_path / name))
    assert error.reason == "foreign-file"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_converted_mask_is_replaced_until_it_is_edited(tmp_path):
    chest().save(tmp_path / "0.nii.gz")
    medseg.segment_file(tmp_path / "0.nii.gz", tmp_path / "mask.nii.gz", model="threshold")
    for labels in ((), (medseg.Label(name="lungs", values=(1, 2)),)):
        medseg.convert_mask(tmp_path / "mask.nii.gz", tmp_path / "mask2.nrrd", labels=labels)
    (tmp_path / "mask2.nrrd").write_bytes(b"edited")
    error = refusal(lambda: medseg.convert_mask(tmp_path / "mask.nii.gz", tmp_path / "mask2.nrrd"))
    assert error.reason == "foreign-file"


def test_a_picture_replaces_only_pictures_of_medseg(tmp_path):
    chest().save(tmp_path / "0.nii.gz")
    medseg.segment_file(tmp_path / "0.nii.gz", tmp_path / "mask.nii.gz", model="threshold")
    for slices in (3, 5):
        medseg.preview(tmp_path / "0.nii.gz", tmp_path / "mask.nii.gz", tmp_path / "a.png", slices=slices)
    for content in (b"a photograph", b""):
        (tmp_path / "b.png").write_bytes(content)
        error = refusal(
            lambda: medseg.preview(tmp_path / "0.nii.gz", tmp_path / "mask.nii.gz", tmp_path / "b.png")
        )
        assert error.reason == "foreign-file"
        assert (tmp_path / "b.png").read_bytes() == content


def test_an_evaluation_keeps_the_thumbnails_of_a_batch(tmp_path):
    data_set(tmp_path)
    batch = tmp_path / "batch"
    medseg.batch(tmp_path / "cases.csv", batch, model="threshold", resources=medseg.BatchResources(workers=1))
    (batch / "masks" / "c0.nii.gz").unlink()
    before = (batch / "thumbnails.jsonl").read_bytes()
    error = refusal(lambda: medseg.evaluate(tmp_path / "cases.csv", batch, model="threshold"))
    assert (error.reason, error.where) == ("foreign-file", str(batch / "thumbnails.jsonl"))
    assert (batch / "thumbnails.jsonl").read_bytes() == before


@pytest.mark.parametrize("name", ["evaluation.csv", "summary.md", "thumbnails.jsonl"])
def test_an_evaluation_does_not_replace_tables_of_another_origin(tmp_path, name):
    data_set(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("case,score\nmine,1\n")
    error = refusal(lambda: medseg.evaluate(tmp_path / "cases.csv", tmp_path / "out", model="threshold"))
    assert error.reason == "foreign-file"
    assert (tmp_path / "out" / name).read_text() == "case,score\nmine,1\n"


def test_a_comparison_does_not_replace_tables_of_another_origin(tmp_path):
    data_set(tmp_path)
    for name in ("a", "b"):
        medseg.evaluate(tmp_path / "cases.csv", tmp_path / name, model="threshold")
    tables = [tmp_path / name / "evaluation.csv" for name in ("a", "b")]
    for _ in range(2):
        medseg.compare(tables, output=tmp_path / "both")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "comparison.md").write_text("mine")
    assert refusal(lambda: medseg.compare(tables, output=tmp_path / "other")).reason == "foreign-file"


@pytest.mark.parametrize("name", ["cases.csv", "cases.json"])
def test_a_manifest_that_was_edited_is_not_replaced(tmp_path, name):
    from support.commands import output as command

    data_set(tmp_path)
    command("manifest", tmp_path / "cases.csv", "-o", tmp_path / "again" / name, code=2)  # no such folder
    (tmp_path / "again").mkdir()
    for _ in range(2):
        command("manifest", tmp_path / "cases.csv", "-o", tmp_path / "again" / name)
    edited = (tmp_path / "again" / name).read_text().replace("test", "val")
    (tmp_path / "again" / name).write_text(edited)
    command("manifest", tmp_path / "cases.csv", "-o", tmp_path / "again" / name, code=2)
    command("manifest", tmp_path / "cases.csv", "-o", tmp_path / "cases.csv", code=2)
    assert (tmp_path / "again" / name).read_text() == edited


def test_a_report_does_not_replace_another_page(tmp_path):
    data_set(tmp_path)
    medseg.evaluate(tmp_path / "cases.csv", tmp_path / "out", model="threshold")
    for _ in range(2):
        page = medseg.report(tmp_path / "out")
    page.write_text("<html>my notes</html>")
    assert refusal(lambda: medseg.report(tmp_path / "out")).reason == "foreign-file"
    assert page.read_text() == "<html>my notes</html>"


def test_phantoms_do_not_replace_files_of_another_origin(tmp_path):
    for _ in range(2):
        medseg.make_phantom(tmp_path / "a", 1)
    before = (tmp_path / "a" / "manifest.csv").read_text()
    assert refusal(lambda: medseg.make_phantom(tmp_path / "a", 2)).reason == "foreign-file"
    assert (tmp_path / "a" / "manifest.csv").read_text() == before
    (tmp_path / "a" / "labels" / "phantom_000.nii.gz").write_bytes(b"mine")
    assert refusal(lambda: medseg.make_phantom(tmp_path / "a", 1)).reason == "foreign-file"


def test_imported_weights_do_not_replace_a_trained_model(tmp_path):
    import torch

    (tmp_path / "recipe.yaml").write_text(tiny().yaml())
    trained = untrained(tiny()).save(tmp_path / "model.safetensors")
    before = trained.read_bytes()
    torch.save(dict(untrained(tiny(), seed=1).folds[0]), tmp_path / "weights.pt")
    arguments = tmp_path / "weights.pt", tmp_path / "recipe.yaml"
    assert refusal(lambda: medseg.import_weights(*arguments, output=trained)).reason == "foreign-file"
    assert trained.read_bytes() == before
    for _ in range(2):
        medseg.import_weights(*arguments, output=tmp_path / "imported.safetensors")
