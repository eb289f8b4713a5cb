"""The regions (ROIs) of a structure set: their contours as in the file, and the voxels inside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from medseg.errors import InputRefused
from medseg.images.grid import Array, Grid, flip_lps_ras
from medseg.io.dicom.contours import filled
from medseg.system.notices import notify

CONTOUR_DATA = Tag("ContourData")
# Defined terms of PS3.3 C.8.8.6.1, in their official spelling.
_XOR = "CLOSEDPLANAR_XOR"
_LINES = ("POINT", "OPEN_PLANAR", "OPEN_NONPLANAR")
# Not a term of the standard, but planning systems write it for slices between drawn ones, and other readers
# (dcmrtstruct2nii among them) fill it.
_INTERPOLATED = "INTERPOLATED_PLANAR"
_AREAS = ("CLOSED_PLANAR", _XOR, _INTERPOLATED)
# Planning systems round positions to 0.1 or 0.01 mm. A contour that is off its slice by more
# than a quarter of the slice distance was drawn on another scan.
_OFF_SLICE = 0.25
# Bodies, couches and margins extend beyond a small field of view, but not beyond the largest one of a CT.
_FARTHEST_MM = 500.0


def damaged(path: Path, problem: str) -> InputRefused:
    """The refusal of a structure set that is damaged (``unreadable``)."""
    return InputRefused(
        f"not a readable RTSTRUCT: {problem}",
        where=path,
        reason="unreadable",
        remedy="check that the file is complete; export the structure set again",
    )


@dataclass(frozen=True)
class Region:
    """The contours of one region.

    Attributes:
        number: ROINumber.
        contours: (kind, points) of each contour with points: ContourGeometricType and (n, 3) in RAS+ mm.
        without_points: The number of contours without points.
    """

    number: int
    contours: tuple[tuple[str, Array], ...]
    without_points: int

    @classmethod
    def from_item(cls, item: Any, path: Path) -> Region:
        """The region of an item of ROIContourSequence of the file. May raise any error of pydicom.

        Raises:
            InputRefused: a contour has another number of coordinates than points, or one that is not finite
                (``unreadable``).
        """
        contours = []
        empty = 0
        for contour in item.get("ContourSequence") or ():
            data = _numbers(contour)
            count = int(contour.get("NumberOfContourPoints") or data.size // 3)
            if data.size != 3 * count or not np.isfinite(data).all():
                raise damaged(path, f"a contour of {count} points has {data.size} numbers, or not all finite")
            if count:
                contours.append((str(contour.ContourGeometricType), flip_lps_ras(data.reshape(-1, 3))))
            else:
                empty += 1
        return cls(int(item.ReferencedROINumber), tuple(contours), empty)


def _numbers(contour: Any) -> Array:
    """ContourData, parsed in one go unless pydicom has already parsed it number by number."""
    raw = contour.get_item(CONTOUR_DATA)
    if isinstance(raw, RawDataElement) and raw.value:
        return np.array(raw.value.rstrip(b" \0").split(b"\\")).astype(np.float64)
    return np.array([float(v) for v in contour.get("ContourData") or ()])


@dataclass(frozen=True)
class Areas:
    """The voxels inside the contours of a region.

    Attributes:
        axis: The array axis perpendicular to the contours.
        slices: For each index along this axis, the voxels inside, bool, over the other two axes.
    """

    axis: int
    slices: dict[int, npt.NDArray[np.bool_]]


def voxels_inside(region: Region, grid: Grid, path: Path) -> Areas:
    """The voxels whose centre lies inside the region, with notices about contours that were not used.

    Contours on one slice are combined by the even-odd rule. Points and open lines beside areas are left out,
    as are contours without points; what extends beyond the scan is cut off.

    Raises:
        InputRefused: no contour encloses an area, or one is of an unknown type (``open-contour``); all lie
            outside of the scan, or one lies between its slices (``contour-off-grid``); contours cross
            (``crossing-contours``).
    """
    areas = _closed(region, path)
    axis = _across([points for _, points in areas], grid)
    plane = [a for a in range(3) if a != axis]
    found: dict[int, list[npt.NDArray[np.bool_]]] = {}
    for k, kind, points in _within(region, areas, grid, axis, path):
        area = filled(points[:, plane], (grid.shape[plane[0]], grid.shape[plane[1]]))
        others = found.setdefault(k, [])
        if kind != _XOR and any(_cross(area, other) for other in others):
            raise InputRefused(
                f"contours of ROI {region.number} cross on slice {k}, so what is inside is ambiguous",
                where=path,
                reason="crossing-contours",
                remedy="merge the contours in the program that drew them",
            )
        others.append(area)
    return Areas(axis, {k: np.logical_xor.reduce(parts) for k, parts in found.items()})


def _closed(region: Region, path: Path) -> list[tuple[str, Array]]:
    """The contours that enclose an area."""
    areas, lines = [], set()
    for kind, points in region.contours:
        if kind in _AREAS and len(points) > 2:
            areas.append((kind, points))
        elif kind in _AREAS or kind in _LINES:
            lines.add(kind if kind in _LINES else "fewer than three points")
        else:
            # A type that is not in the standard is free text, which may identify the patient.
            raise _open(region, "of unknown type", path)
    if lines and not areas:
        raise _open(region, f"of type {', '.join(sorted(lines))}", path)
    unused = len(region.contours) - len(areas) + region.without_points
    if unused:
        kinds = sorted(lines) + ["no points"] * bool(region.without_points)
        what = f"{unused} contour(s) of ROI {region.number}, which enclose no area ({', '.join(kinds)})"
        notify("contours-left-out", f"left out {what}", path=path)
    if any(kind == _INTERPOLATED for kind, _ in areas):
        notify(
            "contours-interpolated",
            f"ROI {region.number} has contours of type {_INTERPOLATED}, which were taken as closed ones",
            path=path,
        )
    return areas


def _open(region: Region, kind: str, path: Path) -> InputRefused:
    return InputRefused(
        f"ROI {region.number} has contours {kind}, which enclose no area",
        where=path,
        reason="open-contour",
        remedy="name only ROIs that are areas in the labels, or close the contour",
    )


def _cross(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> bool:
    """Whether two areas overlap without one containing the other."""
    both = one & other
    return bool(both.any() and (one & ~both).any() and (other & ~both).any())


def _across(contours: Sequence[Array], grid: Grid) -> int:
    """The array axis perpendicular to the contours, along which they extend least."""
    if not contours:
        return 2
    spreads = np.max([np.ptp(grid.index(points), axis=0) for points in contours], axis=0)
    return int(2 if spreads[2] <= 2 * _OFF_SLICE else spreads.argmin())


def _within(
    region: Region, areas: Sequence[tuple[str, Array]], grid: Grid, axis: int, path: Path
) -> list[tuple[int, str, Array]]:
    """The contours that reach into the scan, each as its slice index, kind and points (n, 3) in voxels."""
    limits = np.array(grid.shape)
    farthest = _FARTHEST_MM / np.array(grid.spacing_mm)
    inside: list[tuple[int, str, Array]] = []
    cut = 0
    for kind, world in areas:
        points = grid.index(world)
        if (points < -farthest).any() or (points > limits + farthest).any():
            raise _off_grid(region, f"lies more than {_FARTHEST_MM:.0f} mm outside of the scan", path)
        k = int(np.rint(points[:, axis].mean()))
        off = float(np.abs(points[:, axis] - k).max())
        if off > _OFF_SLICE:
            raise _off_grid(region, f"is {off:.3g} slices off the nearest slice", path)
        # A contour less than one voxel beyond the last centres has no voxel there to lose.
        on_slice = 0 <= k < limits[axis]
        cut += bool((points < -1).any() or (points > limits).any() or not on_slice)
        if on_slice and (points.max(axis=0) > -1).all() and (points.min(axis=0) < limits).all():
            inside.append((k, kind, points))
    if areas and not inside:
        raise _off_grid(region, "lies outside of the scan, as all of them do", path)
    if cut:
        notify(
            "contours-cut",
            f"{cut} of {len(areas)} contours of ROI {region.number} extend beyond the scan; "
            "the mask holds the part inside",
            path=path,
        )
    return inside


def _off_grid(region: Region, problem: str, path: Path) -> InputRefused:
    return InputRefused(
        f"a contour of ROI {region.number} {problem}: it was drawn on another scan",
        where=path,
        reason="contour-off-grid",
        remedy="pass the scan that it was drawn on",
    )
