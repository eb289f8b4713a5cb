"""Folders as public data sets have them, made small."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pydicom

from medseg.datasets.layouts import manifest_of
from medseg.images.label import Label
from medseg.images.volume import Mask, Volume
from medseg.io import read, write_dicom_series
from medseg.phantom.thorax import Thorax, default_grid

GRID = default_grid((12.0, 14.0, 20.0), "LPS")
SCAN, TRUTH = Thorax().scan(GRID), Thorax().truth(GRID)
LUNGS = (Label(name="right_lung", values=(1, 3)), Label(name="left_lung", values=(2, 4)))


@cache
def person_of(seed: int) -> tuple[Volume, Mask]:
    """The scan and the truth of a phantom."""
    return Thorax.random(seed).scan(GRID), Thorax.random(seed).truth(GRID)


def put(folder: Path, *names: str, label: bool = False) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (TRUTH if label else SCAN).save(folder / name)


def series(folder: Path, seed: int, person: str | None = None) -> Volume:
    """A series whose PatientID is ``person``; by default another one for each seed."""
    folder.mkdir(parents=True)
    write_dicom_series(person_of(seed)[0], folder)
    for path in folder.iterdir():
        ds = pydicom.dcmread(path)
        ds.PatientID = f"secret-{seed}" if person is None else person
        ds.save_as(path)
    return read(folder)


def masked(
    place: Path, seed: int, person: str | None = None, *, format_: str = "rtstruct", again: bool = False
) -> Path:
    """A series ``ct`` with the phantom's lungs beside it; ``again``: for an existing series."""
    scan = read(place / "ct") if again else series(place / "ct", seed, person)
    (place / format_).mkdir(exist_ok=True)
    mask = Mask(person_of(seed)[1].array, scan.grid, LUNGS, scan.source)
    return mask.save(place / format_ / "1.dcm", format=format_)


def listed(folder: Path, text: dict[str, object]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(text))
    return folder


def msd(folder: Path) -> Path:
    """Three labelled cases, and one of the official test, which has no label."""
    entries = [{"image": f"./imagesTr/c{n}.nii.gz", "label": f"./labelsTr/c{n}.nii.gz"} for n in (1, 2, 3)]
    put(folder, *(f"imagesTr/c{n}.nii.gz" for n in (1, 2, 3)), "imagesTs/c4.nii.gz")
    put(folder, *(f"labelsTr/c{n}.nii.gz" for n in (1, 2, 3)), label=True)
    return listed(folder, {"name": "Lung", "training": entries, "test": ["./imagesTs/c4.nii.gz"]})


def reading(scan: Volume, readers: list[list[tuple[int, str, list[tuple[int, int]]]]]) -> str:
    """The XML of readers, each with contours (slice, inclusion, points of column and row)."""
    heads = [pydicom.dcmread(file, stop_before_pixels=True) for file in scan.source.files]
    # Axial slices from the feet up, by their own positions.
    uids = [str(head.SOPInstanceUID) for head in sorted(heads, key=lambda head: head.ImagePositionPatient[2])]
    series_uid = f"<SeriesInstanceUid>{heads[0].SeriesInstanceUID}</SeriesInstanceUid>"
    sessions = f"<ResponseHeader>{series_uid}</ResponseHeader>"
    for contours in readers:
        rois = "".join(
            f"<roi><imageSOP_UID>{uids[at]}</imageSOP_UID><inclusion>{inside}</inclusion>"
            + "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in points)
            + "</roi>"
            for at, inside, points in contours
        )
        sessions += f"<readingSession><unblindedReadNodule>{rois}</unblindedReadNodule></readingSession>"
    return f'<?xml version="1.0"?><LidcReadMessage xmlns="http://www.nih.gov">{sessions}</LidcReadMessage>'


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
