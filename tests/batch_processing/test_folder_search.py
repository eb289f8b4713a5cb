"""A folder is searched for scans; masks, doses, pictures and pipes in it are left out and named."""

import os
import warnings

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.uid import generate_uid
from support.batches import chest, config_for, run

from medseg import Grid, Volume, segment_file
from medseg.batch_processing import folder_search
from medseg.batch_processing.case_discovery import Item, items
from medseg.batch_processing.fingerprint import inodes, stamp
from medseg.errors import InputWarning
from medseg.io import write_dicom_series


def quiet(folder, **options) -> list[str]:
    """Ids of the cases, whatever notices there are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sorted(item.id for item in items(folder, **options))


def series(folder):
    grid = Grid((16, 16, 6), np.diag([12.0, 12.0, 20.0, 1.0]))
    write_dicom_series(Volume(np.full(grid.shape, 40, np.int16), grid), folder)
    return sorted(folder.iterdir())


def other(path, slices, sop_class, modality, **tags):
    """One more file, of another SOP class and series."""
    image = dcmread(slices[0])
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = sop_class
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    image.SeriesInstanceUID, image.Modality = generate_uid(), modality
    for name, value in tags.items():
        setattr(image, name, value)
    path.parent.mkdir(exist_ok=True)
    image.save_as(path)


@pytest.mark.parametrize("beside", [True, False])
def test_pictures_and_scouts_beside_a_scan_are_not_cases(tmp_path, beside):
    slices = series(tmp_path / "ct")
    place = tmp_path / ("ct" if beside else "other")
    other(place / "RI.dcm", slices, "1.2.840.10008.5.1.4.1.1.481.1", "RTIMAGE")
    other(place / "SC.dcm", slices, "1.2.840.10008.5.1.4.1.1.7", "OT")
    other(place / "DX.dcm", slices, "1.2.840.10008.5.1.4.1.1.1.1", "DX")
    scout = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    other(place / "scout.dcm", slices, "1.2.840.10008.5.1.4.1.1.2", "CT", ImageType=scout)
    with pytest.warns(InputWarning, match="not scans to segment.* and 1 more") as caught:
        found = items(tmp_path)
    assert len(caught) == 1
    assert [item.id for item in found] == ["ct"]


def test_masks_written_by_medseg_are_not_cases(tmp_path):
    (tmp_path / "in").mkdir()
    chest().save(tmp_path / "in" / "x.nii.gz")
    segment_file(tmp_path / "in" / "x.nii.gz", tmp_path / "in" / "x_mask.nii.gz", model="threshold")
    assert quiet(tmp_path / "in") == ["x"]
    # The folder is input and output, and later input of another batch.
    run(items_of(tmp_path / "in"), config_for(tmp_path / "in", overlays=True))
    assert quiet(tmp_path / "in", without=tmp_path / "in") == ["x"]
    assert quiet(tmp_path, without=tmp_path / "elsewhere") == ["in_x"]


def items_of(folder) -> tuple[Item, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return items(folder)


def test_linked_folders_are_followed_once(tmp_path):
    store, view = tmp_path / "store", tmp_path / "view"
    for number in range(3):
        (store / f"p{number}").mkdir(parents=True)
        chest(number).save(store / f"p{number}" / "ct.nii.gz")
    (view / "p9").mkdir(parents=True)
    chest(9).save(view / "p9" / "ct.nii.gz")
    for number in range(3):
        (view / f"p{number}").symlink_to(store / f"p{number}")
    assert quiet(view) == ["p0_ct", "p1_ct", "p2_ct", "p9_ct"]
    (store / "p0" / "up").symlink_to(store)  # from p0 to all, of which three are known
    (view / "p9" / "back").symlink_to(view)
    assert len(quiet(view)) == 4
    with pytest.warns(InputWarning, match="not searched: "):
        items(view)


def test_links_that_lead_nowhere_are_named_or_fail(tmp_path):
    chest().save(tmp_path / "a.nii.gz")
    (tmp_path / "p1").symlink_to(tmp_path / "store" / "p1")  # was it a folder with a scan?
    (tmp_path / "b.nii.gz").symlink_to(tmp_path / "store" / "b.nii.gz")
    with pytest.warns(InputWarning, match=r"not searched: .*p1 \(a link that leads nowhere\)"):
        found = items(tmp_path)
    assert [item.id for item in found] == ["a", "b"]  # b becomes a failed case


def test_folders_that_cannot_be_searched_are_named(tmp_path, monkeypatch):
    for name in ("ok", "locked"):
        (tmp_path / name).mkdir()
        chest().save(tmp_path / name / "a.nii.gz")
    os.mkfifo(tmp_path / "ok" / "pipe.nii.gz")
    whole = os.scandir

    def scandir(path="."):  # tests may run as root, who may read all
        if "locked" in os.fspath(path):
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr(folder_search.os, "scandir", scandir)
    with pytest.warns(InputWarning) as caught:
        found = items(tmp_path)
    assert [item.id for item in found] == ["ok_a"]
    (text,) = (str(each.message) for each in caught)
    assert "locked (Permission denied)" in text
    assert "pipe.nii.gz (not a file)" in text


def test_a_pipe_in_a_manifest_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.nii.gz")
    assert stamp([tmp_path / "pipe.nii.gz"], {})
    assert inodes([tmp_path / "pipe.nii.gz"], {})


@pytest.mark.parametrize("letter", ["a", "ä"])
def test_long_names_are_shortened_with_a_digest(tmp_path, letter):
    name = letter * (240 // len(letter.encode()))
    chest().save(tmp_path / f"{name}.nii.gz")
    chest(1).save(tmp_path / f"{name[:-1]}b.nii.gz")
    found = items(tmp_path)
    assert len({item.id for item in found}) == 2
    assert all(len(item.id.encode()) <= 180 for item in found)
    ended = run(found, config_for(tmp_path / "out", overlays=True))
    assert (ended.done, ended.failed) == (2, 0)


def test_pictures_are_scans_only_where_there_are_no_others(tmp_path):
    for name in ("a.png", "deep/b.JPG", "deep/c.tiff"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (4, 3)).save(path)
    assert quiet(tmp_path) == ["a", "deep_b", "deep_c"]
    chest().save(tmp_path / "scan.nii.gz")
    assert quiet(tmp_path) == ["scan"]
