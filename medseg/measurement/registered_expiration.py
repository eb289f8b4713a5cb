"""An expiration on the grid of its inspiration, and how well the registration that put it there fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from medseg.images.grid import Grid
from medseg.images.run_length import Array
from medseg.io.displacement_field import DisplacementField
from medseg.io.itk import as_itk
from medseg.measurement.lung_measures import LungScan

AIR_HU = -1024.0
"""What lies outside of the expiration."""

# Interpolation leaves rounding errors of single precision, which must not decide about a threshold.
_STEPS_PER_HU = np.float32(16)


@dataclass(frozen=True)
class RegistrationQuality:
    """How well a registration fits; None where it cannot be known.

    Attributes:
        dice_before: Overlap (Dice) of both scans' lungs where they lie, without registration.
        dice: The same with the registration.
        correlation: Pearson's correlation of the HU of both scans in the lung that both cover.
        residual_g_per_l: Mean absolute difference of density (HU + 1000) in that lung between the inspiration
            and the expiration times the local change of volume: 0 if no mass moved in or out.
        folded_percent: Share of the lung where the field folds: its Jacobian determinant is not positive.
    """

    dice_before: float | None = None
    dice: float | None = None
    correlation: float | None = None
    residual_g_per_l: float | None = None
    folded_percent: float | None = None


@dataclass(frozen=True, eq=False)
class RegisteredExpiration:
    """The expiration on the inspiration's grid.

    Attributes:
        hu: (X, Y, Z), linearly interpolated.
        covered: bool (X, Y, Z): lung of the inspiration on which lung of the expiration lies; if only a
            registered scan is known, all lung.
        quality: Of the registration.
    """

    hu: Array
    covered: Array
    quality: RegistrationQuality


def of_registered_scan(inspiration: LungScan, hu: Array) -> RegisteredExpiration:
    """The expiration from a scan that another tool has put on the inspiration's grid.

    Args:
        inspiration: Both lungs.
        hu: The registered scan in their box.
    """
    covered = inspiration.sides > 0
    return RegisteredExpiration(
        hu, covered, RegistrationQuality(correlation=_correlation(inspiration.hu, hu, covered))
    )


def of_field(inspiration: LungScan, expiration: LungScan, field: DisplacementField) -> RegisteredExpiration:
    """The expiration moved by a displacement field.

    Args:
        inspiration: Both lungs.
        expiration: Both lungs on their own grid.
        field: From the inspiration to the expiration.
    """
    import SimpleITK as sitk  # noqa: N813 - the alias of its own documentation

    vectors = _as_vectors(field)
    fixed = as_itk(inspiration.sides, inspiration.grid)
    jacobian = _on(sitk.DisplacementFieldJacobianDeterminant(vectors), fixed, None, 1.0)
    transform = sitk.DisplacementFieldTransform(vectors)
    lung = inspiration.sides > 0
    inside = np.asarray(expiration.sides > 0)
    hu = _on(as_itk(expiration.hu.astype(np.float32), expiration.grid), fixed, transform, AIR_HU)
    hu = np.rint(hu * _STEPS_PER_HU) / _STEPS_PER_HU
    moved = _on(as_itk(inside.astype(np.uint8), expiration.grid), fixed, transform, 0, nearest=True) > 0
    unmoved = _on(as_itk(inside.astype(np.uint8), expiration.grid), fixed, None, 0, nearest=True) > 0
    covered = np.asarray(lung & moved)
    # Unmoved, lung of the expiration beyond the inspiration's box counts as well.
    volume = float(np.count_nonzero(inside)) * expiration.grid.voxel_ml
    return RegisteredExpiration(
        hu,
        covered,
        RegistrationQuality(
            _dice(lung, unmoved, inspiration.grid, volume),
            _dice(lung, moved, inspiration.grid),
            _correlation(inspiration.hu, hu, covered),
            _residual(inspiration.hu, hu, jacobian, covered),
            _share(np.asarray(jacobian[lung] <= 0)),
        ),
    )


def _as_vectors(field: DisplacementField) -> Any:
    """A field as ITK has it: components along L, P and S."""
    import SimpleITK as sitk  # noqa: N813

    like = as_itk(np.zeros(field.grid.shape, np.uint8), field.grid)
    lps = np.asarray(field.vectors, np.float64) * np.array([-1.0, -1.0, 1.0])
    found = sitk.GetImageFromArray(np.ascontiguousarray(lps.transpose(2, 1, 0, 3)), isVector=True)
    found.CopyInformation(like)
    return found


def _on(image: Any, fixed: Any, transform: Any, outside: float, *, nearest: bool = False) -> Array:
    """An image resampled to the grid of another, (X, Y, Z)."""
    import SimpleITK as sitk  # noqa: N813

    method = sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear
    moved = sitk.Resample(image, fixed, transform or sitk.Transform(3, sitk.sitkIdentity), method, outside)
    return np.asarray(sitk.GetArrayFromImage(moved).T)


def _dice(lung: Array, other: Array, grid: Grid, other_ml: float | None = None) -> float | None:
    first, second = (float(np.count_nonzero(each)) * grid.voxel_ml for each in (lung, other))
    both = float(np.count_nonzero(lung & other)) * grid.voxel_ml
    second = second if other_ml is None else other_ml
    return 2 * both / (first + second) if first + second else None


def _share(found: Array) -> float | None:
    """The percentage that is true; None of nothing."""
    return 100 * float(np.count_nonzero(found)) / found.size if found.size else None


def _correlation(first: Array, second: Array, inside: Array) -> float | None:
    """Pearson's correlation; None if either does not vary."""
    a, b = (each[inside].astype(np.float64) for each in (first, second))
    if a.size < 2:
        return None
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm else None


def _residual(first: Array, second: Array, jacobian: Array, inside: Array) -> float | None:
    if not inside.any():
        return None
    expected = (second[inside] + 1000.0) * jacobian[inside]
    return float(np.abs(first[inside] + 1000.0 - expected).mean(dtype=np.float64))
