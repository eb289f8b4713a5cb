"""The job of a container: DICOM in, DICOM masks and result.json out."""

import json
import subprocess

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid
from support.batches import chest, medseg

import medseg as package
from medseg import JobSettings, UsageError, run_job
from medseg.batch_processing import container_job
from medseg.io import write_dicom_series


@pytest.fixture
def study(tmp_path):
    """Two series and a damaged one in one flat folder, with mercure's names; and the folder for results."""
    place, out = tmp_path / "in", tmp_path / "out"
    place.mkdir()
    out.mkdir()
    for number in range(3):
        write_dicom_series(chest(number), tmp_path / f"series{number}")
        slices = sorted((tmp_path / f"series{number}").iterdir())
        if number == 2:
            slices.pop(4).unlink()  # a slice is missing
        for path in slices:
            ds = dcmread(path)
            path.rename(place / f"{ds.SeriesInstanceUID}#{ds.SOPInstanceUID}.dcm")
    return place, out


def write_task(place, **settings):
    task = {"id": "1", "process": {"module_name": "m", "settings": settings}}
    (place / "task.json").write_text(json.dumps(task))


def series_uids(place):
    return {path.name.split("#")[0] for path in place.glob("*.dcm")}


def test_each_series_gives_a_mask_on_its_grid_and_failures_are_named(study):
    place, out = study
    write_task(place, medseg={"model": "threshold", "measure": "lung"}, other={"x": 1})
    made = run_job(place, out)
    assert made == json.loads((out / "result.json").read_text())
    assert {each["series_uid"] for each in made["series"]} == series_uids(place)
    assert (made["failed"], made["__mercure_notification"]["requested"]) == (1, True)
    done = [each for each in made["series"] if each["status"] == "done"]
    (failed,) = (each for each in made["series"] if each["status"] == "failed")
    assert failed["reason"] == "missing-slices"
    assert {path.name for path in out.iterdir()} == {"result.json", *(each["file"] for each in done)}
    for each in done:
        assert each["measures"]["both_lungs"]["mean_hu"] < -700
        ds = dcmread(out / each["file"])
        assert each["file"] == f"{ds.SeriesInstanceUID}#{ds.SOPInstanceUID}.dcm"
        assert ds.ReferencedSeriesSequence[0].SeriesInstanceUID == each["series_uid"]
        # The same mask as that of the scan alone, on its grid.
        scan = package.read(next(place.glob(f"{each['series_uid']}#*")))
        labels = package.load_segmenter("threshold").labels
        mask = package.read_mask(out / each["file"], labels, scan)
        assert mask.grid == scan.grid
        assert np.array_equal(mask.array, package.segment(scan, model="threshold").array)


def test_running_again_changes_no_mask_and_replaces_the_result(study):
    place, out = study
    settings = JobSettings("threshold", "rtstruct")
    run_job(place, out, settings=settings)
    first = {path.name: path.read_bytes() for path in out.glob("*.dcm")}
    run_job(place, out, settings=settings)
    assert {path.name: path.read_bytes() for path in out.glob("*.dcm")} == first
    assert len(first) == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"modell": "threshold"},
        {"model": 3},
        {"format": "nifti"},
        {"measure": "liver"},
        {"roi": "left_lung"},
        ["threshold"],
    ],
)
def test_wrong_settings_are_refused(study, settings):
    place, _ = study
    write_task(place, medseg=settings)
    with pytest.raises(UsageError) as refused:
        JobSettings.read(place / "task.json")
    assert refused.value.reason == "job-settings"
    assert "task.json" in str(refused.value)


def test_settings_of_several_modules_and_of_none(study):
    place, _ = study
    steps = [{"settings": {"a": 1}}, {"settings": {"medseg": {"model": "threshold"}}}]
    (place / "task.json").write_text(json.dumps({"process": steps}))
    assert JobSettings.read(place / "task.json") == JobSettings("threshold")
    (place / "task.json").write_text('{"process": {"settings": {}}}')
    assert JobSettings.read(place / "task.json") == JobSettings()
    (place / "task.json").write_text("{")
    with pytest.raises(UsageError):
        JobSettings.read(place / "task.json")


def test_a_missing_folder_for_results_is_refused_before_any_work(study, tmp_path, monkeypatch):
    monkeypatch.setattr(container_job, "batch", lambda *_, **__: pytest.fail("work was done"))
    with pytest.raises(UsageError) as refused:
        run_job(study[0], tmp_path / "no", settings=JobSettings("threshold"))
    assert refused.value.reason == "no-folder"


def test_the_command_takes_the_folders_from_mercures_variables(study, monkeypatch):
    place, out = study
    for path in place.glob("*.dcm"):  # one sound series remains, and a report without an image
        if path.name.split("#")[0] != min(series_uids(place)):
            path.unlink()
    whole = all(len(list(place.glob(f"{uid}#*"))) == 10 for uid in series_uids(place))
    report = dcmread(next(place.iterdir()))
    for name in ("PixelData", "Rows", "Columns"):
        delattr(report, name)
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.67"
    report.SOPInstanceUID = report.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    report.SeriesInstanceUID, report.Modality = generate_uid(), "SR"
    report.save_as(place / f"{report.SeriesInstanceUID}#{report.SOPInstanceUID}.dcm")
    write_task(place, medseg={"model": "threshold"})
    monkeypatch.setenv("MERCURE_IN_DIR", str(place))
    monkeypatch.setenv("MERCURE_OUT_DIR", str(out))
    ended = subprocess.run(medseg("job"), capture_output=True, text=True, check=False)
    assert ended.returncode == (0 if whole else 1), ended.stderr
    assert json.loads((out / "result.json").read_text())["failed"] == (0 if whole else 1)
    assert ("missing-slices" in ended.stderr) is not whole


def test_the_command_without_folders_names_what_is_missing(monkeypatch):
    monkeypatch.delenv("MERCURE_IN_DIR", raising=False)
    monkeypatch.delenv("MERCURE_OUT_DIR", raising=False)
    ended = subprocess.run(medseg("job"), capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "MERCURE_IN_DIR and MERCURE_OUT_DIR" in ended.stderr
