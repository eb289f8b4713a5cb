"""Folders as public data sets have them, made small: the manifests and the voxels of their labels."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from support.commands import invoke
from support.dicom_masks import a_foreign, a_scan
from support.layouts import GRID, LUNGS, TRUTH, listed, masked, msd, person_of, put, reading, series

from medseg.datasets.layouts import REGISTRY, lidc, manifest_of, named, totalsegmentator
from medseg.datasets.manifest import Manifest
from medseg.errors import InputRefused, InputWarning, UsageError
from medseg.images.label import Label
from medseg.images.volume import Mask
from medseg.io import read, read_mask
from medseg.phantom.thorax import Thorax, default_grid


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


def test_linked_folders_of_cases_are_followed_and_missing_ones_named(tmp_path):
    store, view = tmp_path / "store", tmp_path / "view"
    put(store, "p0/ct.nii.gz", "p1/ct.nii.gz")
    put(store, "p0/mask.nii.gz", "p1/mask.nii.gz", label=True)
    put(view, "p2/ct.nii.gz")
    put(view, "p2/mask.nii.gz", label=True)
    for name in ("p0", "p1", "p3"):
        (view / name).symlink_to(store / name)
    with pytest.warns(InputWarning, match=r"p3 \(a link that leads nowhere\)") as caught:
        made = found(view)
    assert {case: image for case, (image, _, _) in made.items()} == {
        name: f"{name}/ct.nii.gz" for name in ("p0", "p1", "p2")
    }
    assert len(caught) == 1


def test_linked_folders_of_series_are_followed(tmp_path):
    masked(tmp_path / "store", 1)
    (tmp_path / "view").mkdir()
    (tmp_path / "view" / "patient").symlink_to(tmp_path / "store")
    ((image, label, _),) = found(tmp_path / "view").values()
    assert (image, label) == ("patient/ct", "patient/rtstruct/1.dcm")


def test_images_and_labels_in_folders_side_by_side(tmp_path):
    put(tmp_path, "imagesTr/a.nii.gz", "imagesTr/b_0000.nii.gz", "imagesTr/c.nii.gz")
    put(tmp_path, "labelsTr/a.nii.gz", "labelsTr/b.nii.gz", "labelsTr/d.nii.gz", label=True)
    with pytest.warns(InputWarning) as message:
        assert found(tmp_path) == {
            "a": ("imagesTr/a.nii.gz", "labelsTr/a.nii.gz", "a"),
            "b_0000": ("imagesTr/b_0000.nii.gz", "labelsTr/b.nii.gz", "b_0000"),
        }
    assert [str(each.message).split(":")[0].rsplit("/", 1)[1] for each in message] == ["c.nii.gz", "d.nii.gz"]


def test_labels_beside_their_images(tmp_path):
    put(tmp_path, "a.nii.gz", "b.nrrd")
    put(tmp_path, "a_mask.nii.gz", "b-label.nrrd", label=True)
    assert found(tmp_path) == {"a": ("a.nii.gz", "a_mask.nii.gz", "a"), "b": ("b.nrrd", "b-label.nrrd", "b")}
    put(tmp_path, "a_seg.nii.gz", label=True)
    with pytest.raises(UsageError, match=r"2 labels could belong to this image: a_mask.*, a_seg"):
        found(tmp_path, "pairs")


def test_one_folder_per_case(tmp_path):
    put(tmp_path, "p1/ct.nii.gz", "p2/ct.nii.gz")
    put(tmp_path, "p1/lung_mask.nii.gz", "p2/lung_mask.nii.gz", label=True)
    assert found(tmp_path) == {
        "p1": ("p1/ct.nii.gz", "p1/lung_mask.nii.gz", "p1"),
        "p2": ("p2/ct.nii.gz", "p2/lung_mask.nii.gz", "p2"),
    }
    put(tmp_path, "p2/tumour_mask.nii.gz", label=True)
    with pytest.raises(UsageError, match="1 images and 2 labels in one folder"):
        found(tmp_path, "pairs")


def test_visits_of_one_person_are_one_patient(tmp_path):
    put(tmp_path, "data/p1/2019/ct.nii.gz", "data/p1/2020/ct.nii.gz", "data/p2/2020/ct.nii.gz")
    for place in ("p1/2019", "p1/2020", "p2/2020"):
        put(tmp_path / "data", f"{place}/mask.nii.gz", label=True)
    cases = manifest_of(tmp_path, made=tmp_path).cases
    assert {case.id: case.patient for case in cases} == {"p1_2019": "p1", "p1_2020": "p1", "p2_2020": "p2"}


def test_two_files_with_the_same_name_are_refused(tmp_path):
    put(tmp_path, "images/a.nii.gz", "images/a_0000.nii.gz")
    put(tmp_path, "labels/a.nii.gz", label=True)
    with pytest.raises(UsageError, match=r"files with the same name: a\.nii\.gz, a_0000") as caught:
        found(tmp_path)
    assert caught.value.reason == "layout-ambiguous"


def test_cases_of_msd_without_a_label_are_in_no_split(tmp_path):
    """With them in test, no model could be evaluated: their labels are not public."""
    folder = msd(tmp_path / "Task06_Lung")
    put(folder, "imagesTr/c9.nii.gz")
    out, message = invoke("manifest", folder, "-o", tmp_path / "m.csv", "--val", "0.3", "--test", "0.3")
    assert out == "4 cases of 4 patients: 1 no split, 1 test, 1 train, 1 val\n"
    assert "c9.nii.gz: it has no partner" in message
    cases = Manifest.read(tmp_path / "m.csv").cases
    assert [case.id for case in cases if case.label is None] == ["c4"]
    assert next(case.split for case in cases if case.id == "c4") is None


def test_missing_files_of_msd_are_reported(tmp_path):
    (msd(tmp_path) / "labelsTr" / "c2.nii.gz").unlink()
    with pytest.raises(UsageError, match=r"1 listed files are missing, the first is .*labelsTr/c2") as caught:
        found(tmp_path)
    assert caught.value.reason == "layout-missing"


def test_nnunet_version_1_has_one_file_per_channel(tmp_path):
    put(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "imagesTr/ab_0000.nii.gz")
    put(tmp_path, "labelsTr/a.nii.gz", "labelsTr/ab.nii.gz", label=True)
    entries = [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in ("a", "ab")]
    cases = manifest_of(listed(tmp_path, {"modality": {"0": "T1"}, "training": entries}), made=tmp_path).cases
    assert [[path.name for path in case.images] for case in cases] == [
        ["a_0000.nii.gz", "a_0001.nii.gz"],
        ["ab_0000.nii.gz"],
    ]
    (tmp_path / "imagesTr" / "a_0000.nii.gz").unlink()  # a channel between others is missing
    with pytest.raises(UsageError, match=r"listed files are missing.*a_0000"):
        found(tmp_path)


def test_nnunet_version_2(tmp_path):
    put(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "imagesTs/b_0000.nii.gz")
    put(tmp_path, "imagesTs/b_0001.nii.gz")
    put(tmp_path, "labelsTr/a.nii.gz", label=True)
    text = {"channel_names": {"0": "T1", "1": "T2"}, "file_ending": ".nii.gz", "numTraining": 1}
    cases = manifest_of(listed(tmp_path, text), made=tmp_path).cases
    assert [(case.id, len(case.images), case.split) for case in cases] == [("a", 2, "train"), ("b", 2, None)]


def test_the_layout_of_an_ambiguous_folder_must_be_given(tmp_path):
    put(msd(tmp_path), "sub-1/anat/sub-1_T1w.nii.gz")
    with pytest.raises(UsageError, match=r"could be dataset\.json or bids") as caught:
        manifest_of(tmp_path, made=tmp_path)
    assert caught.value.reason == "layout-ambiguous"
    with pytest.warns(InputWarning, match="sub-1"):
        assert len(manifest_of(tmp_path, "dataset.json", made=tmp_path).cases) == 4


def test_labels_in_another_folder_are_matched_by_name(tmp_path):
    """COVID-19-CT-Seg: 20 scans, and three folders of masks, one of which is used."""
    put(tmp_path, "scans/coronacases_001.nii.gz", "scans/radiopaedia_4.nii.gz")
    for kind in ("Lung_Mask", "Infection_Mask", "Lung_and_Infection_Mask"):
        put(tmp_path / kind, "coronacases_001.nii.gz", "radiopaedia_4.nii.gz", label=True)
    out = tmp_path / "covid.csv"
    invoke("manifest", tmp_path / "scans", "--labels", tmp_path / "Lung_and_Infection_Mask", "-o", out)
    cases = Manifest.read(out).cases
    assert [case.id for case in cases] == ["coronacases_001", "radiopaedia_4"]
    assert {case.label.parent.name for case in cases} == {"Lung_and_Infection_Mask"}
    with pytest.raises(UsageError, match="no such folder"):
        named(tmp_path / "scans", tmp_path / "gone")


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


def test_bids_labels_that_match_two_images_or_no_subject(tmp_path):
    put(tmp_path, "sub-1/anat/sub-1_run-1_T1w.nii.gz", "sub-1/anat/sub-1_run-2_T1w.nii.gz")
    put(tmp_path, "derivatives/m/sub-1/anat/tumour_dseg.nii.gz", label=True)
    with (
        pytest.warns(InputWarning, match="no partner") as warned,
        pytest.raises(UsageError, match="no case"),
    ):
        found(tmp_path)
    assert any("tumour_dseg" in str(each.message) for each in warned)
    put(tmp_path, "derivatives/m/sub-1/anat/sub-1_T1w_dseg.nii.gz", label=True)
    with pytest.raises(UsageError, match="2 images could belong to this label"):
        found(tmp_path)


def test_bids_with_two_contrasts_of_a_subject(tmp_path):
    put(tmp_path, "sub-1/anat/sub-1_T1w.nii.gz", "sub-1/anat/sub-1_T2w.nii.gz")
    put(tmp_path, "derivatives/m/sub-1/anat/sub-1_T2w_dseg.nii.gz", label=True)
    with pytest.warns(InputWarning, match="sub-1_T1w.*no partner"):
        assert list(found(tmp_path)) == ["sub-1_T2w"]


@pytest.mark.parametrize("format_", ["dicom-seg", "rtstruct"])
def test_dicom_folders_as_downloaded_from_tcia(tmp_path, format_):
    """LCTSC, NSCLC-Radiomics: collection / patient / study / series; masks refer to their series."""
    root = tmp_path / "LCTSC"
    for number, patient in enumerate(("LCTSC-Train-S1-001", "LCTSC-Train-S1-002")):
        masked(root / patient / "study", number, format_=format_)
    series(root / "LCTSC-Train-S1-003" / "study" / "ct", 9)  # nobody has drawn it
    with pytest.warns(InputWarning, match="S1-003.*no partner"):
        cases = manifest_of(tmp_path, made=tmp_path).cases
    assert [case.id for case in cases] == ["LCTSC-Train-S1-001", "LCTSC-Train-S1-002"]
    assert [case.patient for case in cases] == [case.id for case in cases]
    for number, case in enumerate(cases):
        scan = read(case.images[0])
        mask = read_mask(case.label, LUNGS, scan)
        wanted = Mask(person_of(number)[1].array, scan.grid, LUNGS)
        for label in LUNGS:
            found, true = mask.of(label.name), wanted.of(label.name)
            assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.97


def test_two_masks_of_one_series_are_refused_unless_one_kind_is_named(tmp_path):
    """NSCLC-Radiomics has the same regions as RTSTRUCT and as SEG."""
    scan = series(tmp_path / "p" / "ct", 0)
    mask = Mask(person_of(0)[1].array, scan.grid, LUNGS, scan.source)
    for name in ("dicom-seg", "rtstruct"):
        (tmp_path / "p" / name).mkdir()
        mask.save(tmp_path / "p" / name / "1.dcm", format=name)
    with pytest.raises(UsageError, match=r"2 masks refer to this series: dicom-seg/1\.dcm, rtstruct/1"):
        manifest_of(tmp_path, made=tmp_path)
    for layout, name in (("dicom-seg", "dicom-seg"), ("dicom-rtstruct", "rtstruct")):
        (case,) = manifest_of(tmp_path, layout, made=tmp_path).cases
        assert case.label.parent.name == name


def test_a_label_map_segmentation_belongs_to_its_series(tmp_path):
    """SOP class 1.2.840.10008.5.1.4.1.1.66.7, in the standard since 2024."""
    (tmp_path / "p").mkdir()
    scan = a_scan(tmp_path / "p")
    pixels = np.random.default_rng(0).integers(0, 3, scan.grid.shape[::-1]).astype(np.uint8)
    path = a_foreign(scan, tmp_path / "p", pixels, "LABELMAP")
    for layout in ("dicom", "dicom-seg"):
        (case,) = manifest_of(tmp_path, layout, made=tmp_path).cases
        assert (case.images, case.label) == ((tmp_path / "p" / "series",), path)
    with pytest.warns(InputWarning, match="no partner"), pytest.raises(UsageError, match="no case"):
        manifest_of(tmp_path, "dicom-rtstruct", made=tmp_path)


def test_studies_of_one_person_are_one_patient_without_showing_the_header(tmp_path):
    masked(tmp_path / "p1" / "first", 1, "secret-1")
    masked(tmp_path / "p1" / "second", 2, "secret-1")
    masked(tmp_path / "p2" / "first", 3, "secret-2")
    manifest = manifest_of(tmp_path, made=tmp_path)
    assert {case.id: case.patient for case in manifest.cases} == {"p1_1": "p1", "p1_2": "p1", "p2": "p2"}
    assert "secret" not in manifest.write(tmp_path / "m.csv").read_text()
    with pytest.warns(InputWarning, match="first, second have the same PatientID"):
        (case, *_) = manifest_of(tmp_path / "p1", made=tmp_path).cases
    assert case.patient == "p1"  # the folders below are studies, not people


def test_one_patient_id_in_several_folders_is_reported(tmp_path):
    masked(tmp_path / "a", 1, "ANON")
    masked(tmp_path / "b", 2, "ANON")
    masked(tmp_path / "c", 3, "")
    with pytest.warns(InputWarning, match="a, b have the same PatientID"):
        cases = manifest_of(tmp_path, made=tmp_path).cases
    assert [case.patient for case in cases] == ["a", "a", "c"]


def test_people_in_one_folder_are_numbered(tmp_path):
    for seed, person in ((1, "secret-1"), (2, "secret-2")):
        place = tmp_path / "all" / str(seed)
        masked(place, seed, person)
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted((tmp_path / "all").rglob("*.dcm"))):
        shutil.copy(path, flat / f"{number:03d}.dcm")
    cases = manifest_of(flat, made=tmp_path).cases
    assert [case.patient for case in cases] == ["patient_1", "patient_2"]
    for number, case in enumerate(cases, start=1):
        mask = read_mask(case.label, LUNGS, read(case.images[0]))
        true = person_of(number)[1].array
        assert np.mean((mask.array > 0) == (np.isin(true, (1, 2, 3, 4)))) > 0.99


def test_masks_that_refer_to_no_or_several_series_and_damaged_files(tmp_path):
    path = masked(tmp_path / "p1", 1)
    other = series(tmp_path / "p2" / "ct", 2)
    ds = pydicom.dcmread(path)
    references = ds.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    second = copy.deepcopy(references.RTReferencedSeriesSequence[0])
    second.SeriesInstanceUID = str(pydicom.dcmread(other.source.files[0]).SeriesInstanceUID)
    references.RTReferencedSeriesSequence.append(second)
    ds.save_as(path)
    with pytest.raises(UsageError, match="it refers to 2 series"):
        manifest_of(tmp_path, made=tmp_path)
    del ds.ReferencedFrameOfReferenceSequence
    ds.save_as(path)
    (tmp_path / "damaged.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\x02\0\0\0UL\xff")
    with pytest.warns(InputWarning) as message, pytest.raises(UsageError, match="no case"):
        manifest_of(tmp_path, made=tmp_path)
    alone = {
        Path(str(each.message).split(": it has")[0]).relative_to(tmp_path).as_posix() for each in message
    }
    assert alone == {"p1/ct", "p2/ct", "p1/rtstruct/1.dcm", "damaged.dcm"}


def test_organs_of_totalsegmentator_become_two_lungs(tmp_path):
    case = tmp_path / "s0000"
    put(case, "ct.nii.gz")
    (case / "segmentations").mkdir()
    half = GRID.shape[2] // 2
    for name, value, part in (
        ("lung_upper_lobe_right", 1, np.s_[..., half:]),
        ("lung_middle_lobe_right", 1, np.s_[..., half - 1 : half]),
        ("lung_lower_lobe_right", 1, np.s_[..., : half - 1]),
        ("lung_upper_lobe_left", 2, np.s_[..., half:]),
        ("lung_lower_lobe_left", 2, np.s_[..., :half]),
        ("heart", 3, np.s_[...]),
    ):
        array = np.zeros(GRID.shape, np.uint8)
        array[part] = (TRUTH.array == value)[part]
        Mask(array, GRID, (Label(name=name, values=(1,)),)).save(case / "segmentations" / f"{name}.nii.gz")
    put(tmp_path, "s0001/segmentations/heart.nii.gz", label=True)  # no lung, no scan
    put(tmp_path, "s0002/ct.nii.gz")
    put(tmp_path, "s0002/segmentations/lung_lower_lobe_left.nii.gz", label=True)
    with pytest.warns(InputWarning) as message:
        manifest = manifest_of(tmp_path, made=tmp_path / "labels")
    lines = sorted(str(each.message).rsplit("/", 1)[1] for each in message)
    assert lines[0] == "s0001: it has no partner and is left out"
    assert lines[1].startswith("s0002: no file for lung_upper_lobe_right, lung_middle_lobe_right")
    (one,) = manifest.cases
    assert one.id == "s0000"
    assert "1 lung_upper_lobe_right" in manifest.description
    made = read_mask(one.label, ())
    assert (made.array == np.where(np.isin(TRUTH.array, (1, 2)), TRUTH.array, 0)).all()

    _, message = invoke(
        "manifest", tmp_path, "-o", tmp_path / "t.yaml", "--organs", "heart,lung_lower_lobe_left"
    )
    assert "Labels: 1 heart, 2 lung_lower_lobe_left." in message
    (one,) = Manifest.read(tmp_path / "t.yaml").cases
    left = (TRUTH.array == 2) & (np.arange(GRID.shape[2]) < half)
    wanted = np.where(TRUTH.array == 3, 1, np.where(left, 2, 0))
    assert (read_mask(one.label, ()).array == wanted).all()


def test_organs_have_values_by_their_order_or_as_given():
    assert totalsegmentator.values_of("heart, aorta") == {"heart": 1, "aorta": 2}
    assert totalsegmentator.values_of("kidney_left=2,kidney_right=2") == {"kidney_left": 2, "kidney_right": 2}


@pytest.mark.parametrize("text", ["", "heart,", "heart,heart", "heart=0", "heart=x", "heart=256", "a,b=1"])
def test_invalid_organs_are_refused(text):
    with pytest.raises(UsageError, match="is not a list of organs") as caught:
        totalsegmentator.values_of(text)
    assert caught.value.reason == "organs"


def test_organs_need_the_layout_totalsegmentator(tmp_path):
    with pytest.raises(UsageError, match="not in pairs"):
        manifest_of(tmp_path, "pairs", made=tmp_path, organ_values={"heart": 1})


def test_organs_that_overlap_or_have_another_grid_are_refused(tmp_path):
    files = {}
    for name, array in (("right", TRUTH.array == 1), ("left", TRUTH.array == 2)):
        files[name] = tmp_path / f"{name}.nii.gz"
        Mask(array.astype(np.uint8), GRID, ()).save(files[name])
    assert set(np.unique(totalsegmentator.together(files, {"right": 1, "left": 2}).array)) == {0, 1, 2}
    Mask((TRUTH.array > 0).astype(np.uint8), GRID, ()).save(files["left"])
    with pytest.raises(InputRefused, match="are also in an organ of another value") as caught:
        totalsegmentator.together(files, {"right": 1, "left": 2})
    assert caught.value.reason == "organs-overlap"
    Thorax().truth(default_grid((12.0, 14.0, 25.0))).save(files["left"])
    with pytest.raises(InputRefused, match="left is not on the grid of the other organs"):
        totalsegmentator.together(files, {"right": 1, "left": 2})


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


def test_folders_without_a_known_layout_are_refused(tmp_path):
    put(tmp_path, "a.nii.gz")
    with pytest.raises(UsageError, match="does not have any known layout"):
        found(tmp_path)
    with pytest.raises(UsageError, match="unknown layout 'x'"):
        found(tmp_path, "x")
    with pytest.raises(UsageError, match="no such folder"):
        manifest_of(tmp_path / "gone", made=tmp_path)
    with pytest.raises(UsageError, match="no case"):
        found(tmp_path, "pairs")


def test_every_layout_has_a_title_and_is_listed_in_the_help():
    assert all(row.title for row in REGISTRY.values())
    message, _ = invoke("manifest", "--help")
    assert all(kind in "".join(message.split()).replace("│", "") for kind in REGISTRY)


def test_the_command_splits_by_patient_and_makes_folds(tmp_path):
    data = tmp_path / "data"
    for number in range(6):
        put(data, f"images/c{number}.nii.gz")
        put(data, f"labels/c{number}.nii.gz", label=True)
    out, _ = invoke(
        "manifest", data, "-o", tmp_path / "m.csv", "--val", "0.34", "--test", "0.17", "--seed", "1"
    )
    assert out.startswith("6 cases of 6 patients: 1 test, 3 train, 2 val")
    assert len(Manifest.read(tmp_path / "m.csv").split("val")) == 2
    invoke("manifest", tmp_path / "m.csv", "-o", tmp_path / "k.yaml", "--folds", "3")
    names = [f"k_fold{number}.yaml" for number in range(3)]
    assert sorted(p.name for p in tmp_path.glob("k_*")) == names
    held = [case.id for name in names for case in Manifest.read(tmp_path / name).split("val")]
    assert len(held) == len(set(held)) == 5  # the one that was test stays so
    invoke("manifest", data, "-o", tmp_path / "m.csv", "--folds", "2", "--val", "0.5", code=2)
    invoke(
        "manifest", data, "-o", tmp_path / "m.csv", "--labels", data / "labels", "--layout", "pairs", code=2
    )
    invoke("manifest", tmp_path / "m.csv", "-o", tmp_path / "n.csv", "--layout", "pairs", code=2)
    out, _ = invoke("manifest", data, "-o", tmp_path / "n.yaml", "--only", "c[12]", "--name", "two")
    assert out == "2 cases of 2 patients: 2 no split\n"
    assert Manifest.read(tmp_path / "n.yaml").name == "two"
    _, message = invoke("manifest", data, "-o", tmp_path / "n.yaml", "--only", "x*", code=2)
    assert "it has no case" in message
