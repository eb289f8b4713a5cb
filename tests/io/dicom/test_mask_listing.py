"""The masks of a DICOM folder, beside its series."""

import json

import pytest
from support.commands import invoke, output
from support.dicom_masks import a_mask, a_scan
from support.structure_sets import drawn, square

from medseg.io.dicom import rtstruct, seg
from medseg.io.dicom.mask_listing import list_masks


@pytest.fixture
def folder(tmp_path):
    """A series, a SEG and an RTSTRUCT of it, and an RTSTRUCT that refers to nothing."""
    pytest.importorskip("highdicom")
    scan = a_scan(tmp_path)
    (tmp_path / "masks").mkdir()
    seg.write(a_mask(scan), tmp_path / "masks" / "a.dcm")
    rtstruct.write(a_mask(scan), tmp_path / "masks" / "b.dcm")
    drawn(tmp_path / "masks" / "c.dcm", [square(1, 3, 2, 6)])
    return tmp_path


def rows(text):
    return [line.split() for line in text.splitlines() if line.startswith(("SEG ", "RTSTRUCT "))]


def test_masks_are_listed_with_their_segments_and_series(folder):
    masks = list_masks(folder)
    assert [(one.path.name, one.kind) for one in masks] == [
        ("a.dcm", "SEG"), ("b.dcm", "RTSTRUCT"), ("c.dcm", "RTSTRUCT"),
    ]  # fmt: skip
    assert [one.segments for one in masks][2] == 1
    assert masks[0].series == masks[1].series != ()
    assert masks[2].series == ()
    assert list_masks(folder / "masks" / "c.dcm") == masks[2:]


def test_info_shows_the_masks_of_one_series_and_of_several(folder):
    found = rows(output("info", folder))
    assert [(row[0], row[-1]) for row in found] == [
        ("SEG", "masks/a.dcm"), ("RTSTRUCT", "masks/b.dcm"), ("RTSTRUCT", "masks/c.dcm"),
    ]  # fmt: skip
    assert [" ".join(row[2:-1]) for row in found] == ["1", "1", "not here"]
    facts = json.loads(output("info", folder, "--json"))
    assert facts["shape"] == [7, 9, 5]
    assert [one["kind"] for one in facts["masks"]] == ["SEG", "RTSTRUCT", "RTSTRUCT"]

    (folder / "other").mkdir()
    a_scan(folder / "other", seed=5)
    assert "number  end of UID" in output("info", folder)
    assert len(rows(output("info", folder))) == 3
    listed = json.loads(output("info", folder, "--json"))
    assert len(listed["masks"]) == 3
    assert listed["masks"][0]["series"][0] in {one["uid"] for one in listed["series"]}


def test_a_folder_of_masks_is_named_as_one(folder):
    out, err = invoke("info", folder / "masks")
    assert "no scan here, only masks" in out
    assert len(rows(out)) == 3
    assert f"Next: medseg convert {folder / 'masks' / 'a.dcm'} -o mask.nii.gz --as-mask" in err
    assert json.loads(output("info", folder / "masks", "--json"))["series"] == []


def test_a_damaged_structure_set_is_listed_without_a_number(folder):
    path = folder / "masks" / "b.dcm"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    (one,) = [each for each in list_masks(folder) if each.path == path]
    assert one.kind == "RTSTRUCT"
    assert one.segments is None
    assert ["RTSTRUCT", "unknown"] in [row[:2] for row in rows(output("info", folder))]
