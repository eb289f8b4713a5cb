"""Finding the predicted mask of a case in a folder, in any format that can be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medseg.datasets.manifest import Case
from medseg.errors import InputRefused, UsageError, listed
from medseg.images.label import Label
from medseg.images.volume import Mask
from medseg.io import is_dicom_mask, read_channels, read_mask
from medseg.io.formats import DICOM, is_image, picture_ending, stem
from medseg.io.picture.masks import DEFAULT_CODING, MaskCoding


def read_prediction(
    folder: Path, case: Case, labels: Sequence[Label], coding: MaskCoding = DEFAULT_CODING
) -> Mask:
    """The mask of a case, read from ``<case id>`` with the suffix of any format.

    A DICOM segmentation or structure set is put on the grid of the case's scan.

    Args:
        folder: Folder of the masks.
        case: The case; its first image is read only for a DICOM mask.
        labels: Labels of the mask.
        coding: Colours of a mask that is a picture.

    Raises:
        InputRefused: there is no such file (``not-found``), or it cannot be read.
        UsageError: there are several (``layout-ambiguous``).
    """
    path = find_prediction(folder, case.id)
    image = case.images[0]
    sized = picture_ending(path) is not None and picture_ending(image) is None
    scan = read_channels([image])[0] if sized or is_dicom_mask(path) else None
    return read_mask(path, labels, scan, coding=coding)


def find_prediction(folder: Path, case_id: str) -> Path:
    """The only file in the folder that is named like the case: ``<case id>.nii.gz``, ``.nrrd``, ``.dcm`` ...

    Raises:
        InputRefused: there is none (``not-found``).
        UsageError: there are several (``layout-ambiguous``).
    """
    # Not glob(): ids may contain brackets. One listing per case is cheap beside reading the mask.
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    named = [path for path in files if path.is_file() and _case_id(path) == case_id]
    if not named:
        raise InputRefused(
            f"no mask is named {case_id}",
            where=folder,
            remedy=f"name it {case_id}.nii.gz, or with another suffix of an image or DICOM mask",
            reason="not-found",
        )
    if len(named) > 1:
        raise UsageError(
            f"{len(named)} masks could belong to case {case_id}: {listed(p.name for p in named)}",
            where=folder,
            remedy="keep one of them in this folder",
            reason="layout-ambiguous",
        )
    return named[0]


def _case_id(path: Path) -> str | None:
    """The id of the case that a file is named after; None if it is not a mask."""
    if is_image(path):
        return stem(path).removesuffix(".seg")  # 3D Slicer writes <name>.seg.nrrd
    if path.name.lower().endswith(DICOM) or picture_ending(path):
        return path.stem
    return path.name if not path.suffix and is_dicom_mask(path) else None
