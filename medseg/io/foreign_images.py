"""Images of SimpleITK and nibabel, and arrays with an affine, where a volume or a mask is expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import nibabel
import numpy as np
import numpy.typing as npt

from medseg.errors import InputRefused, UsageError
from medseg.images.grid import LPS_RAS, Array, Grid
from medseg.images.label import Label
from medseg.images.volume import Mask, Source, Volume, Voxels, whole_numbers
from medseg.io import read_channels, read_mask
from medseg.io.affine_checks import plausible, squared
from medseg.io.nifti.header import Header
from medseg.io.nifti.orientation import geometry
from medseg.io.read_options import DEFAULT_OPTIONS, ReadOptions
from medseg.io.rescaling import rescaled


@runtime_checkable
class ItkImage(Protocol):
    """A ``SimpleITK.Image``, whose world is LPS."""

    def GetDirection(self) -> Sequence[float]: ...  # noqa: D102, N802

    def GetOrigin(self) -> Sequence[float]: ...  # noqa: D102, N802

    def GetSpacing(self) -> Sequence[float]: ...  # noqa: D102, N802


@runtime_checkable
class NibabelImage(Protocol):
    """A spatial image of nibabel, whose world is RAS+."""

    @property
    def affine(self) -> npt.NDArray[np.float64] | None: ...  # noqa: D102

    @property
    def dataobj(self) -> Any: ...  # noqa: D102


VolumeLike: TypeAlias = Volume | ItkImage | NibabelImage | tuple[npt.ArrayLike, npt.ArrayLike]
"""A volume, an image of SimpleITK or nibabel, or ``(array, affine)``: see :func:`as_volume`."""

ScanLike: TypeAlias = str | Path | VolumeLike
"""A path, or what is :data:`VolumeLike`."""

MaskLike: TypeAlias = str | Path | Mask | ItkImage | NibabelImage | tuple[npt.ArrayLike, npt.ArrayLike]
"""A path, a mask, or what :func:`as_mask` makes one of."""


def as_volume(image: ScanLike, options: ReadOptions = DEFAULT_OPTIONS) -> Volume:
    """A volume of whatever holds one: voxels (X, Y, Z) on a grid in RAS+ mm.

    Args:
        image: A path, as :func:`medseg.read` takes it; a :class:`Volume`, which is returned as it is; a 3D
            ``SimpleITK.Image`` of one component, whose world is LPS; a 3D image of nibabel, whose world is
            RAS+; or ``(array, affine)``: numbers (X, Y, Z) and the 4x4 matrix from voxels to RAS+ mm.
            An array of ``SimpleITK.GetArrayFromImage`` is (Z, Y, X): transpose it.
        options: For paths all of them; for other images ``nonfinite``.

    Returns:
        The volume. Its dtype is the smallest that loses nothing, as :func:`medseg.read` chooses it.

    Raises:
        InputRefused: it is not 3D (``not-3d``) or has several channels (``several-channels``), its affine is
            impossible (``geometry``), sheared (``sheared``) or missing (``no-geometry``), sform and qform
            disagree (``form-conflict``), or its voxels are not one finite number each (``pixel-type``,
            ``not-finite``); a path as :func:`medseg.read`.
        UsageError: it is none of these (``image-type``).

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
        f"no image can be made of {type(image).__name__}",
        where="scan",
        remedy="give a path, a Volume, an image of SimpleITK or nibabel, or (array (X, Y, Z), affine 4x4)",
        reason="image-type",
    )


def as_mask(image: MaskLike, labels: Sequence[Label] = (), scan: Volume | None = None) -> Mask:
    """A mask of whatever holds one: integers (X, Y, Z) on a grid in RAS+ mm.

    Args:
        image: A path, as :func:`medseg.read_mask` takes it; a :class:`Mask`, which is returned as it is; or
            what :func:`as_volume` takes, with whole numbers.
        labels: What its values mean; a mask has its own.
        scan: What a DICOM segmentation or structure set at a path is put on.

    Raises:
        InputRefused: values with a fraction (``mask-dtype``) or outside 0..65535 (``mask-range``), or as
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
    return Mask(whole_numbers(volume.array, "mask"), volume.grid, tuple(labels))


def is_image(value: object) -> bool:
    """Whether :func:`as_volume` may take it as one image: a list of images is none."""
    one = isinstance(value, str | Path | Volume | ItkImage | NibabelImage)
    return one or (isinstance(value, tuple) and _is_pair(value))


def _is_pair(value: tuple[Any, ...]) -> bool:
    """Whether it is an array with its affine."""
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
            "it has no affine, so the positions of its voxels are unknown",
            where="scan",
            remedy="give (array, affine) with the affine from voxels to RAS+ mm",
            reason="no-geometry",
        )
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
            f"{components} numbers a voxel where one is expected",
            where="scan",
            remedy="pass one volume for each channel",
            reason="several-channels",
        )
    x, y, z = map(int, shape)
    return x, y, z


def _grid(shape: Sequence[int], affine: Array) -> Grid:
    return squared(plausible(Grid(_check_shape(shape, 1), affine)), Path("scan"))
