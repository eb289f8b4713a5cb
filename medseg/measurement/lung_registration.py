"""Registration of the lungs in expiration to those in inspiration, with SimpleITK.

A fast registration for tables of air trapping, not the last word: the lungs' boxes are aligned, then demons
(Vercauteren et al. 2009) follow their surfaces and vessels at 3 mm. Its quality is measured in
`medseg.measurement.registered_expiration`, and a better field from elsewhere can be used instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.images.grid import Grid
from medseg.images.run_length import Array
from medseg.io.displacement_field import DisplacementField, find_field
from medseg.io.itk import as_itk
from medseg.measurement.lung_measures import LungScan

GRID_MM = 3.0
"""Voxel size of the registration."""

MARGIN_MM = 15.0
"""Around the inspiration's lungs."""

STEPS = ((4, 60), (2, 40), (1, 20))
"""Shrinking factor and iterations of demons at each level."""

SMOOTHING_VOXELS = 1.5
"""Standard deviation of the Gaussian that smooths the field after each iteration."""

_MOST = 3.0  # times the mean density of the lung; vessels are brighter, and are cut there


def register_lungs(inspiration: LungScan, expiration: LungScan) -> DisplacementField:
    """Where each place of the inspiration lies in the expiration, on a grid of `GRID_MM`.

    Both scans become maps of relative density (HU + 1000, divided by its mean in the lungs; the highest
    value outside), so that the lung's change of density on expiration does not count as movement.

    Args:
        inspiration: Both lungs, not empty.
        expiration: The same patient's.
    """
    import SimpleITK as sitk  # noqa: N813 - the alias of its own documentation

    fixed, moving = _relative_density(inspiration), _relative_density(expiration)
    box = _box_mm(inspiration)
    start = _aligned(box, _box_mm(expiration))
    lattice = _lattice(box)
    on_lattice = sitk.Resample(fixed, lattice, sitk.Transform(), sitk.sitkLinear, _MOST, sitk.sitkFloat32)
    aligned = sitk.Resample(moving, lattice, start, sitk.sitkLinear, _MOST, sitk.sitkFloat32)
    field = None
    for factor, iterations in STEPS:
        coarse = [_shrunk(image, factor) for image in (on_lattice, aligned)]
        demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
        demons.SetNumberOfIterations(iterations)
        demons.SetSmoothDisplacementField(True)
        demons.SetStandardDeviations(SMOOTHING_VOXELS)
        if field is None:
            field = demons.Execute(*coarse)
        else:
            field = demons.Execute(*coarse, sitk.Resample(field, coarse[0]))
    both = sitk.CompositeTransform([start, sitk.DisplacementFieldTransform(sitk.Cast(field, _VECTORS()))])
    whole = sitk.TransformToDisplacementField(
        both, _VECTORS(), lattice.GetSize(), lattice.GetOrigin(), lattice.GetSpacing(), lattice.GetDirection()
    )
    found = find_field(whole)
    assert found is not None  # it has three numbers per voxel
    return found


def _VECTORS() -> Any:  # noqa: N802
    import SimpleITK as sitk  # noqa: N813

    return sitk.sitkVectorFloat64


def _relative_density(lungs: LungScan) -> Any:
    """A SimpleITK image of the density within the lungs, 1 on average; `_MOST` outside."""
    inside = lungs.sides > 0
    density = np.full(inside.shape, _MOST, np.float32, order="F")
    found = lungs.hu[inside].astype(np.float32) + 1000
    density[inside] = (found / max(1.0, float(found.mean()))).clip(0, _MOST)
    return as_itk(density, lungs.grid)


def _box_mm(lungs: LungScan) -> npt.NDArray[np.float64]:
    """Lowest and highest coordinates of lung in RAS+ mm, (2, 3)."""
    places = lungs.grid.world(np.argwhere(lungs.sides[::2, ::2, ::2] > 0) * 2.0)
    if not len(places):
        places = lungs.grid.world(np.argwhere(lungs.sides > 0))
    return np.stack([places.min(axis=0), places.max(axis=0)])


def _aligned(box: Array, other: Array) -> Any:
    """The transform that takes one box to the other, as SimpleITK's, from LPS to LPS mm."""
    import SimpleITK as sitk  # noqa: N813

    scale = (other[1] - other[0]) / np.maximum(box[1] - box[0], GRID_MM)
    lps = np.array([-1.0, -1.0, 1.0])
    center, target = (lps * each.mean(axis=0) for each in (box, other))
    found = sitk.AffineTransform(3)
    found.SetMatrix(np.diag(np.where(scale > 0, scale, 1.0)).ravel().tolist())
    found.SetCenter(center.tolist())
    found.SetTranslation((target - center).tolist())
    return found


def _lattice(box: Array) -> Any:
    """An empty image of `GRID_MM` around a box in RAS+ mm."""
    low, high = box[0] - MARGIN_MM, box[1] + MARGIN_MM
    x, y, z = (int(np.ceil(mm / GRID_MM)) + 1 for mm in high - low)
    affine = np.diag([GRID_MM, GRID_MM, GRID_MM, 1.0])
    affine[:3, 3] = low
    return as_itk(np.zeros((x, y, z), np.uint8), Grid((x, y, z), affine))


def _shrunk(image: Any, factor: int) -> Any:
    """An image of coarser voxels, smoothed before."""
    import SimpleITK as sitk  # noqa: N813

    if factor == 1:
        return image
    smooth = sitk.SmoothingRecursiveGaussian(image, factor * GRID_MM / 2)
    return sitk.Shrink(smooth, [factor] * 3)
