"""Displacement fields that registration tools write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import InputRefused
from medseg.images.grid import LPS_RAS, Grid
from medseg.io import formats, itk, nifti
from medseg.io.foreign_images import ItkImage
from medseg.io.path_checks import existing

_DISPLACEMENT_INTENT = 1006  # NIFTI_INTENT_DISPVECT: components along R, A and S; ITK writes 1007 and LPS
_FLIP = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class DisplacementField:
    """Where each place of a fixed image lies in a moving one: the place itself plus its vector.

    Attributes:
        vectors: float, (X, Y, Z, 3), RAS+ mm.
        grid: Of the fixed image, or a coarser one that covers it.
    """

    vectors: npt.NDArray[np.floating[Any]]
    grid: Grid

    def __post_init__(self) -> None:
        if self.vectors.shape != (*self.grid.shape, 3):
            raise InputRefused(
                f"vectors of shape {self.vectors.shape} on {self.grid!r}",
                where="displacement field",
                remedy="give one vector of three numbers for each voxel, (X, Y, Z, 3)",
                reason="several-channels",
            )
        if not np.isfinite(self.vectors).all():
            raise InputRefused(
                "the displacement field has vectors that are not finite",
                where="displacement field",
                remedy="register again, or give the registered scan instead",
                reason="not-finite",
            )


def find_field(image: object) -> DisplacementField | None:
    """The displacement field in a file or an image; None if it has one number per voxel, as a scan has.

    Args:
        image: A path to NIfTI or MetaImage with three numbers per voxel as ITK, SimpleITK, elastix and ANTs
            write them: mm along L, P and S, from the fixed to the moving image (NIfTI with the intent code
            1006: along R, A and S). Or such a ``SimpleITK.Image``, or ``(array (X, Y, Z, 3), affine)`` with
            vectors in RAS+ mm.

    Raises:
        InputRefused: the file cannot be read, or a vector is not finite (``not-finite``).
    """
    if isinstance(image, DisplacementField):
        return image
    if isinstance(image, str | Path):
        return _of_file(existing(image))
    if isinstance(image, ItkImage):
        return _of_itk(image)
    if isinstance(image, tuple) and len(image) == 2 and np.ndim(image[0]) == 4:
        vectors = np.asarray(image[0])
        x, y, z = vectors.shape[:3]
        return DisplacementField(vectors, Grid((x, y, z), np.asarray(image[1], np.float64)))
    return None


def _of_file(path: Path) -> DisplacementField | None:
    if path.is_dir():
        return None
    suffix = formats.SUFFIXES.get(formats.ending(path) or "")
    if suffix is not None and suffix.format is formats.NIFTI:
        found, intent = nifti.read_vectors(path)
        flip = intent != _DISPLACEMENT_INTENT
    elif suffix is not None and suffix.format is formats.METAIMAGE:
        found, flip = itk.read_vectors(path), True
    else:
        return None
    return None if found is None else DisplacementField(found[0] * _FLIP if flip else found[0], found[1])


def _of_itk(image: Any) -> DisplacementField | None:
    import SimpleITK as sitk  # noqa: N813 - the alias of its own documentation

    if image.GetNumberOfComponentsPerPixel() != 3 or image.GetDimension() != 3:
        return None
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    x, y, z = image.GetSize()
    vectors = np.moveaxis(sitk.GetArrayFromImage(image).T, 0, -1)
    return DisplacementField(vectors * _FLIP, Grid((x, y, z), LPS_RAS @ affine))
