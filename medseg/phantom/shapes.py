"""The shapes of the phantom, as formulas that tell which points lie inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]
Point: TypeAlias = tuple[float, float, float]
Coordinates: TypeAlias = tuple[Array, Array, Array]
"""World x, y and z in mm; the three arrays broadcast to the shape of the grid."""


class Shape(Protocol):
    """A region of space."""

    @property
    def box(self) -> tuple[Array, Array]:
        """Two (3,) corners in mm, between which the shape lies."""

    def inside(self, xyz: Coordinates) -> npt.NDArray[np.bool_]:
        """True for the points in the shape."""


@dataclass(frozen=True)
class Ellipsoid:
    """Semi-axes along x, y, z; the cross-section narrows upwards by ``taper`` (an egg).

    Volume: pi a b c (4/3 + 4/15 taper^2).
    """

    center: Point
    radii: Point
    taper: float = 0.0

    @property
    def box(self) -> tuple[Array, Array]:
        """Two (3,) corners in mm, between which the shape lies."""
        reach = np.array(self.radii) * (1 + abs(self.taper))
        return np.array(self.center) - reach, np.array(self.center) + reach

    def inside(self, xyz: Coordinates) -> npt.NDArray[np.bool_]:
        """True for the points in the shape."""
        u, v, w = ((p - c) / r for p, c, r in zip(xyz, self.center, self.radii, strict=True))
        section = u * u + v * v
        if self.taper:
            width = np.maximum(1 - self.taper * w, 1e-9)
            section = section / (width * width)
        within: npt.NDArray[np.bool_] = section + w * w < 1
        return within


@dataclass(frozen=True)
class Capsule:
    """A tube from ``start`` to ``end`` with round ends; its radius changes linearly along it."""

    start: Point
    end: Point
    radii: tuple[float, float]

    @property
    def box(self) -> tuple[Array, Array]:
        """Two (3,) corners in mm, between which the shape lies."""
        ends = np.array([self.start, self.end])
        reach = np.array(self.radii)[:, None]
        return (ends - reach).min(axis=0), (ends + reach).max(axis=0)

    def inside(self, xyz: Coordinates) -> npt.NDArray[np.bool_]:
        """True for the points in the shape."""
        x, y, z = (p - c for p, c in zip(xyz, self.start, strict=True))
        dx, dy, dz = (e - s for s, e in zip(self.start, self.end, strict=True))
        along = (x * dx + y * dy + z * dz) / (dx * dx + dy * dy + dz * dz)
        along = np.clip(along, 0, 1)
        radius = self.radii[0] + along * (self.radii[1] - self.radii[0])
        x, y, z = x - along * dx, y - along * dy, z - along * dz
        return x * x + y * y + z * z < radius * radius


@dataclass(frozen=True)
class Box:
    """A cuboid between two corners."""

    low: Point
    high: Point

    @property
    def box(self) -> tuple[Array, Array]:
        """Two (3,) corners in mm, between which the shape lies."""
        return np.array(self.low), np.array(self.high)

    def inside(self, xyz: Coordinates) -> npt.NDArray[np.bool_]:
        """True for the points in the shape."""
        x, y, z = ((low < p) & (p < high) for p, low, high in zip(xyz, self.low, self.high, strict=True))
        return x & y & z


@dataclass(frozen=True)
class Ribs:
    """Bands of an ellipsoidal shell, every ``pitch`` mm, sloping down to the front, open at the sternum."""

    cage: Ellipsoid
    pitch: float = 27.0
    front: float = 62.0

    @property
    def box(self) -> tuple[Array, Array]:
        """Two (3,) corners in mm, between which the shape lies."""
        return Ellipsoid(self.cage.center, self.cage.radii, taper=0.12).box

    def inside(self, xyz: Coordinates) -> npt.NDArray[np.bool_]:
        """True for the points in the shape."""
        x, y, z = xyz
        u, v, w = ((p - c) / r for p, c, r in zip(xyz, self.cage.center, self.cage.radii, strict=True))
        depth = (np.sqrt(u * u + v * v + w * w) - 1.045) / 0.042
        # The x term makes the two sides differ.
        height = np.mod(z + 0.5 * y + 0.07 * x, self.pitch) / 6.5 - 1
        ribs: npt.NDArray[np.bool_] = (depth * depth + height * height < 1) & (y < self.front)
        return ribs
