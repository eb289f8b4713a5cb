"""Conversion of SimpleITK and nibabel images, and of arrays with an affine, to volumes and masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from medseg.errors import InputRefused, UsageError
from medseg.images.grid import LPS_RAS, Array, Grid
from medseg.images.label import Label
from medseg.images.volume import Mask, Source, Volume, Voxels, whole_numbers
from medseg.io import nifti, read_channels, read_mask
from medseg.io.affine_checks import plausible, squared
from medseg.io.nifti.header import Header
from medseg.io.nifti.orientation import geometry
from medseg.io.read_options import DEFAULT_OPTIONS, ReadOptions
from medseg.io.rescaling import rescaled


@runtime_checkable
class ItkImage(Protocol):
    """A ``SimpleITK.Image``, with world coordinates in LPS."""

    def GetDirection(self) -> Sequence[float]: ...  # noqa: D102, N802

    def GetOrigin(self) -> Sequence[float]: ...  # noqa: D102, N802

    def GetSpacing(self) -> Sequence[float]: ...  # noqa: D102, N802


@runtime_checkable
class NibabelImage(Protocol):
    """A spatial image of nibabel, with world coordinates in RAS+."""

    @property
    def affine(self) -> npt.NDArray[np.float64] | None: ...  # noqa: D102

    @property
    def dataobj(self) -> Any: ...  # noqa: D102


VolumeLike: TypeAlias = Volume | ItkImage | NibabelImage | tuple[npt.ArrayLike, npt.ArrayLike]
"""A volume, an image of SimpleITK or nibabel, or ``(array, affine)``: see :func:`as_volume`."""

ScanLike: TypeAlias = str | Path | VolumeLike
"""A path or a :data:`VolumeLike`."""

MaskLike: TypeAlias = str | Path | Mask | ItkImage | NibabelImage | tuple[npt.ArrayLike, npt.ArrayLike]
"""A path, a mask, or another image that :func:`as_mask` accepts."""


def as_volume(image: ScanLike, options: ReadOptions = DEFAULT_OPTIONS) -> Volume:
    """A volume, voxels (X, Y, Z) on a grid in RAS+ mm, from a path or an image of another library.

    Args:
        image: A path, as for :func:`medseg.read`; a :class:`Volume`, which is returned unchanged; a 3D
            ``SimpleITK.Image`` with one component (world LPS); a 3D image of nibabel (world RAS+); or
            ``(array, affine)``: numbers (X, Y, Z) and the 4x4 matrix from voxels to RAS+ mm. The array of
            ``SimpleITK.GetArrayFromImage`` is (Z, Y, X) and must be transposed.
        options: All options apply to paths; only ``nonfinite`` applies to other images.

    Returns:
        The volume, in the smallest lossless dtype, as for :func:`medseg.read`.

    Raises:
        InputRefused: not 3D (``not-3d``), several channels (``several-channels``), an affine that is
            impossible (``geometry``), sheared (``sheared``) or missing (``no-geometry``), sform and qform
            that disagree (``form-conflict``), or voxels that are not one finite number each (``pixel-type``,
            ``not-finite``); for paths as :func:`medseg.read`.
        UsageError: an unsupported type (``image-type``).

    Example:
        >>> import numpy as np
        >>> volume = as_volume((np.zeros((4, 5, 6), np.int16), np.diag([2.0, 2.0, 3.0, 1.0])))
        >>> volume.grid.shape, volume.grid.axcodes
        ((4, 5, 6), 'RAS')
    """
    if isinstance(image, Volume):
        return image
    if isinstance(image, str | Path):
        return read_channels([image], choices=options)[0]
    if isinstance(image, ItkImage):
        stored, grid = _of_itk(image)
        return Volume(rescaled(stored, nonfinite=options.nonfinite), grid)
    if isinstance(image, NibabelImage):
        return _of_nibabel(image, options)
    if isinstance(image, tuple) and _is_pair(image):
        stored = np.asarray(image[0])
        return Volume(
            rescaled(stored, nonfinite=options.nonfinite), _grid(stored.shape, np.asarray(image[1]))
        )
    raise UsageError(
        f"{type(image).__name__} is not a supported type of image",
        where="scan",
        remedy="pass a path, a Volume, an image of SimpleITK or nibabel, or (array (X, Y, Z), affine 4x4)",
        reason="image-type",
    )


def as_mask(image: MaskLike, labels: Sequence[Label] = (), scan: Volume | None = None) -> Mask:
    """A mask, integers (X, Y, Z) on a grid in RAS+ mm, from a path or an image of another library.

    Args:
        image: A path, as for :func:`medseg.read_mask`; a :class:`Mask`, which is returned unchanged; or an
            image as for :func:`as_volume`, with whole numbers.
        labels: The meaning of the values; a :class:`Mask` has its own.
        scan: The scan to put a DICOM segmentation or structure set on.

    Raises:
        InputRefused: values with a fraction (``mask-dtype``) or outside 0..65535 (``mask-range``), or as for
            :func:`as_volume`.

    Example:
        >>> import numpy as np
        >>> array = np.zeros((4, 5, 6), np.uint8)
        >>> array[1:3, 2, 2] = 1
        >>> mask = as_mask((array, np.diag([10.0, 10.0, 10.0, 1.0])), [Label(name="node", values=(1,))])
        >>> round(mask.volumes_ml()["node"], 6)
        2.0
    """
    if isinstance(image, Mask):
        return image
    if isinstance(image, str | Path):
        return read_mask(image, labels, scan)
    volume = as_volume(image)
    slope = float(getattr(getattr(image, "dataobj", None), "slope", 0.0))
    array = whole_numbers(volume.array, "mask", rounding=nifti.scale_rounding(slope))
    return Mask(array, volume.grid, tuple(labels))


def is_image(value: object) -> bool:
    """Whether :func:`as_volume` accepts the value as one image; a list of images is not one."""
    one = isinstance(value, str | Path | Volume | ItkImage | NibabelImage)
    return one or (isinstance(value, tuple) and _is_pair(value))


def _is_pair(value: tuple[Any, ...]) -> bool:
    """Whether the tuple is an array with its affine."""
    return len(value) == 2 and isinstance(value[0], np.ndarray) and np.shape(value[1]) == (4, 4)


def _of_itk(image: Any) -> tuple[Voxels, Grid]:
    """Voxels (X, Y, Z) and the RAS+ grid of a ``SimpleITK.Image``, which is untyped."""
    import SimpleITK as sitk  # noqa: N813 - the alias of its own documentation

    _check_shape(image.GetSize(), image.GetNumberOfComponentsPerPixel())
    affine: Array = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    # ITK's array is (Z, Y, X). A copy, because the image may be changed or deleted.
    return sitk.GetArrayFromImage(image).T, _grid(image.GetSize(), LPS_RAS @ affine)


def _of_nibabel(image: NibabelImage, options: ReadOptions) -> Volume:
    proxy = image.dataobj
    shape = _check_shape(proxy.shape, 1)
    if image.affine is None:
        raise InputRefused(
            "the image has no affine, so the positions of its voxels are unknown",
            where="scan",
            remedy="pass (array, affine) with the affine from voxels to RAS+ mm",
            reason="no-geometry",
        )
    import nibabel

    source = Source()
    if isinstance(image, nibabel.Nifti1Pair):  # and Nifti1Image and both of NIfTI-2, its children
        header = Header(image.header, shape, np.dtype(np.uint8), offset=0, size=0, pair=False)
        grid, found = geometry(header, Path("scan"), options)
        # The header has single precision; the image's own affine may have more.
        exact = Grid(shape, image.affine)
        grid = exact if exact.same_as(grid) else grid
        source = replace(found, path=None, format="memory")
    else:
        grid = _grid(shape, image.affine)
    if hasattr(proxy, "get_unscaled"):  # so that integers (HU) stay integers
        stored, slope, intercept = np.asarray(proxy.get_unscaled()), float(proxy.slope), float(proxy.inter)
    else:
        stored, slope, intercept = np.asarray(proxy), 1.0, 0.0
    return Volume(rescaled(stored, slope, intercept, nonfinite=options.nonfinite), grid, source)


def _check_shape(shape: Sequence[int], components: int) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise InputRefused(
            f"{len(shape)}D data of size {' x '.join(map(str, shape))}, not a 3D volume",
            where="scan",
            remedy="pass one 3D volume",
            reason="not-3d",
        )
    if components != 1:
        raise InputRefused(
            f"{components} numbers per voxel instead of one",
            where="scan",
            remedy="pass one volume per channel",
            reason="several-channels",
        )
    x, y, z = map(int, shape)
    return x, y, z


def _grid(shape: Sequence[int], affine: Array) -> Grid:
    return squared(plausible(Grid(_check_shape(shape, 1), affine)), Path("scan"))
