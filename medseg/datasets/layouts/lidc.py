"""LIDC-IDRI: CT series, each with an XML file with the contours of four readers.

Source: Armato et al. 2011, doi:10.1118/1.3528204, and the format of ``LidcReadMessage``: in each
``readingSession`` an ``unblindedReadNodule`` of at least 3 mm has contours (``roi``) of pixels just
outside of it, on slices identified by ``imageSOP_UID``; ``inclusion`` FALSE cuts a hole. The file names its
series (``SeriesInstanceUid``), so it may be in any folder, as in the archive of all readings.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pydicom

from medseg.datasets.layouts.case_naming import Found, ambiguous, distinct, safe
from medseg.datasets.manifest import Case
from medseg.errors import InputRefused
from medseg.images.label import Label
from medseg.images.volume import Mask, Volume
from medseg.io import read, write_to
from medseg.io.dicom import part10, signature
from medseg.io.formats import NIFTI
from medseg.io.overwrite_guard import replacing_equal
from medseg.system.folder_walk import walk

LABELS = tuple(Label(name=f"readers_{n}", values=(n,)) for n in (1, 2, 3, 4))
_PATIENT = re.compile(r"LIDC-IDRI-\d+")
_XML_BYTES = 64 << 20


def matches(folder: Path) -> bool:
    """Whether any XML file below the folder is an LIDC reading."""
    return any(_is_reading(path) for path in _xml(folder))


def find(folder: Path, made: Path) -> Found:
    """Each series with a label map of the number of readers (0 to 4) per voxel, written to ``made``."""
    series = _series(folder)
    readings: dict[Path, Path] = {}
    alone = []
    for path in _xml(folder):
        if not _is_reading(path):
            continue
        place = series.get(_series_uid(path))
        if place is None:  # a reading of a chest radiograph or of a missing series
            alone.append(path)
        elif readings.setdefault(place, path) != path:
            raise ambiguous("there are 2 readings of this series", place, (readings[place], path))
    places = sorted(readings)
    patients = [
        safe(next((p for p in place.relative_to(folder).parts if _PATIENT.fullmatch(p)), place.name))
        for place in places
    ]
    cases = []
    for name, patient, place in zip(distinct(patients), patients, places, strict=True):
        made.mkdir(parents=True, exist_ok=True)
        label = made / f"{name}.nii.gz"
        with replacing_equal(label) as fresh:  # readings may have been corrected by hand
            write_to(counted(readings[place], read(place)), fresh, NIFTI.name)
        cases.append(Case(id=name, patient=patient, images=(place,), label=label))
    alone += [place for place in series.values() if place not in readings]
    description = "Labels: number of readers (0 to 4) who marked the voxel."
    return Found(tuple(cases), tuple(alone), description)


def counted(path: Path, scan: Volume) -> Mask:
    """The number of readers (0 to 4) who marked each voxel, on the scan's grid.

    Args:
        path: The XML file.
        scan: The CT series that it refers to.

    Raises:
        InputRefused: the file is not an LIDC reading, or marks a slice that the scan lacks (``lidc-xml``).
    """
    root = _root(path)
    places = {_uid(file): at for at, file in enumerate(scan.source.files)}
    # Contours use columns and rows of the DICOM slices, which are the first two axes of the array.
    shape = scan.grid.shape
    total = np.zeros(shape, np.uint8)
    for session in root.iter(_tag(root, "readingSession")):
        marked = np.zeros(shape, np.bool_)
        for nodule in session.iter(_tag(root, "unblindedReadNodule")):
            own = np.zeros(shape, np.bool_)
            holes = np.zeros(shape, np.bool_)
            for roi in nodule.iter(_tag(root, "roi")):
                points = _points(roi, root)
                if len(points) < 3:  # nodules under 3 mm have a single point instead of an outline
                    continue
                uid = roi.findtext(_tag(root, "imageSOP_UID"), "").strip()
                if uid not in places:
                    raise InputRefused(
                        f"it marks a slice that the series lacks ({uid[:64]})",
                        where=path,
                        remedy="download the series again: a slice is missing",
                        reason="lidc-xml",
                    )
                inside = roi.findtext(_tag(root, "inclusion"), "TRUE").strip().upper() != "FALSE"
                (own if inside else holes)[..., places[uid]] |= _inner(points, shape[:2])
            marked |= own & ~holes
        total += marked
    return Mask(total, scan.grid, LABELS, scan.source)


def _inner(points: npt.NDArray[np.int64], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """The pixels inside a contour that runs just outside the nodule."""
    from skimage.draw import polygon, polygon_perimeter

    found = np.zeros(shape, np.bool_)
    found[polygon(points[:, 0], points[:, 1], shape)] = True
    found[polygon_perimeter(points[:, 0], points[:, 1], shape)] = False
    return found


def _points(roi: ElementTree.Element, root: ElementTree.Element) -> npt.NDArray[np.int64]:
    edges = roi.iter(_tag(root, "edgeMap"))
    both = [
        (int(edge.findtext(_tag(root, "xCoord"), "0")), int(edge.findtext(_tag(root, "yCoord"), "0")))
        for edge in edges
    ]
    return np.array(both, np.int64).reshape(-1, 2)


def _xml(folder: Path) -> list[Path]:
    return [path for path in walk(folder).files if path.suffix == ".xml"]


def _series(folder: Path) -> dict[str, Path]:
    """The folder of each CT series, identified by its first DICOM file."""
    found: dict[str, Path] = {}
    for place in sorted({path.parent for path in walk(folder).files}):
        for path in sorted(place.iterdir()):
            if path.is_file() and path.suffix.lower() != ".xml" and signature.is_dicom(path):
                head = part10.header(path, ["Modality", "SeriesInstanceUID"])
                if str(head.get("Modality") or "") == "CT":
                    uid = str(head.get("SeriesInstanceUID") or "")
                    if found.setdefault(uid, place) != place:
                        raise ambiguous("2 folders hold this series", place, (found[uid], place))
                break
    return found


def _series_uid(path: Path) -> str:
    root = _root(path)
    return next((str(item.text or "").strip() for item in root.iter(_tag(root, "SeriesInstanceUid"))), "")


def _uid(path: Path) -> str:
    head: pydicom.Dataset = part10.header(path, ["SOPInstanceUID"])
    return str(head.get("SOPInstanceUID") or "")


def _is_reading(path: Path) -> bool:
    return b"LidcReadMessage" in signature.beginning(path, 4096)


def _root(path: Path) -> ElementTree.Element:
    try:
        if path.stat().st_size > _XML_BYTES:
            raise ValueError(f"larger than {_XML_BYTES} bytes")
        text = path.read_bytes()
        if b"<!DOCTYPE" in text or b"<!ENTITY" in text:  # entities could grow without bounds
            raise ValueError("it declares entities")
        return ElementTree.fromstring(text)
    except (ValueError, ElementTree.ParseError) as error:
        raise InputRefused(
            f"not an LIDC reading: {str(error)[:100]}",
            where=path,
            remedy="download it again",
            reason="lidc-xml",
        ) from None


def _tag(root: ElementTree.Element, name: str) -> str:
    """The element's name with the namespace of the file."""
    return f"{root.tag.split('}')[0]}}}{name}" if root.tag.startswith("{") else name
