"""LIDC-IDRI: CT series, each with an XML file of the four readers' contours in its folder.

Source: Armato et al. 2011, doi:10.1118/1.3528204, and the form of ``LidcReadMessage``: in each
``readingSession`` an ``unblindedReadNodule`` of at least 3 mm has contours (``roi``) of pixels just
outside of it, on slices named by ``imageSOP_UID``; ``inclusion`` FALSE cuts a hole.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pydicom
from skimage.draw import polygon, polygon_perimeter

from medseg.errors import InputRefused
from medseg.io import part10, read
from medseg.label import Label
from medseg.layouts.found import Found, distinct, safe
from medseg.manifest import Case
from medseg.volume import Mask, Volume

LABELS = tuple(Label(name=f"readers_{n}", values=(n,)) for n in (1, 2, 3, 4))
_PATIENT = re.compile(r"LIDC-IDRI-\d+")
_XML_BYTES = 64 << 20


def matches(folder: Path) -> bool:
    """Whether any XML file below it is a reading of LIDC."""
    return any(_is_reading(path) for path in folder.rglob("*.xml"))


def find(folder: Path, made: Path) -> Found:
    """Each series with a map of how many of the four readers marked a voxel, written to ``made``."""
    readings = [path for path in sorted(folder.rglob("*.xml")) if _is_reading(path)]
    patients = [
        safe(next((p for p in path.relative_to(folder).parts if _PATIENT.fullmatch(p)), path.parent.name))
        for path in readings
    ]
    cases, alone = [], []
    for name, patient, path in zip(distinct(patients), patients, readings, strict=True):
        slices = _slices(path.parent)
        if not slices:  # the chest films have such files as well
            alone.append(path)
            continue
        scan = read(path.parent)
        made.mkdir(parents=True, exist_ok=True)
        label = counted(path, scan).save(made / f"{name}.nii.gz")
        cases.append(Case(id=name, patient=patient, images=(path.parent,), label=label))
    return Found(tuple(cases), tuple(alone))


def counted(path: Path, scan: Volume) -> Mask:
    """How many readers marked each voxel (0 to 4), on the scan's grid.

    Args:
        path: The XML file.
        scan: The CT series it refers to.

    Raises:
        InputRefused: it is no reading (``lidc-xml``), or marks a slice that the scan has not.
    """
    root = _root(path)
    places = {_uid(file): at for at, file in enumerate(scan.source.files)}
    # Contours are in columns and rows of the DICOM slices; the scan's array has them as its first axes.
    shape = scan.grid.shape
    total = np.zeros(shape, np.uint8)
    for session in root.iter(_tag(root, "readingSession")):
        marked = np.zeros(shape, np.bool_)
        for nodule in session.iter(_tag(root, "unblindedReadNodule")):
            own = np.zeros(shape, np.bool_)
            holes = np.zeros(shape, np.bool_)
            for roi in nodule.iter(_tag(root, "roi")):
                points = _points(roi, root)
                if len(points) < 3:  # nodules under 3 mm have one point, and no outline
                    continue
                uid = roi.findtext(_tag(root, "imageSOP_UID"), "").strip()
                if uid not in places:
                    raise InputRefused(
                        f"it marks a slice that the series has not ({uid[:64]})",
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
    """The pixels within a contour of pixels just outside."""
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


def _slices(folder: Path) -> list[Path]:
    found = []
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix.lower() != ".xml" and part10.is_dicom(path):
            if str(part10.header(path, ["Modality"]).get("Modality") or "") != "CT":
                return []
            found.append(path)
    return found


def _uid(path: Path) -> str:
    head: pydicom.Dataset = part10.header(path, ["SOPInstanceUID"])
    return str(head.get("SOPInstanceUID") or "")


def _is_reading(path: Path) -> bool:
    return b"LidcReadMessage" in part10.beginning(path, 4096)


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
            f"not a reading of LIDC: {str(error)[:100]}",
            where=path,
            remedy="download it again",
            reason="lidc-xml",
        ) from None


def _tag(root: ElementTree.Element, name: str) -> str:
    """The element's name with the namespace that the file has."""
    return f"{root.tag.split('}')[0]}}}{name}" if root.tag.startswith("{") else name
