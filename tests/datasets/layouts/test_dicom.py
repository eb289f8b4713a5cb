"""DICOM folders with SEG or RTSTRUCT."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from support.dicom_masks import a_foreign, a_scan
from support.layouts import LUNGS, masked, person_of, series

from medseg.datasets.layouts import manifest_of
from medseg.errors import InputWarning, UsageError
from medseg.images.volume import Mask
from medseg.io import read, read_mask


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
    with pytest.raises(UsageError, match="this mask refers to 2 series"):
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


def spread(folder: Path, *, prefix: str = "", top: Path | None = None) -> None:
    """Moves the slices of a series into folders DIR000 and DIR001 beside it, as exports do after N files."""
    files = sorted(folder.iterdir())
    for number, path in enumerate(files):
        place = (top or folder.parent) / f"DIR{number * 2 // len(files):03d}"
        place.mkdir(parents=True, exist_ok=True)
        path.rename(place / f"{prefix}{path.name}")
    folder.rmdir()


def lungs_agree(case, seed: int) -> bool:
    scan = read(case.images[0])
    found, true = read_mask(case.label, LUNGS, scan), person_of(seed)[1].array
    return scan.grid.shape == true.shape and np.mean((found.array > 0) == np.isin(true, (1, 2, 3, 4))) > 0.99


def test_a_series_in_several_folders_is_one_case_of_its_patient(tmp_path):
    for seed in (1, 2):
        masked(tmp_path / f"p{seed}" / "DICOM", seed)
        spread(tmp_path / f"p{seed}" / "DICOM" / "ct")
    cases = manifest_of(tmp_path, made=tmp_path).cases
    assert [(case.id, case.patient) for case in cases] == [("p1", "p1"), ("p2", "p2")]
    assert all(lungs_agree(case, seed) for case, seed in zip(cases, (1, 2), strict=True))


def test_series_that_share_several_folders_are_one_case_each(tmp_path):
    for seed in (1, 2):
        masked(tmp_path / f"m{seed}", seed, f"secret-{seed}")
        spread(tmp_path / f"m{seed}" / "ct", prefix=f"{seed}_", top=tmp_path / "export")
    cases = manifest_of(tmp_path, made=tmp_path).cases
    assert len({case.patient for case in cases}) == len(cases) == 2
    assert all(lungs_agree(case, seed) for case, seed in zip(cases, (1, 2), strict=True))


def test_a_series_in_the_folder_of_its_mask_and_in_another_is_one_case(tmp_path):
    """The first half lies beside the structure set, the rest in a folder below."""
    masked(tmp_path / "p1", 1)
    files = sorted((tmp_path / "p1" / "ct").iterdir())
    (tmp_path / "p1" / "rtstruct" / "more").mkdir()
    for number, path in enumerate(files):
        below = "more" if number % 2 else "."
        path.rename(tmp_path / "p1" / "rtstruct" / below / f"s{number:03d}.dcm")
    (case,) = manifest_of(tmp_path, made=tmp_path).cases
    assert lungs_agree(case, 1)


def test_parts_of_a_series_far_apart_are_named(tmp_path):
    for seed in (1, 2):
        masked(tmp_path / f"m{seed}", seed, f"secret-{seed}")
        spread(tmp_path / f"m{seed}" / "ct", prefix=f"{seed}_", top=tmp_path / "export")
    for name in ("DIR000", "DIR001"):
        (tmp_path / "export" / name).rename(tmp_path / name)
        (tmp_path / "export" / name).mkdir()
        (tmp_path / name).rename(tmp_path / "export" / name / "images")
    with pytest.warns(InputWarning) as caught:
        cases = manifest_of(tmp_path, made=tmp_path).cases
    assert len(cases) == 2
    assert sum("in 2 folders far apart" in str(each.message) for each in caught) == 2
