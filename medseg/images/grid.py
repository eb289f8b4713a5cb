"""The geometry of a volume: its shape, and where each voxel lies in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from medseg.errors import InputRefused, UsageError

Array: TypeAlias = npt.NDArray[np.float64]

SAME_GRID_MM = 0.01
"""Grids whose corners lie at most this far apart are the same grid: text formats round affines, and a
hundredth of a millimetre is below every scanner's precision."""

ROUNDED_GRID_MM = 0.5
"""Masks and channels whose voxels lie at most this far from the scan's, and less than half a voxel along
every axis, are on its grid: nearest-neighbour resampling would change nothing. The quaternion of a qform has
single precision, which moves the far corner of a scan by up to 0.4 mm, and positions and spacings of DICOM
segmentations are often written with one to four decimals (up to 0.3 mm at the end of a row)."""

LPS_RAS: Array = np.diag([-1.0, -1.0, 1.0, 1.0])
"""4x4 matrix that converts an affine between LPS (DICOM, ITK) and RAS+ (NIfTI, medseg); its own inverse."""
LPS_RAS.setflags(write=False)

_POSITIVE_END = "RAS"
_NEGATIVE_END = "LPI"


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of a volume lie: shape and voxel-to-world affine, immutable.

    World coordinates are RAS+ millimetres, as in NIfTI: x grows to the patient's Right,
    y to the Anterior, z to the Superior. ``affine @ (i, j, k, 1)`` is the centre of voxel
    (i, j, k).

    Args:
        shape: Voxels along the three array axes, each at least 1.
        affine: 4x4, last row (0, 0, 0, 1), finite and invertible.

    Raises:
        InputRefused: shape or affine cannot describe a volume (reason ``geometry``).

    Example:
        >>> grid = medseg.Grid((64, 64, 20), np.diag([2.0, 2.0, 5.0, 1.0]))
        >>> grid.spacing_mm, grid.axcodes
        ((2.0, 2.0, 5.0), 'RAS')
    """

    shape: tuple[int, int, int]
    affine: Array

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        # + 0.0 turns -0.0 into 0.0: equal grids must have equal hashes.
        affine = np.array(self.affine, dtype=np.float64) + 0.0
        if len(shape) != 3 or min(shape) < 1:
            raise _bad_geometry(f"a volume needs three axes of at least one voxel, got {shape}")
        if affine.shape != (4, 4) or not np.array_equal(affine[3], (0, 0, 0, 1)):
            raise _bad_geometry(f"the affine must be 4x4 ending in 0 0 0 1, got {affine.tolist()}")
        if not np.isfinite(affine).all():
            raise _bad_geometry("the affine has values that are not finite")
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        # The determinant of the unit columns is 1 for right angles and 0 for parallel axes;
        # below 1e-3 (0.06 degrees) two axes are considered parallel.
        if lengths.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-3:
            raise _bad_geometry(f"the affine is singular: {affine[:3, :3].tolist()}")
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @classmethod
    def from_spacing(
        cls,
        shape: Sequence[int],
        spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
        *,
        origin_mm: Sequence[float] = (0.0, 0.0, 0.0),
        direction: npt.ArrayLike | None = None,
    ) -> Grid:
        """A grid from its parts. ``direction`` is 3x3; its columns are the array axes in RAS+."""
        columns = np.eye(3) if direction is None else np.asarray(direction, dtype=np.float64)
        affine = np.eye(4)
        affine[:3, :3] = columns * np.asarray(spacing_mm, dtype=np.float64)
        affine[:3, 3] = origin_mm
        x, y, z = shape
        return cls((int(x), int(y), int(z)), affine)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along each array axis."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def direction(self) -> Array:
        """3x3; column a is the unit vector of array axis a in RAS+ world space."""
        columns: Array = self.affine[:3, :3] / np.asarray(self.spacing_mm)
        return columns

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @property
    def axcodes(self) -> str:
        """The direction of each array axis, such as ``RAS`` or ``LPI``.

        Each array axis is assigned a different world axis; of the six assignments the closest
        one is taken, so oblique grids have codes too.
        """
        axes = self.world_axes
        return "".join(
            (_POSITIVE_END if self.affine[w, a] > 0 else _NEGATIVE_END)[w] for a, w in enumerate(axes)
        )

    @property
    def world_axes(self) -> tuple[int, int, int]:
        """The world axis (0 R-L, 1 A-P, 2 S-I) closest to each array axis."""
        cosines = np.abs(self.direction)
        orders = [p for p in product(range(3), repeat=3) if len(set(p)) == 3]
        best = max(orders, key=lambda p: sum(cosines[w, a] for a, w in enumerate(p)))
        return best[0], best[1], best[2]

    def world(self, index: npt.ArrayLike) -> Array:
        """World coordinates (..., 3) in RAS+ mm of voxel indices (..., 3), which may be fractional."""
        points: Array = np.asarray(index, dtype=np.float64) @ self.affine[:3, :3].T
        return points + self.affine[:3, 3]

    def index(self, world_mm: npt.ArrayLike) -> Array:
        """Fractional voxel indices (..., 3) of world coordinates (..., 3) in RAS+ mm."""
        inverse = np.linalg.inv(self.affine)
        points: Array = np.asarray(world_mm, dtype=np.float64) @ inverse[:3, :3].T
        return points + inverse[:3, 3]

    @property
    def corners_mm(self) -> Array:
        """(8, 3): world coordinates of the centres of the eight corner voxels."""
        return self.world([tuple(c) for c in product(*[(0, n - 1) for n in self.shape])])

    def distance_mm(self, other: Grid) -> float:
        """The largest distance between corresponding corner voxels of both grids.

        Infinite if the shapes differ. Voxel positions are linear in the index, so no voxel
        differs by more than a corner does.
        """
        if self.shape != other.shape:
            return float("inf")
        gaps = np.linalg.norm(self.corners_mm - other.corners_mm, axis=1)
        return float(gaps.max())

    def same_as(self, other: Grid, tolerance_mm: float = SAME_GRID_MM) -> bool:
        """Whether both have the same shape, and all voxels match within ``tolerance_mm``."""
        return self.distance_mm(other) <= tolerance_mm

    def mismatch(self, other: Grid, tolerance_mm: float = SAME_GRID_MM) -> str | None:
        """How this grid differs from ``other``, to end an error message with; None if they are the same.

        Only what differs is named, for example ``voxels lie up to 50 mm apart: the origin lies 50 mm away``,
        after the caller's own ``the mask is not on the scan's grid: ``.
        """
        gap = self.distance_mm(other)
        if gap <= tolerance_mm:
            return None
        if self.shape != other.shape:
            own, others = (" x ".join(map(str, grid.shape)) for grid in (self, other))
            parts = [f"the shapes differ: {own} instead of {others} voxels"]
        else:
            parts = [f"voxels lie up to {gap:.3g} mm apart"]
        if self.axcodes != other.axcodes:
            parts.append(f"orientation {self.axcodes} instead of {other.axcodes}")
        elif not np.allclose(self.spacing_mm, other.spacing_mm, rtol=1e-4):
            own, others = (" x ".join(f"{s:.6g}" for s in grid.spacing_mm) for grid in (self, other))
            parts.append(f"spacing {own} instead of {others} mm")
        elif not np.allclose(
            self.affine[:3, :3] / self.spacing_mm, other.affine[:3, :3] / other.spacing_mm, atol=1e-4
        ):
            parts.append("the axes point in other directions")
        away = float(np.linalg.norm(self.affine[:3, 3] - other.affine[:3, 3]))
        if self.axcodes == other.axcodes and away > tolerance_mm:
            parts.append(f"the origin lies {away:.3g} mm away")
        return ", ".join(parts)

    def oriented(self, axcodes: str) -> Grid:
        """The same voxels with their array axes permuted and flipped to ``axcodes``.

        The axes of the array must be permuted and flipped likewise: see :meth:`moves_to`.
        """
        order, flips = self.moves_to(axcodes)
        affine = self.affine.copy()
        affine[:3, :3] = self.affine[:3, order]
        for axis, flipped in enumerate(flips):
            if flipped:
                affine[:3, 3] += affine[:3, axis] * (self.shape[order[axis]] - 1)
                affine[:3, axis] *= -1
        x, y, z = (self.shape[o] for o in order)
        return Grid((x, y, z), affine)

    def moves_to(self, axcodes: str) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
        """How to reach ``axcodes``: which array axes become axes 0, 1 and 2, and which of these are flipped.

        Raises:
            UsageError: ``axcodes`` does not name each body axis once (``axcodes``).
        """
        wanted = [("RL".find(c), "AP".find(c), "SI".find(c)) for c in axcodes.upper()]
        targets = [next((w for w, found in enumerate(hit) if found >= 0), -1) for hit in wanted]
        if sorted(targets) != [0, 1, 2]:
            raise UsageError(
                f"orientation {axcodes!r} does not name each body axis once",
                remedy="use one letter of RL, one of AP and one of SI, such as RAS or LPI",
                reason="axcodes",
            )
        current = self.axcodes
        x, y, z = (self.world_axes.index(t) for t in targets)
        order = (x, y, z)
        flips = [current[order[a]] != axcodes[a].upper() for a in range(3)]
        return order, (flips[0], flips[1], flips[2])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Grid):
            return NotImplemented
        return self.shape == other.shape and np.array_equal(self.affine, other.affine)

    def __hash__(self) -> int:
        return hash((self.shape, self.affine.tobytes()))

    def __repr__(self) -> str:
        spacing = " x ".join(f"{s:.4g}" for s in self.spacing_mm)
        shape = " x ".join(str(n) for n in self.shape)
        return f"Grid({shape} voxels, {spacing} mm, {self.axcodes})"


def flip_lps_ras(points_mm: npt.ArrayLike) -> Array:
    """Points (..., 3) in mm converted from LPS to RAS+ or back: x and y change sign."""
    points: Array = np.asarray(points_mm, dtype=np.float64) * (-1.0, -1.0, 1.0)
    return points


def _bad_geometry(problem: str) -> InputRefused:
    return InputRefused(problem, reason="geometry", remedy="correct the geometry of the source file")
