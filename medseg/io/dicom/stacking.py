"""Stacking slices: which slices form a volume, in which order, and on which grid."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np

from medseg.errors import InputRefused
from medseg.images.grid import LPS_RAS, Array, Grid
from medseg.io.affine_checks import plausible
from medseg.io.dicom.slice_headers import Slice, constant_marks
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
    """The volumes that lie in each other's place, each with what tells it apart; usually one.

    Args:
        slices: Of one series, size and orientation.

    Returns:
        One volume without a name when no two slices lie at one position and no part of them
        reaches into another; else the parts under the fewest attributes (echo time, phase,
        acquisition ...) within which each position is taken once. One part again when no
        attribute tells them apart.
    """
    if any(one.position_mm is None or one.cosines is None for one in slices):
        return [("", list(slices))]
    *_, normal = _axes(slices)
    depth = dict(zip(map(id, slices), _positions(slices) @ normal, strict=True))
    varying = [
        name
        for name in dict.fromkeys(name for one in slices for name, _ in one.marks)
        if len({dict(one.marks).get(name) for one in slices}) > 1
    ]
    everywhere = list(depth.values())
    several = max(everywhere) - min(everywhere) > _SAME_POSITION_MM
    if _collide(everywhere):
        choices = [*((name,) for name in varying), *combinations(varying, 2)]
    else:
        choices = [(name,) for name in varying if name in constant_marks()]
    for names in choices:
        parts = _parts(slices, names)
        depths = [sorted(depth[id(one)] for one in part) for part in parts.values()]
        # A time of its own for each slice tells nothing about volumes.
        alone = several and min(map(len, depths)) == 1
        if alone or any(_collide(d) for d in depths) or not _interleaved(depths):
            continue
        return [(_mark_text(names, key), part) for key, part in parts.items()]
    return [("", list(slices))]


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
