"""Writing masks and scans of one plane as PNG or TIFF."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg.errors import UsageError
from medseg.images.volume import Mask, Volume, Voxels


def write_png(image: Volume | Mask, path: Path) -> None:
    """Writes grey values of 8 or 16 bits; equal images give equal bytes.

    Raises:
        UsageError: more than one plane, or other numbers (``format``).
    """
    from PIL import Image

    plane = _plane(image, path)
    if plane.dtype not in (np.dtype(np.uint8), np.dtype(np.uint16)):
        raise _misfit(
            f"PNG holds 8 or 16 bits without sign, not {plane.dtype}", path, "write .tif or .nii.gz"
        )
    with path.open("wb") as file:
        Image.fromarray(plane).save(file, format="PNG")


def write_tiff(image: Volume | Mask, path: Path) -> None:
    """Writes the numbers as they are, packed with Deflate; BigTIFF beyond 4 GB.

    Raises:
        UsageError: more than one plane (``format``).
    """
    import tifffile

    tifffile.imwrite(path, _plane(image, path), compression="zlib", metadata=None, software="medseg")


def refuse_jpeg(image: Volume | Mask, path: Path) -> None:
    """Refuses to write JPEG, which would change the values.

    Raises:
        UsageError: always (``format``).
    """
    raise _misfit("JPEG changes the values of pixels", path, "write .png or .tif")


def _plane(image: Volume | Mask, path: Path) -> Voxels:
    """The one plane as (rows, columns), the first row at the top."""
    array = image.oriented("LPS").array
    if array.shape[2] != 1:
        slices = f"{array.shape[2]} slices"
        raise _misfit(f"a picture is one plane, and this image has {slices}", path, "write .nii.gz")
    plane = np.ascontiguousarray(array[..., 0].T)
    return plane.astype(np.uint8) if plane.dtype == np.bool_ else plane


def _misfit(problem: str, path: Path, remedy: str) -> UsageError:
    return UsageError(problem, where=path, remedy=remedy, reason="format")
