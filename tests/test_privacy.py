"""Patient data in a file reaches no output, file name, message, log or cache.

Every field that may hold it is filled with a canary, a word found nowhere else. Paths the user
gave and the SeriesInstanceUID, needed to choose a series, may appear.
"""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import Dataset, Sequence, dcmread, dcmwrite
from support import mutations
from support.commands import invoke
from support.worlds import tiny, untrained

import medseg
from medseg.errors import MedsegError
from medseg.io import write_dicom_series
from medseg.phantom.thorax import Thorax, default_grid
from medseg.visualization.overlays import overlay

GRID = default_grid((12.0, 13.0, 20.0), "LPS")
DATE, BIRTH, TIME = "19911231", "19530417", "231759"
# Text attributes of PS3.3 C.7.1 (patient), C.7.2 (study), C.7.3 (series), C.7.5 (equipment) and
# those PS3.15 table E.1-1 removes.
TEXTS = (
    "PatientName", "PatientID", "OtherPatientNames", "PatientComments", "PatientAddress", "PatientBirthName",
    "PatientMotherBirthName", "MilitaryRank", "EthnicGroup", "Occupation", "AdditionalPatientHistory",
    "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName",
    "StudyDescription", "SeriesDescription", "ProtocolName", "AccessionNumber", "StudyID", "ImageComments",
    "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "NameOfPhysiciansReadingStudy",
    "PhysiciansOfRecord", "RequestingPhysician", "DeviceSerialNumber", "AdmittingDiagnosesDescription",
    "RequestedProcedureDescription", "PerformedProcedureStepDescription", "AcquisitionComments",
    "DerivationDescription", "AcquisitionDeviceProcessingDescription", "ReasonForStudy", "FrameComments",
    "BodyPartExamined", "ContrastBolusAgent",
)  # fmt: skip
CANARIES = (*(f"CNRY{n}X" for n in range(len(TEXTS))), "CnryPrivate", "CnryNested", "CnryNii", "CnryItk")
WORDS = tuple(w.lower() for w in (*CANARIES, "Cnry", DATE, BIRTH, TIME))


def marked(ds: Dataset) -> Dataset:
    """A slice with a canary in every field of the patient."""
    for number, name in enumerate(TEXTS):
        setattr(ds, name, f"CNRY{number}X")
    for name in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
        setattr(ds, name, DATE)
    for name in ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime"):
        setattr(ds, name, TIME)
    ds.PatientBirthDate, ds.PatientAge, ds.PatientSex = BIRTH, "072Y", "O"
    block = ds.private_block(0x0009, "CnryPrivate 1", create=True)
    block.add_new(0x01, "LO", "CnryPrivate 2")
    block.add_new(0x02, "UN", b"CnryPrivate 3 ")
    nested = Dataset()
    nested.ScheduledProcedureStepDescription, nested.RequestedProcedureID = "CnryNested 1", "CnryNested 2"
    ds.RequestAttributesSequence = Sequence([nested])
    other = Dataset()
    other.PatientID, other.IssuerOfPatientID = "CnryNested 3", "CnryNested 4"
    ds.OtherPatientIDsSequence = Sequence([other])
    return ds


def dicom(folder: Path, change: Callable[[Dataset, int], Dataset | None] = lambda ds, n: ds) -> Path:
    """A series full of canaries; ``change`` alters a slice or drops it."""
    write_dicom_series(Thorax().scan(GRID), folder)
    for number, path in enumerate(sorted(folder.iterdir())):
        ds = change(marked(dcmread(path)), number)
        if ds is None:
            path.unlink()
        else:
            dcmwrite(path, ds)
    return folder


def nifti(path: Path, **changes: object) -> Path:
    scan = Thorax().scan(GRID)
    image = nib.Nifti1Image(np.asarray(scan.array), scan.grid.affine)
    for field, size in (("descrip", 79), ("aux_file", 23), ("intent_name", 15), ("db_name", 17)):
        image.header[field] = f"CnryNii {field}"[:size].encode()
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"CnryNii comment"))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("afni", b"CnryNii xml"))
    for field, value in changes.items():
        image.header[field] = value
    nib.save(image, path)
    return path


def itk(path: Path, *, seed: int = 0) -> Path:
    image = sitk.ReadImage(str(Thorax().scan(GRID, seed=seed).save(path.with_name(f"plain{path.suffix}"))))
    for key in ("PatientName", "Comment", "content", "0010|0010", "ITK_InputFilterName"):
        image.SetMetaData(key, f"CnryItk {key}")
    sitk.WriteImage(image, str(path))
    path.with_name(f"plain{path.suffix}").unlink()
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    dicom(folder / "series")
    nifti(folder / "scan.nii.gz")
    itk(folder / "scan.nrrd", seed=1)
    itk(folder / "scan.mha", seed=2)
    untrained(tiny()).save(folder / "m.safetensors")
    return folder


SCANS = ("series", "scan.nii.gz", "scan.nrrd", "scan.mha")


def bare(content: bytes) -> bytes:
    """Bytes normalised for searching: unpacked, in lower case, without the zeros of UTF-16."""
    return content.lower() + content.lower().replace(b"\0", b"")


def insides(path: Path) -> bytes:
    """A file's bytes, and what they unpack to."""
    content = path.read_bytes()
    found = bare(content)
    if content[:2] == b"\x1f\x8b":
        found += bare(gzip.decompress(content))
    if content[:2] == b"PK":
        with zipfile.ZipFile(path) as archive:
            found += b"".join(bare(archive.read(name)) for name in archive.namelist())
    start = content.find(b"\x78\x9c")
    if start >= 0:  # a compressed text in a PNG
        try:
            found += bare(zlib.decompressobj().decompress(content[start:]))
        except zlib.error:
            return found
    return found


def leaks(*texts: str, folder: Path | None = None) -> list[str]:
    """The canaries found in texts, and in files, their names and what they unpack to."""
    found = [f"{word} in {text[:300]!r}" for text in texts for word in WORDS if word in text.lower()]
    for path in sorted(folder.rglob("*")) if folder else ():
        inside = insides(path) if path.is_file() else b""
        name = str(path.relative_to(folder)).lower()
        found += [f"{word} in {path}" for word in WORDS if word.encode() in inside or word in name]
    return found


def test_the_canaries_exist_and_would_be_found(world, tmp_path):
    for name in SCANS:
        (tmp_path / name).mkdir()
        source = world / name
        for path in source.iterdir() if source.is_dir() else [source]:
            shutil.copy(path, tmp_path / name)
        assert len(leaks(folder=tmp_path / name)) >= 1, name
    leaked = "\n".join(leaks(folder=tmp_path / "series"))
    assert all(word in leaked for word in WORDS if "nii" not in word and "itk" not in word)
    whole = sys.executable, "-c", f"print({CANARIES[0]!r})"
    assert leaks(subprocess.run(whole, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("suffix", ["nii.gz", "nii", "nrrd", "mha", "mhd"])
def test_converted_scans_hold_nothing_of_the_patient(world, tmp_path, name, suffix):
    out, err = invoke("convert", world / name, "-o", tmp_path / f"scan.{suffix}")
    assert leaks(out, err, folder=tmp_path) == []


@pytest.mark.parametrize("name", SCANS)
def test_masks_sidecars_statistics_and_pictures_hold_nothing_of_the_patient(world, tmp_path, name):
    model = ("--model", world / "m.safetensors")
    stats = ("--stats", tmp_path / "stats.json")
    out, err = invoke("segment", world / name, "-o", tmp_path / "mask.nii.gz", *model, *stats)
    output, errors = invoke("segment", world / name, "-o", tmp_path / "mask.nrrd", *model, "--json")
    scan = medseg.read(world / name)
    mask = medseg.read_mask(tmp_path / "mask.nii.gz", tiny().labels)
    overlay(scan, mask, tmp_path / "picture.png")
    assert len(list(tmp_path.iterdir())) == 5
    assert leaks(out, err, output, errors, repr(scan), repr(mask), str(scan.source), folder=tmp_path) == []


@pytest.mark.parametrize("name", SCANS)
def test_info_reveals_nothing_of_the_patient(world, name):
    assert leaks(*invoke("info", world / name), *invoke("info", world / name, "--json")) == []


@pytest.mark.slow
def test_training_and_evaluation_hold_nothing_of_the_patient(world, tmp_path):
    Thorax().truth(GRID).save(tmp_path / "truth.nii.gz")
    rows = ["id,image,label,split"]
    for number, (name, split) in enumerate(
        [(SCANS[0], "train"), (SCANS[1], "train"), (SCANS[2], "val"), (SCANS[3], "test")]
    ):
        rows.append(f"c{number},{world / name},{tmp_path / 'truth.nii.gz'},{split}")
    (tmp_path / "cases.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "recipe.yaml").write_text(tiny(train={"epochs": 1}).yaml())
    run, cache = tmp_path / "run", tmp_path / "cache"
    texts = invoke(
        "train",
        tmp_path / "recipe.yaml",
        tmp_path / "cases.csv",
        "-o",
        run,
        "--cache",
        cache,
        "--workers",
        "0",
    )
    texts += invoke(
        "evaluate", tmp_path / "cases.csv", "-o", tmp_path / "tables", "--model", run / "model.safetensors"
    )
    assert any(cache.rglob("image.npy"))
    assert leaks(*texts, folder=tmp_path) == []


def lost(ds: Dataset, n: int) -> Dataset | None:
    return None if n == 3 else ds


def only(position: int, **values: object) -> Callable[[Dataset, int], Dataset]:
    """Changes attributes of one slice; None removes one."""

    def change(ds: Dataset, n: int) -> Dataset:
        for name, value in values.items() if n == position else ():
            if value is None:
                delattr(ds, name)
            else:
                setattr(ds, name, value)
        return ds

    return change


def everywhere(**values: object) -> Callable[[Dataset, int], Dataset]:
    def change(ds: Dataset, n: int) -> Dataset:
        return only(n, **values)(ds, n)

    return change


DAMAGE: dict[str, Callable[[Dataset, int], Dataset | None]] = {
    "a slice is missing": lost,
    "two series": only(2, SeriesInstanceUID="1.2.3"),
    "two patients": only(2, PatientID="Cnry99", PatientName="Cnry99", PatientBirthDate=BIRTH),
    "two studies": only(2, StudyInstanceUID="1.2.3"),
    "two orientations": only(2, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]),
    "two sizes": only(2, Rows=3),
    "two spacings": only(2, PixelSpacing=[1, 2]),
    "no position": only(2, ImagePositionPatient=None),
    "twice one position": only(2, ImagePositionPatient=[0, 0, 0]),
    "no pixels": only(2, PixelData=None),
    "too few pixels": only(2, PixelData=b"\0\0"),
    "another class": everywhere(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11"),
    "a modality": everywhere(Modality="US"),
    "no spacing": everywhere(PixelSpacing=None),
    "colour": everywhere(SamplesPerPixel=3, PhotometricInterpretation="RGB"),
    "other bits": only(2, BitsStored=12, HighBit=3),
    "no bits": everywhere(BitsAllocated=None),
    "a localizer": everywhere(ImageType=["DERIVED", "SECONDARY", "LOCALIZER"]),
    "rescale": only(2, RescaleSlope="7"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_refusals_of_dicom_reveal_nothing_of_the_patient(world, tmp_path, name):
    folder = dicom(tmp_path / "in", DAMAGE[name])
    (tmp_path / "out").mkdir()
    texts = list(printed("info", folder)) + list(printed("info", folder, "--json"))
    texts += printed(
        "segment", folder, "-o", tmp_path / "out" / "m.nii.gz", "--model", world / "m.safetensors"
    )
    assert leaks(*texts, folder=tmp_path / "out") == []


def printed(*arguments: object) -> tuple[str, str]:
    """What a command prints, whether it accepts the scan or not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["medseg"])
        for code in (0, 3):
            try:
                return invoke(*arguments, code=code)
            except AssertionError as error:
                if code == 3:
                    raise
                last = error
    raise last


@pytest.mark.parametrize(
    "changes",
    [
        {"qform_code": 0, "sform_code": 0},
        {"pixdim": [1, 0, 0, 0, 0, 0, 0, 0]},
        {"srow_x": [float("nan")] * 4},
        {"datatype": 1792},
        {"scl_slope": float("inf")},
        {"dim": [3, 30000, 30000, 30000, 1, 1, 1, 1]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_refusals_of_nifti_reveal_nothing_of_the_patient(tmp_path, changes):
    whole = bytearray(gzip.decompress(nifti(tmp_path / "scan.nii.gz").read_bytes()))
    header = nib.Nifti1Header.from_fileobj(io.BytesIO(bytes(whole)), check=False)
    for field, value in changes.items():
        header[field] = value
    whole[:348] = header.binaryblock[:348]
    (tmp_path / "scan.nii").write_bytes(whole)
    texts = printed("info", tmp_path / "scan.nii") + printed("info", tmp_path / "scan.nii", "--json")
    assert leaks(*texts) == []


@pytest.mark.slow
def test_refusals_of_damaged_slices_reveal_nothing_of_the_patient(tmp_path, caplog):
    folder = dicom(tmp_path / "series")
    path = sorted(folder.iterdir())[2]
    whole = path.read_bytes()
    for number in range(80):
        rng = np.random.default_rng([7, number])
        path.write_bytes(mutations.relength(whole, rng) if number % 2 else mutations.flipped(whole, rng))
        caplog.clear()
        message = ""
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                medseg.read(folder)
            except MedsegError as error:
                message = str(error)
        texts = [message, *(str(warning.message) for warning in warned), caplog.text]
        assert leaks(*texts) == [], number


@pytest.mark.parametrize("tag", [b"\x20\0\x0e\0", b"\x28\0\x04\0", b"\x08\0\x60\0", b"\x08\0\x16\0"])
def test_a_value_that_runs_into_its_neighbours_is_not_quoted(tmp_path, tag):
    """Too large a length makes names part of the SeriesInstanceUID, the modality and so on."""
    folder = dicom(tmp_path / "series")
    path = sorted(folder.iterdir())[2]
    whole = path.read_bytes()
    at = whole.index(tag)
    for longer in range(2, 600, 34):
        length = int.from_bytes(whole[at + 6 : at + 8], "little") + longer
        path.write_bytes(whole[: at + 6] + length.to_bytes(2, "little") + whole[at + 8 :])
        assert leaks(*printed("info", folder)) == [], longer


@pytest.mark.parametrize("command", ["info", "segment"])
def test_a_process_of_its_own_writes_nothing_of_the_patient_to_its_streams(world, tmp_path, command):
    """Libraries write to streams and logs on their own, for example about invalid dates and codes."""
    folder = dicom(tmp_path / "in")
    for path in folder.iterdir():  # pydicom would refuse to write them
        content = path.read_bytes().replace(DATE.encode(), b"CNRYDATE").replace(b"072Y", b"CNRY")
        path.write_bytes(content)
    arguments = [sys.executable, "-m", "medseg.cli", command, str(folder)]
    if command == "segment":
        arguments += ["-o", str(tmp_path / "m.nii.gz"), "--model", str(world / "m.safetensors")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert leaks(done.stdout, done.stderr) == []
