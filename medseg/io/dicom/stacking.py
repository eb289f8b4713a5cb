"""Stacking slices: which slices form a volume, in which order, and on which grid."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np

from medseg.errors import InputRefused
from medseg.images.grid import LPS_RAS, Array, Grid
from medseg.io.affine_checks import plausible
from medseg.io.dicom.slice import Slice
from medseg.io.dicom.slice_headers import constant_marks
from medseg.system.notices import notify

# Positions are often written with one or two decimals, so a step of 0.625 mm reads 0.6, 0.7,
# 0.6. A tenth of a millimetre is below any voxel we segment; a missing slice shifts its
# neighbours by at least a third of a step (three slices of four), hence the quarter.
_POSITION_TOLERANCE_MM = 0.1
_STEP_FRACTION = 0.25
# Uneven spacing beyond this is worth a notice: the tolerance for equal grids, or a hundredth of the step,
# which is normal rounding.
_NOTABLE_MM = 0.01
_SAME_POSITION_MM = 0.001
# Sideways drift beyond this counts as tilt; the same tolerance as for NIfTI forms.
_DRIFT_MM = 0.1
# Tolerance for right angles and unit lengths written with six digits.
_SQUARE = 1e-3


def stack(slices: Sequence[Slice]) -> tuple[tuple[Slice, ...], Grid]:
    """The slices of one volume, sorted along the normal, and their grid.

    The first array axis runs along a row of pixels, the second down a column, the third
    along the normal (row x column, DICOM PS3.3 C.7.6.2.1.1), as in ITK. The third spacing is
    measured from the positions; the nominal one is only used for a single slice.

    Raises:
        InputRefused: no geometry in the headers (``no-geometry``), two slices at one
            position (``duplicate-slices``), uneven distances (``missing-slices``), a sheared
            stack (``tilted``), impossible sizes (``geometry``).
    """
    first = slices[0]
    row, column, normal = _axes(slices)
    positions = _positions(slices)
    order = np.argsort(positions @ normal, kind="stable")
    ordered, positions = tuple(slices[i] for i in order), positions[order]
    depths: Array = positions @ normal
    step_mm = _step_mm(ordered, depths)
    drift = positions - positions[0] - np.outer(depths - depths[0], normal)
    worst = float(np.linalg.norm(drift, axis=1).max())
    if worst > _DRIFT_MM:
        angle = np.degrees(np.arctan2(worst, depths[-1] - depths[0]))
        raise InputRefused(
            f"the slices are shifted sideways by up to {worst:.4g} mm ({angle:.3g} degrees): a tilted gantry "
            "or a sheared stack, not an orthogonal grid",
            reason="tilted",
            remedy="resample it to a straight volume, for example with dcm2niix, and pass that",
        )
    between_rows, between_columns = _spacing_mm(first)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * between_columns, column * between_rows
    affine[:3, 2], affine[:3, 3] = normal * step_mm, positions[0]
    return ordered, plausible(Grid((first.columns, first.rows, len(ordered)), LPS_RAS @ affine))


def volumes(slices: Sequence[Slice]) -> list[tuple[str, list[Slice]]]:
    """The volumes at the same place, each with the attributes that distinguish it; usually one.

    Args:
        slices: Slices of one series, size and orientation.

    Returns:
        One volume without a name if the slices form one even stack, whatever other attributes
        vary, or if no two slices share a position and no part reaches into another. Otherwise
        the parts under the fewest attributes (echo time, phase, acquisition ...) that give each
        part every position at most once, preferably as an even stack. One volume again if no
        attribute separates them.
    """
    if any(one.position_mm is None or one.cosines is None for one in slices):
        return [("", list(slices))]
    *_, normal = _axes(slices)
    positions = dict(zip(map(id, slices), _positions(slices), strict=True))
    if _is_even([positions[id(one)] for one in slices], normal):
        return [("", list(slices))]
    candidates = []
    for names in _separators(slices, positions, normal):
        parts = _parts(slices, names)
        places = [[positions[id(one)] for one in part] for part in parts.values()]
        if _are_volumes([sorted(float(p @ normal) for p in place) for place in places]):
            named = [(_mark_text(names, key), part) for key, part in parts.items()]
            if all(_is_even(place, normal) for place in places):
                return named
            candidates.append(named)
    return candidates[0] if candidates else [("", list(slices))]


def _separators(slices: Sequence[Slice], positions: dict[int, Array], normal: Array) -> list[tuple[str, ...]]:
    """The attributes, or pairs of them, that may separate the slices into volumes."""
    varying = [
        name
        for name in dict.fromkeys(name for one in slices for name, _ in one.marks)
        if len({dict(one.marks).get(name) for one in slices}) > 1
    ]
    if _collide([float(position @ normal) for position in positions.values()]):
        return [*((name,) for name in varying), *combinations(varying, 2)]
    return [(name,) for name in varying if name in constant_marks()]


def _are_volumes(depths: Sequence[Sequence[float]]) -> bool:
    """Whether parts with these sorted depths can be volumes at the same place."""
    everywhere = [depth for part in depths for depth in part]
    several = max(everywhere) - min(everywhere) > _SAME_POSITION_MM
    # An attribute that differs from slice to slice does not separate volumes.
    alone = several and min(map(len, depths)) == 1
    return not alone and not any(_collide(part) for part in depths) and _interleaved(depths)


def _is_even(positions: Sequence[Array], normal: Array) -> bool:
    """Whether the positions lie on one line at equal distances, within the tolerances of `stack`."""
    if len(positions) < 2:
        return True
    ordered = np.array(sorted(positions, key=lambda position: float(position @ normal)))
    ideal = np.linspace(ordered[0], ordered[-1], len(ordered))
    along = np.abs((ordered - ideal) @ normal)
    aside = np.linalg.norm(ordered - ideal - np.outer((ordered - ideal) @ normal, normal), axis=1)
    step = float((ordered[-1] - ordered[0]) @ normal) / (len(ordered) - 1)
    return bool(step >= _SAME_POSITION_MM and along.max() <= uneven_mm(step) and aside.max() <= _DRIFT_MM)


def _parts(slices: Sequence[Slice], names: Sequence[str]) -> dict[tuple[str, ...], list[Slice]]:
    parts: dict[tuple[str, ...], list[Slice]] = {}
    for one in slices:
        marks = dict(one.marks)
        parts.setdefault(tuple(marks.get(name, "") for name in names), []).append(one)
    return dict(sorted(parts.items(), key=lambda item: [(_number(v), v) for v in item[0]]))


def _interleaved(depths: Sequence[Sequence[float]]) -> bool:
    """Whether one part reaches into another: not so for a scan acquired block by block."""
    spans = sorted((d[0], d[-1]) for d in depths)
    return any(b[0] <= a[1] + _SAME_POSITION_MM for a, b in pairwise(spans))


def _collide(depths: Sequence[float]) -> bool:
    return bool((np.diff(np.sort(depths)) < _SAME_POSITION_MM).any())


def _mark_text(names: Sequence[str], key: Sequence[str]) -> str:
    """Names and numeric values of marks; other values are left out, because they may identify a patient."""
    shown = (f"{n} {v}" if _number(v) < float("inf") else n for n, v in zip(names, key, strict=True))
    return " ".join(shown)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("inf")


def _positions(slices: Sequence[Slice]) -> Array:
    located = [one.position_mm for one in slices if one.position_mm is not None]
    if len(located) < len(slices):
        raise _no_geometry(f"{len(slices) - len(located)} slices have no ImagePositionPatient")
    return np.array(located)


def _axes(slices: Sequence[Slice]) -> tuple[Array, Array, Array]:
    """Unit vectors along a row, down a column and along the normal."""
    cosines = slices[0].cosines
    if cosines is None:
        raise _no_geometry("the slices have no ImageOrientationPatient")
    row, column = np.reshape(cosines, (2, 3))
    off = max(abs(np.linalg.norm(row) - 1), abs(np.linalg.norm(column) - 1), abs(row @ column))
    if off > _SQUARE:
        raise _no_geometry(f"ImageOrientationPatient {cosines} is not a pair of perpendicular unit vectors")
    # The nearest pair of perpendicular unit vectors (polar decomposition), which only removes
    # the rounding of the written digits.
    u, _, v = np.linalg.svd(np.array([row, column]), full_matrices=False)
    row, column = u @ v
    normal: Array = np.cross(row, column)
    return row, column, normal


def _spacing_mm(one: Slice) -> tuple[float, float]:
    if one.spacing_mm is None or min(one.spacing_mm) <= 0:
        raise _no_geometry(f"PixelSpacing is {one.spacing_mm or 'missing'}, not two positive numbers")
    return one.spacing_mm[0], one.spacing_mm[1]


def _no_geometry(problem: str) -> InputRefused:
    return InputRefused(
        f"{problem}: position, orientation or pixel spacing is unknown",
        reason="no-geometry",
        remedy="only scans with patient geometry can be segmented, not pictures of them",
    )


def _step_mm(ordered: Sequence[Slice], depths: Array) -> float:
    """The distance between slices, which must be the same everywhere."""
    if len(depths) == 1:
        depth = ordered[0].depth_mm
        if not depth or depth < 0:
            raise _no_geometry("a single slice without SliceThickness or SpacingBetweenSlices")
        return depth
    gaps = np.diff(depths)
    closest, widest = int(gaps.argmin()), int(gaps.argmax())
    if gaps[closest] < _SAME_POSITION_MM:
        raise InputRefused(
            f"{int((gaps < _SAME_POSITION_MM).sum())} position(s) hold more than one slice (duplicates, or "
            f"4D), first {_at(ordered[closest])}: {ordered[closest].name} and {ordered[closest + 1].name}",
            reason="duplicate-slices",
            remedy="keep one phase, echo or copy in the folder",
        )
    step = float((depths[-1] - depths[0]) / (len(depths) - 1))
    off = float(np.abs(depths - depths[0] - step * np.arange(len(depths))).max())
    if off > uneven_mm(step):
        raise InputRefused(
            f"the slices are unevenly spaced (missing slices?): usually {np.median(gaps):.4g} mm apart, but "
            f"from {gaps[closest]:.4g} to {gaps[widest]:.4g} mm, the widest gap between "
            f"{_at(ordered[widest])} and {_at(ordered[widest + 1])}",
            reason="missing-slices",
            remedy="export the missing slices, or resample the series to even spacing",
        )
    if off > max(_NOTABLE_MM, 0.01 * step):
        notify(
            "uneven-slices",
            f"slice positions are up to {off:.3g} mm off even spacing; treated as even",
            path=ordered[0].path.parent,
        )
    return step


def uneven_mm(step_mm: float) -> float:
    """How far a slice may be off even spacing: more than equal grids may differ, as positions are rounded."""
    return min(_POSITION_TOLERANCE_MM, _STEP_FRACTION * step_mm)


def _at(one: Slice) -> str:
    return f"({', '.join(f'{p:.5g}' for p in one.position_mm or ())})"
