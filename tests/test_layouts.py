"""Folders as public data sets have them, made small: the manifests and the voxels of their labels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from test_cli import both as cli

from medseg.errors import InputRefused, InputWarning, UsageError
from medseg.io import read, read_mask, write_dicom_series
from medseg.label import Label
from medseg.layouts import KINDS, lidc, manifest_of, organs, pairs
from medseg.manifest import Manifest
from medseg.phantom import Thorax, default_grid
from medseg.volume import Mask, Volume

GRID = default_grid((12.0, 14.0, 20.0), "LPS")
SCAN, TRUTH = Thorax().scan(GRID), Thorax().truth(GRID)
LUNGS = (Label(name="right_lung", values=(1, 3)), Label(name="left_lung", values=(2, 4)))


def put(folder: Path, *names: str, label: bool = False) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (TRUTH if label else SCAN).save(folder / name)


def found(folder: Path, layout: str | None = None) -> dict[str, tuple[str, str, str]]:
    """Image, label and patient of every case, relative to the folder."""
    cases = manifest_of(folder, layout, made=folder / "made").cases
    return {
        case.id: (
            case.images[0].relative_to(folder).as_posix(),
            case.label.relative_to(folder).as_posix(),
            case.patient,
        )
        for case in cases
    }


def series(folder: Path, seed: int) -> Volume:
    folder.mkdir(parents=True)
    write_dicom_series(Thorax.random(seed).scan(GRID), folder)
    return read(folder)


def test_images_and_labels_in_folders_side_by_side(tmp_path):
    put(tmp_path, "imagesTr/a.nii.gz", "imagesTr/b_0000.nii.gz", "imagesTr/c.nii.gz")
    put(tmp_path, "labelsTr/a.nii.gz", "labelsTr/b.nii.gz", "labelsTr/d.nii.gz", label=True)
    with pytest.warns(InputWarning) as told:
        assert found(tmp_path) == {
            "a": ("imagesTr/a.nii.gz", "labelsTr/a.nii.gz", "a"),
            "b_0000": ("imagesTr/b_0000.nii.gz", "labelsTr/b.nii.gz", "b_0000"),
        }
    assert [str(each.message).split(":")[0].rsplit("/", 1)[1] for each in told] == ["c.nii.gz", "d.nii.gz"]


def test_labels_beside_their_images(tmp_path):
    put(tmp_path, "a.nii.gz", "b.nrrd")
    put(tmp_path, "a_mask.nii.gz", "b-label.nrrd", label=True)
    assert found(tmp_path) == {"a": ("a.nii.gz", "a_mask.nii.gz", "a"), "b": ("b.nrrd", "b-label.nrrd", "b")}
    put(tmp_path, "a_seg.nii.gz", label=True)
    with pytest.raises(UsageError, match=r"2 labels could be those of this image: a_mask.*, a_seg"):
        found(tmp_path, "pairs")


def test_one_folder_a_case(tmp_path):
    put(tmp_path, "p1/ct.nii.gz", "p2/ct.nii.gz")
    put(tmp_path, "p1/lung_mask.nii.gz", "p2/lung_mask.nii.gz", label=True)
    assert found(tmp_path) == {
        "p1": ("p1/ct.nii.gz", "p1/lung_mask.nii.gz", "p1"),
        "p2": ("p2/ct.nii.gz", "p2/lung_mask.nii.gz", "p2"),
    }
    put(tmp_path, "p2/tumour_mask.nii.gz", label=True)
    with pytest.raises(UsageError, match="1 images and 2 labels in one folder"):
        found(tmp_path, "pairs")


def test_labels_of_another_folder_by_name(tmp_path):
    """COVID-19-CT-Seg: 20 scans, and three folders of masks of which one is wanted."""
    put(tmp_path, "scans/coronacases_001.nii.gz", "scans/radiopaedia_4.nii.gz")
    for kind in ("Lung_Mask", "Infection_Mask", "Lung_and_Infection_Mask"):
        put(tmp_path / kind, "coronacases_001.nii.gz", "radiopaedia_4.nii.gz", label=True)
    out = tmp_path / "covid.csv"
    cli("manifest", tmp_path / "scans", "--labels", tmp_path / "Lung_and_Infection_Mask", "-o", out)
    cases = Manifest.read(out).cases
    assert [case.id for case in cases] == ["coronacases_001", "radiopaedia_4"]
    assert {case.label.parent.name for case in cases} == {"Lung_and_Infection_Mask"}
    with pytest.raises(UsageError, match="no such folder"):
        pairs.named(tmp_path / "scans", tmp_path / "gone")


def test_bids(tmp_path):
    put(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", "sub-02/ses-a/anat/sub-02_ses-a_T1w.nii.gz")
    put(tmp_path, "sub-02/ses-b/anat/sub-02_ses-b_T1w.nii.gz", "sub-03/anat/sub-03_T1w.nii.gz")
    derived = tmp_path / "derivatives" / "manual"
    put(derived, "sub-01/anat/sub-01_desc-lungs_dseg.nii.gz", label=True)
    put(derived, "sub-02/ses-a/anat/sub-02_ses-a_T1w_dseg.nii.gz", label=True)
    put(derived, "sub-02/ses-b/anat/sub-02_ses-b_label-lung_mask.nii.gz", label=True)
    with pytest.warns(InputWarning, match="sub-03_T1w.*no partner"):
        cases = found(tmp_path)
    assert {name: (label.rsplit("/", 1)[1], who) for name, (_, label, who) in cases.items()} == {
        "sub-01_T1w": ("sub-01_desc-lungs_dseg.nii.gz", "sub-01"),
        "sub-02_ses-a_T1w": ("sub-02_ses-a_T1w_dseg.nii.gz", "sub-02"),
        "sub-02_ses-b_T1w": ("sub-02_ses-b_label-lung_mask.nii.gz", "sub-02"),
    }
    put(derived, "sub-01/anat/sub-01_dseg.nii.gz", label=True)
    with pytest.raises(UsageError, match="2 labels could be"):
        found(tmp_path)


def test_bids_with_two_contrasts_of_a_subject(tmp_path):
    put(tmp_path, "sub-1/anat/sub-1_T1w.nii.gz", "sub-1/anat/sub-1_T2w.nii.gz")
    put(tmp_path, "derivatives/m/sub-1/anat/sub-1_T2w_dseg.nii.gz", label=True)
    with pytest.warns(InputWarning, match="sub-1_T1w.*no partner"):
        assert list(found(tmp_path)) == ["sub-1_T2w"]


@pytest.mark.parametrize(("suffix", "format_"), [("seg.dcm", "dicom-seg"), ("rt.dcm", "rtstruct")])
def test_dicom_trees_as_tcia_gives_them(tmp_path, suffix, format_):
    """LCTSC, NSCLC-Radiomics: collection / patient / study / series; masks refer to their series."""
    root = tmp_path / "LCTSC"
    for number, patient in enumerate(("LCTSC-Train-S1-001", "LCTSC-Train-S1-002")):
        scan = series(root / patient / "study" / "ct", number)
        truth = Thorax.random(number).truth(GRID)
        mask = Mask(truth.array, scan.grid, LUNGS, scan.source)
        (root / patient / "study" / "labels").mkdir()
        mask.save(root / patient / "study" / "labels" / suffix, format=format_)
    series(root / "LCTSC-Train-S1-003" / "study" / "ct", 9)  # nobody has drawn it
    with pytest.warns(InputWarning, match="S1-003.*no partner"):
        cases = manifest_of(tmp_path, made=tmp_path).cases
    assert [case.id for case in cases] == ["LCTSC-Train-S1-001", "LCTSC-Train-S1-002"]
    assert [case.patient for case in cases] == [case.id for case in cases]
    for number, case in enumerate(cases):
        scan = read(case.images[0])
        mask = read_mask(case.label, LUNGS, scan)
        wanted = Mask(Thorax.random(number).truth(GRID).array, scan.grid, LUNGS)
        for label in LUNGS:
            found, true = mask.of(label.name), wanted.of(label.name)
            assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.97


def test_two_masks_of_one_series_are_refused(tmp_path):
    scan = series(tmp_path / "p" / "ct", 0)
    mask = Mask(TRUTH.array, scan.grid, LUNGS, scan.source)
    for name in ("a.dcm", "b.dcm"):
        (tmp_path / "p" / name[0]).mkdir()
        mask.save(tmp_path / "p" / name[0] / name, format="rtstruct")
    with pytest.raises(UsageError, match="2 masks refer to this series"):
        manifest_of(tmp_path, made=tmp_path)


def test_organs_of_totalsegmentator_become_two_lungs(tmp_path):
    case = tmp_path / "s0000"
    put(case, "ct.nii.gz")
    (case / "segmentations").mkdir()
    half = GRID.shape[2] // 2
    for name, value, part in (
        ("lung_upper_lobe_right", 1, np.s_[..., half:]),
        ("lung_lower_lobe_right", 1, np.s_[..., :half]),
        ("lung_upper_lobe_left", 2, np.s_[...]),
        ("heart", 3, np.s_[...]),
    ):
        array = np.zeros(GRID.shape, np.uint8)
        array[part] = (TRUTH.array == value)[part]
        Mask(array, GRID, (Label(name=name, values=(1,)),)).save(case / "segmentations" / f"{name}.nii.gz")
    put(tmp_path, "s0001/segmentations/heart.nii.gz", label=True)  # no lung, no scan
    with pytest.warns(InputWarning, match="s0001.*no partner"):
        (one,) = manifest_of(tmp_path, made=tmp_path / "labels").cases
    assert one.id == "s0000"
    made = read_mask(one.label, ())
    assert (made.array == np.where(np.isin(TRUTH.array, (1, 2)), TRUTH.array, 0)).all()


def test_organs_that_overlap_or_lie_elsewhere_are_refused(tmp_path):
    files = {}
    for name, array in (("right", TRUTH.array == 1), ("left", TRUTH.array == 2)):
        files[name] = tmp_path / f"{name}.nii.gz"
        Mask(array.astype(np.uint8), GRID, ()).save(files[name])
    assert set(np.unique(organs.together(files, {"right": 1, "left": 2}).array)) == {0, 1, 2}
    Mask((TRUTH.array > 0).astype(np.uint8), GRID, ()).save(files["left"])
    with pytest.raises(InputRefused, match="are in an organ of another value too") as caught:
        organs.together(files, {"right": 1, "left": 2})
    assert caught.value.reason == "organs-overlap"
    Thorax().truth(default_grid((12.0, 14.0, 25.0))).save(files["left"])
    with pytest.raises(InputRefused, match="not the grid of the other organs"):
        organs.together(files, {"right": 1, "left": 2})


def reading(scan: Volume, readers: list[list[tuple[int, str, list[tuple[int, int]]]]]) -> str:
    """The XML of readers, each with contours (slice, inclusion, points of column and row)."""
    import pydicom

    uids = [str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in scan.source.files]
    sessions = ""
    for contours in readers:
        rois = "".join(
            f"<roi><imageSOP_UID>{uids[at]}</imageSOP_UID><inclusion>{inside}</inclusion>"
            + "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in points)
            + "</roi>"
            for at, inside, points in contours
        )
        sessions += f"<readingSession><unblindedReadNodule>{rois}</unblindedReadNodule></readingSession>"
    return f'<?xml version="1.0"?><LidcReadMessage xmlns="http://www.nih.gov">{sessions}</LidcReadMessage>'


def test_readers_of_lidc_are_counted_by_hand(tmp_path):
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


def test_damaged_readings_of_lidc_are_refused(tmp_path):
    folder = tmp_path / "series"
    scan = series(folder, 0)
    text = reading(scan, [[(2, "TRUE", [(4, 6), (8, 6), (8, 10)])]])
    for bad, told in (
        (text.replace("</LidcReadMessage>", ""), "not a reading"),
        (text.replace("?>", '?><!DOCTYPE x [<!ENTITY a "b">]>'), "declares entities"),
        (text.replace("<imageSOP_UID>", "<imageSOP_UID>9."), "slice that the series has not"),
    ):
        (folder / "069.xml").write_text(bad)
        with pytest.raises(InputRefused, match=told) as caught:
            lidc.counted(folder / "069.xml", scan)
        assert caught.value.reason == "lidc-xml"


def test_folders_of_no_layout_are_refused(tmp_path):
    put(tmp_path, "a.nii.gz")
    with pytest.raises(UsageError, match="of no layout that is known"):
        found(tmp_path)
    with pytest.raises(UsageError, match="no layout is called 'x'"):
        found(tmp_path, "x")
    with pytest.raises(UsageError, match="no such folder"):
        manifest_of(tmp_path / "gone", made=tmp_path)
    with pytest.raises(UsageError, match="no case"):
        found(tmp_path, "pairs")


def test_every_layout_has_a_title():
    assert all(row.title for row in KINDS.values())


def test_the_command_divides_by_patient_and_makes_folds(tmp_path):
    data = tmp_path / "data"
    for number in range(6):
        put(data, f"images/c{number}.nii.gz")
        put(data, f"labels/c{number}.nii.gz", label=True)
    out, _ = cli("manifest", data, "-o", tmp_path / "m.csv", "--val", "0.34", "--test", "0.17", "--seed", "1")
    assert out.startswith("6 cases of 6 patients: 1 test, 3 train, 2 val")
    assert len(Manifest.read(tmp_path / "m.csv").split("val")) == 2
    cli("manifest", tmp_path / "m.csv", "-o", tmp_path / "k.yaml", "--folds", "3")
    names = [f"k_fold{number}.yaml" for number in range(3)]
    assert sorted(p.name for p in tmp_path.glob("k_*")) == names
    held = [case.id for name in names for case in Manifest.read(tmp_path / name).split("val")]
    assert len(held) == len(set(held)) == 5  # the one that was test stays so
    cli("manifest", data, "-o", tmp_path / "m.csv", "--folds", "2", "--val", "0.5", code=2)
    shutil.rmtree(data)
