"""NRRD and MetaImage, through SimpleITK. World LPS and arrays (z, y, x) are converted here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the alias of its own documentation

from medseg.errors import InputRefused
from medseg.grid import Array, Grid
from medseg.io.choices import NO_CHOICES, Choices
from medseg.io.intensity import rescaled
from medseg.io.refusal import refusing
from medseg.volume import Mask, Source, Volume

# LPS to RAS and back: the same two signs change.
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# The spaces ITK's NRRD reader converts to its own LPS; any other is passed on unconverted.
_NRRD_SPACES = ("left-posterior-superior", "right-anterior-superior", "left-anterior-superior")


def read_nrrd(path: Path, choices: Choices = NO_CHOICES) -> Volume:
    """The scan in a .nrrd or .nhdr file, world RAS+ mm. See :func:`read_metaimage`."""
    return _read(path, choices, "NrrdImageIO", "nrrd")


def read_metaimage(path: Path, choices: Choices = NO_CHOICES) -> Volume:
    """The scan in a .mha or .mhd file, world RAS+ mm.

    Raises:
        InputRefused: damaged (``unreadable``), more than one channel or not 3D
            (``several-channels``), no anatomical space (``no-geometry``), complex
            (``pixel-type``), NaN or infinite (``not-finite``).
    """
    return _read(path, choices, "MetaImageIO", "mha")


def write(image: Volume | Mask, path: Path) -> None:
    """Writes NRRD or MetaImage, compressed; the suffix of ``path`` chooses."""
    array = image.array
    if array.dtype in (np.dtype(bool), np.dtype(np.float16)):  # ITK has neither
        array = array.astype(np.uint8 if array.dtype == np.dtype(bool) else np.float32)
    itk = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    lps = LPS @ image.affine
    spacing = np.asarray(image.grid.spacing_mm)
    itk.SetSpacing(spacing.tolist())
    itk.SetOrigin(lps[:3, 3].tolist())
    itk.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    # ITK knows its suffixes in lower case only: .MHA would become a header without data.
    lower = path.with_name(path.stem + path.suffix.lower())
    sitk.WriteImage(itk, str(lower), useCompression=True)
    if lower != path:
        lower.rename(path)


def grid_of(image: Any) -> Grid:
    """The RAS+ grid of a 3D SimpleITK image or of a reader that has read the header."""
    affine: Array = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    x, y, z = (int(n) for n in image.GetSize())
    return Grid((x, y, z), LPS @ affine)


def _read(path: Path, choices: Choices, imageio: str, name: str) -> Volume:
    with refusing(path, f"{name.upper()} file"):
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.SetImageIO(imageio)
        reader.ReadImageInformation()
        _check(reader, name)
        image = reader.Execute()
        # A copy: a view would dangle once the image is collected.
        array = sitk.GetArrayFromImage(image).T
        return Volume(rescaled(array), grid_of(image), Source(path, name))


def _check(reader: Any, name: str) -> None:
    """Refuses, from the header alone, what is not one 3D channel in a known space."""
    dimension, components = reader.GetDimension(), reader.GetNumberOfComponents()
    if dimension != 3 or components != 1:
        raise InputRefused(
            f"{dimension}D data with {components} numbers a voxel where one 3D channel is expected",
            reason="several-channels",
            remedy="export one 3D volume with one number a voxel",
        )
    space = reader.GetMetaData("NRRD_space") if reader.HasMetaDataKey("NRRD_space") else None
    if name == "nrrd" and space not in _NRRD_SPACES:
        raise InputRefused(
            f"the NRRD space is {space or 'not set'}, so left and right are unknown",
            reason="no-geometry",
            remedy=f"set the field 'space' to {_NRRD_SPACES[0]} or {_NRRD_SPACES[1]}",
        )
