"""LIDC's readings."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from support.layouts import reading, series

from medseg.datasets.layouts import lidc, manifest_of
from medseg.errors import InputRefused, InputWarning, UsageError
from medseg.io import read_mask


def test_counts_of_lidc_readers_by_hand(tmp_path):
    folder = tmp_path / "LIDC-IDRI" / "LIDC-IDRI-0001" / "study" / "series"
    scan = series(folder, 0)
    square = [(4, 6), (8, 6), (8, 10), (4, 10)]  # outside of 5..7 x 7..9
    hole = [(5, 7), (7, 7), (7, 9), (5, 9)]  # outside of 6 x 8
    point = [(6, 8)]  # a nodule under 3 mm
    readers = [[(2, "TRUE", square)], [(2, "TRUE", square), (2, "FALSE", hole)], [(3, "TRUE", point)], []]
    (folder / "069.xml").write_text(reading(scan, readers))
    (case,) = manifest_of(tmp_path, made=tmp_path / "labels").cases
    assert (case.id, case.patient) == ("LIDC-IDRI-0001", "LIDC-IDRI-0001")
    wanted = np.zeros(scan.grid.shape, np.uint8)
    wanted[5:8, 7:10, 2] = 2
    wanted[6, 8, 2] = 1
    made = read_mask(case.label, ())
    assert made.grid.distance_mm(scan.grid) < 0.01
    assert (made.array == wanted).all()


def test_readings_of_lidc_are_found_by_their_series(tmp_path):
    """The archive of all readings has folders of its own."""
    scan = series(tmp_path / "LIDC-IDRI" / "LIDC-IDRI-0007" / "study" / "series", 0)
    series(tmp_path / "LIDC-IDRI" / "LIDC-IDRI-0008" / "study" / "series", 1)
    text = reading(scan, [[(2, "TRUE", [(4, 6), (8, 6), (8, 10), (4, 10)])]])
    archive = tmp_path / "tcia-lidc-xml" / "157"
    archive.mkdir(parents=True)
    (archive / "158.xml").write_text(text)
    film = text.replace("<SeriesInstanceUid>", "<SeriesInstanceUid>9.")
    (archive / "159.xml").write_text(film)
    (archive / "160.xml").write_text("<other/>")
    with pytest.warns(InputWarning) as message:
        (case,) = manifest_of(tmp_path, made=tmp_path / "labels").cases
    assert {str(each.message).split(":")[0].rsplit("/", 3)[-3] for each in message} == {
        "tcia-lidc-xml",
        "LIDC-IDRI-0008",
    }
    assert case.patient == "LIDC-IDRI-0007"
    assert (read_mask(case.label, ()).array > 0).sum() == 9
    (archive / "161.xml").write_text(text)
    with pytest.raises(UsageError, match="2 readings of this series"):
        manifest_of(tmp_path, made=tmp_path / "labels")
    shutil.copytree(tmp_path / "LIDC-IDRI" / "LIDC-IDRI-0007", tmp_path / "again")
    with pytest.raises(UsageError, match="2 folders hold this series"):
        manifest_of(tmp_path, made=tmp_path / "labels")


def test_damaged_readings_of_lidc_are_refused(tmp_path):
    folder = tmp_path / "series"
    scan = series(folder, 0)
    text = reading(scan, [[(2, "TRUE", [(4, 6), (8, 6), (8, 10)])]])
    for bad, message in (
        (text.replace("</LidcReadMessage>", ""), "not an LIDC reading"),
        (text.replace("?>", '?><!DOCTYPE x [<!ENTITY a "b">]>'), "declares entities"),
        (text.replace("<imageSOP_UID>", "<imageSOP_UID>9."), "slice that the series lacks"),
    ):
        (folder / "069.xml").write_text(bad)
        with pytest.raises(InputRefused, match=message) as caught:
            lidc.counted(folder / "069.xml", scan)
        assert caught.value.reason == "lidc-xml"
