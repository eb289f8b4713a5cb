"""Frames of multi-frame DICOM objects: their positions, their common grid, and their pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import iter_pixels

from medseg.errors import InputRefused
from medseg.images.grid import LPS_RAS, ROUNDED_GRID_MM, SAME_GRID_MM, Array, Grid
from medseg.images.volume import Mask, Volume, Voxels
from medseg.io.dicom.source_series import scanned
from medseg.io.dicom.stacking import uneven_mm
from medseg.system import memory_budget
from medseg.system.notices import notify


@dataclass(frozen=True)
class Frame:
    """A stored slice.

    Attributes:
        segment: Its segment number; 0 in a label map.
        affine: 4x4, from pixels to RAS+ mm; the third axis is the unit normal.
    """

    segment: int
    affine: Array


@dataclass(frozen=True)
class Placement:
    """The grid to paint frames on, and the slice index of each frame."""

    grid: Grid
    at: tuple[int, ...]


def frame_of(ds: Dataset, n: int, path: Path) -> Frame:
    """The frame with index ``n``, from its own and the shared functional groups (PS3.3 C.7.6.16).

    Raises:
        InputRefused: position, orientation or spacing are missing (``no-geometry``).
    """
    groups = (ds.PerFrameFunctionalGroupsSequence[n], *(ds.get("SharedFunctionalGroupsSequence") or ()))

    def of(name: str) -> Any:
        return next((group.get(name)[0] for group in groups if group.get(name)), None)

    position, orientation = of("PlanePositionSequence"), of("PlaneOrientationSequence")
    measures = of("PixelMeasuresSequence")
    if position is None or orientation is None or measures is None:
        raise InputRefused(
            "the frames have no position, orientation or pixel spacing",
            where=path,
            reason="no-geometry",
            remedy="export the segmentation again; only those of patient scans can be used",
        )
    row, column = np.reshape(np.array(orientation.ImageOrientationPatient, float), (2, 3))
    between_rows, between_columns = (float(v) for v in measures.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * between_columns, column * between_rows
    affine[:3, 2], affine[:3, 3] = np.cross(row, column), np.array(position.ImagePositionPatient, float)
    identification = of("SegmentIdentificationSequence")
    number = 0 if identification is None else int(identification.ReferencedSegmentNumber)
    return Frame(number, Grid((1, 1, 1), LPS_RAS @ affine).affine)


def placed(
    frames: Sequence[Frame], ds: Dataset, reference: Volume | Mask | Grid | None, path: Path
) -> Placement:
    """The frames on the reference's grid, reoriented to match; without one, on the smallest even grid.

    Raises:
        InputRefused: the frames are off the reference's slices by half a voxel or more than 0.5 mm
            (``grid-mismatch``), or do not form an even stack of their own (``no-geometry``).
    """
    columns, rows = int(ds.Columns), int(ds.Rows)
    if reference is None:
        return _lattice(frames, (columns, rows), ds, path)
    grid = reference if isinstance(reference, Grid) else reference.grid
    if _off_plane(grid, frames[0], columns, rows):
        grid = grid.oriented(Grid((columns, rows, 1), frames[0].affine).axcodes)
    origins = grid.world([(0, 0, k) for k in range(grid.shape[2])])
    if isinstance(reference, Volume | Mask) and reference.source.format == "dicom" and reference.source.files:
        scan = scanned(reference.source)  # slices of a scan, and so of its SEG, may be slightly uneven
        if scan.grid.same_as(grid):
            origins = scan.origins_mm
    at: list[int] = []
    farthest = 0.0
    for frame in frames:
        k = int(np.linalg.norm(origins - frame.affine[:3, 3], axis=1).argmin())
        problem = _off_plane(grid, frame, columns, rows)
        step = frame.affine[:3, 3] - origins[k]
        if problem is None and not _is_rounding(grid, step[None]):
            problem = f"a slice lies {np.linalg.norm(step):.3g} mm from the scan's nearest slice"
        if problem is not None:
            raise InputRefused(
                f"the segmentation is not on the scan's grid: {problem} ({grid})",
                where=path,
                reason="grid-mismatch",
                remedy="pass the scan that was segmented, or resample the segmentation to this one first",
            )
        farthest = max(
            farthest, float(np.linalg.norm(step + _ends(grid, frame, columns, rows), axis=1).max())
        )
        at.append(k)
    if farthest > SAME_GRID_MM:
        notify(
            "grid-rounded",
            f"the segmentation's voxels lie up to {farthest:.2g} mm from the scan's, less than half a voxel; "
            "they were taken as the same",
            path=path,
        )
    return Placement(grid, tuple(at))


def _off_plane(grid: Grid, frame: Frame, columns: int, rows: int) -> str | None:
    """How the frame's pixels differ from those of a slice of the grid at its position; None if they match."""
    if grid.shape[:2] != (columns, rows):
        return f"its slices have {columns} x {rows} pixels"
    ends = _ends(grid, frame, columns, rows)
    if _is_rounding(grid, ends):
        return None
    return f"the ends of its rows or columns lie {np.linalg.norm(ends, axis=1).max():.3g} mm off"


def _ends(grid: Grid, frame: Frame, columns: int, rows: int) -> Array:
    """(3, 3): how far the ends of the frame's rows, columns and diagonal are off the grid's, in mm."""
    # A row of a single pixel has no spacing to compare.
    last = np.array([[columns - 1, 0], [0, rows - 1], [columns - 1, rows - 1]])
    ends: Array = last @ (frame.affine[:3, :2] - grid.affine[:3, :2]).T
    return ends


def _is_rounding(grid: Grid, off_mm: Array) -> bool:
    """Whether distances (n, 3) are those of rounded headers: see `ROUNDED_GRID_MM`."""
    voxels = off_mm @ np.linalg.inv(grid.affine[:3, :3]).T
    return bool(np.abs(voxels).max() < 0.5 and np.linalg.norm(off_mm, axis=1).max() <= ROUNDED_GRID_MM)


def _lattice(frames: Sequence[Frame], size: tuple[int, int], ds: Dataset, path: Path) -> Placement:
    """The smallest even stack of slices that contains every frame."""
    first = frames[0].affine
    normal = first[:3, 2]
    depths = np.array([(frame.affine[:3, 3] - first[:3, 3]) @ normal for frame in frames])
    step = _step_mm(ds, np.unique(np.round(depths, 4)), path)
    at = np.rint((depths - depths.min()) / step).astype(int)
    affine = frames[int(depths.argmin())].affine.copy()
    affine[:3, 2] = normal * step
    depth = int(at.max()) + 1
    memory_budget.check(6 * prod(size) * depth, f"{depth} slices of {size} pixels", where=path)
    grid = Grid((*size, depth), affine)
    ideal = grid.world(np.stack([np.zeros_like(at), np.zeros_like(at), at], axis=1))
    off = max(float(np.linalg.norm(f.affine[:3, 3] - p)) for f, p in zip(frames, ideal, strict=True))
    if off > uneven_mm(step) or any(_off_plane(grid, f, *size) for f in frames):
        raise InputRefused(
            "the slices do not form an even stack of parallel planes",
            where=path,
            reason="no-geometry",
            remedy="name the scan that was segmented: --reference SCAN",
        )
    return Placement(grid, tuple(int(k) for k in at))


def _step_mm(ds: Dataset, levels: Array, path: Path) -> float:
    """The distance between slices: SpacingBetweenSlices, or the thickness if every gap is a multiple of it.

    Empty frames are usually left out (PS3.3 C.8.20.2), so the smallest gap says nothing.
    """
    groups = (*(ds.get("SharedFunctionalGroupsSequence") or ()), *ds.PerFrameFunctionalGroupsSequence[:1])
    measures = next(g.PixelMeasuresSequence[0] for g in groups if g.get("PixelMeasuresSequence"))
    spacing = abs(float(measures.get("SpacingBetweenSlices") or 0))
    if spacing > 0:
        return spacing
    thickness = float(measures.get("SliceThickness") or 0)
    gaps = np.diff(levels)
    if thickness > 0 and (np.abs(gaps - thickness * np.rint(gaps / thickness)) <= uneven_mm(thickness)).all():
        return thickness
    found = f"SliceThickness is {thickness:g} mm" if thickness > 0 else "there is no SliceThickness"
    apart = ", ".join(f"{gap:.4g}" for gap in np.unique(np.round(gaps, 4))[:4])
    raise InputRefused(
        f"the distance between slices is unknown: no SpacingBetweenSlices, and {found}"
        + (f" for slices {apart} mm apart" if apart else ""),
        where=path,
        reason="no-geometry",
        remedy="name the scan that was segmented: --reference SCAN",
    )


def pictures(ds: Any) -> Iterator[Voxels]:
    """(rows, columns) of each frame."""
    if int(ds.BitsAllocated) != 1 or ds.file_meta.TransferSyntaxUID.is_encapsulated:
        yield from iter_pixels(ds)
        return
    # Single-bit frames follow each other without padding (PS3.5 8.1.1), which pydicom's
    # iterator does not handle unless a frame is a whole number of bytes.
    rows, columns = int(ds.Rows), int(ds.Columns)
    size = rows * columns
    data = np.frombuffer(ds.PixelData, np.uint8)
    for number in range(int(ds.NumberOfFrames)):
        start, skip = divmod(number * size, 8)
        bits = np.unpackbits(data[start : start + (skip + size + 7) // 8], bitorder="little")
        yield bits[skip : skip + size].reshape(rows, columns)
