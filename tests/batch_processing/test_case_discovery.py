import shutil
import subprocess

import numpy as np
import pytest
from pydicom import dcmread
from support.batches import chest, config_for, medseg, run
from support.dicom_masks import a_foreign

from medseg import Grid, Volume
from medseg.batch_processing.case_discovery import items
from medseg.batch_processing.messages import BatchConfig
from medseg.errors import InputWarning, UsageError
from medseg.io import read as read_scan
from medseg.io import write_dicom_series


def a_series(folder) -> Volume:
    """Two boxes of -800 HU (lungs) in one of 40 HU in air, as a CT series."""
    grid = Grid((24, 24, 10), np.diag([12.0, 12.0, 20.0, 1.0]))
    array = np.full(grid.shape, -1000, np.int16)
    array[2:-2, 2:-2] = 40
    array[4:8, 6:18, 2:8] = array[14:20, 6:18, 2:8] = -800
    return read_scan(write_dicom_series(Volume(array, grid), folder))


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("beside", [True, False])
def test_a_segmentation_of_a_scan_is_not_a_case(tmp_path, kind, beside):
    root = tmp_path / "in"
    root.mkdir()
    scan = a_series(root / "ct")
    pixels = (scan.array.T == -800).astype(np.uint8)
    place = root / "ct" if beside else root / "seg"
    place.mkdir(exist_ok=True)
    path = a_foreign(scan, place, pixels, kind, names=("Lung",))
    assert str(dcmread(path).SOPClassUID)[-2:] == {"BINARY": ".4", "LABELMAP": ".7"}[kind]
    with pytest.warns(InputWarning, match="not scans to segment"):
        found = items(root)
    assert [(item.id, item.images) for item in found] == [("ct", (root / "ct",))]
    if kind == "LABELMAP" and not beside:
        out = tmp_path / "out"
        ended = run(found, BatchConfig(models=("threshold",), folder=str(out), scratch=""))
        assert (ended.done, ended.failed) == (1, 0)
        assert [mask.name for mask in (out / "masks").iterdir() if mask.suffix == ".gz"] == ["ct.nii.gz"]


def test_a_dose_of_a_scan_is_not_a_case(tmp_path):
    scan = a_series(tmp_path / "ct")
    dose = dcmread(scan.source.files[0])
    dose.SOPClassUID = dose.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.2"
    dose.SeriesInstanceUID, dose.Modality = "1.2.3", "RTDOSE"
    (tmp_path / "dose").mkdir()
    dose.save_as(tmp_path / "dose" / "1.dcm")
    with pytest.warns(InputWarning, match="not scans to segment"):
        assert [item.id for item in items(tmp_path)] == ["ct"]


def test_a_folder_is_searched_for_series_and_images(tmp_path):
    root = tmp_path / "in"
    (root / "a" / "b").mkdir(parents=True)
    (root / ".hidden").mkdir()
    chest().save(root / "scan.nii.gz")
    chest().save(root / "a" / "scan.nii.gz")
    chest().save(root / "a_scan.nii.gz")
    chest().save(root / ".hidden" / "scan.nii.gz")
    (root / "notes.txt").write_text("nothing")
    for name in ("p1", "p2", "p3"):
        (root / name).mkdir()
    write_dicom_series(chest(), root / "p1" / "ct")
    write_dicom_series(chest(1), root / "p2" / "both")
    for number, path in enumerate(sorted(write_dicom_series(chest(2), root / "x").iterdir())):
        path.rename(root / "p2" / "both" / f"other{number}.dcm")
    (root / "x").rmdir()
    (root / "p3" / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)
    chest().save(root / "out.nii.gz")
    (root / "out").mkdir()
    chest().save(root / "out" / "mask.nii.gz")
    with pytest.warns(InputWarning, match="a_scan"):
        found = items(root, without=root / "out")
    names = [item.id for item in found]
    assert sorted(n for n in names if not n.startswith("p")) == ["a_scan_1", "a_scan_2", "out", "scan"]
    assert len([n for n in names if n.startswith("p2_both_")]) == 2
    assert {n for n in names if n.startswith(("p1", "p3"))} == {"p1_ct", "p3_broken"}
    out = tmp_path / "out"
    ended = run(found, config_for(out))
    assert (ended.done, ended.failed) == (7, 1)
    assert len({path.read_bytes() for path in (out / "masks").glob("p2*")}) >= 1


def spread_over_folders(volume, top, *, prefix=""):
    """The slices of a volume in folders DIR000 and DIR001 below ``top``."""
    series = write_dicom_series(volume, top.parent / f"{top.name}_{prefix}series")
    files = sorted(series.iterdir())
    for number, path in enumerate(files):
        folder = top / f"DIR{number * 2 // len(files):03d}"
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(folder / f"{prefix}{path.name}")
    series.rmdir()
    return len(files)


def test_a_series_in_several_folders_is_one_case(tmp_path):
    root = tmp_path / "cd"
    for patient in (1, 2):
        (root / f"p{patient}").mkdir(parents=True)
        spread_over_folders(chest(patient), root / f"p{patient}" / "DICOM")
    found = items(root)
    assert [(item.id, item.images) for item in found] == [
        ("p1_DICOM", (root / "p1" / "DICOM",)),
        ("p2_DICOM", (root / "p2" / "DICOM",)),
    ]
    assert all(read_scan(item.images[0]).grid == chest().grid for item in found)


def test_series_that_share_several_folders_are_one_case_each(tmp_path):
    spread_over_folders(chest(), tmp_path / "cd", prefix="a")
    spread_over_folders(chest(1), tmp_path / "cd", prefix="b")
    found = items(tmp_path / "cd")
    assert len(found) == 2
    assert len({item.id for item in found}) == 2
    assert all(read_scan(item.images[0]).grid.shape == chest().grid.shape for item in found)


def test_a_series_in_a_folder_and_in_one_within_it_is_one_case(tmp_path):
    """Also if another series lies in both, so that a file has to stand for it."""
    for number, prefix in enumerate("ab"):
        spread_over_folders(chest(number), tmp_path / "cd", prefix=prefix)
    (tmp_path / "cd" / "DIR001").rename(tmp_path / "cd" / "DIR000" / "more")
    found = items(tmp_path / "cd")
    assert len(found) == 2
    assert all(read_scan(item.images[0]).grid.shape == chest().grid.shape for item in found)


def test_parts_of_a_series_far_apart_are_named(tmp_path):
    for number, prefix in enumerate("ab"):
        spread_over_folders(chest(number), tmp_path / "all", prefix=prefix)
    for name in ("DIR000", "DIR001"):
        (tmp_path / "cd" / name).mkdir(parents=True)
        (tmp_path / "all" / name).rename(tmp_path / "cd" / name / "images")
    with pytest.warns(InputWarning) as caught:
        found = items(tmp_path / "cd")
    assert len(found) == 4
    assert [str(each.message).count("in 2 folders far apart") for each in caught] == [1, 1]


def test_copies_of_a_series_are_separate_cases(tmp_path):
    folder = write_dicom_series(chest(), tmp_path / "a")
    shutil.copytree(folder, tmp_path / "b")
    assert [item.id for item in items(tmp_path)] == ["a", "b"]


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UsageError) as refused:
        items(tmp_path)
    assert refused.value.reason == "no-cases"


def test_a_missing_source_is_refused_before_anything_is_written(tmp_path):
    ended = subprocess.run(
        medseg("batch", tmp_path / "no" / "such", "-o", tmp_path / "out"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "no such file or folder" in ended.stderr
    assert not (tmp_path / "out").exists()
