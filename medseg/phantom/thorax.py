"""An analytic thorax: a scan whose exact segmentation is known on every grid.

It is the input of most tests and of the demo. Every structure is a formula in RAS+ mm
(+x is the patient's right, +y anterior, +z superior), so the truth is exact on any grid,
including oblique ones. Nothing is mirror-symmetric and no two axes are alike, so that a flipped
or swapped axis cannot pass a test. The anatomy is a caricature: results on it say nothing
about how well a model works on patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from medseg.errors import UsageError
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask, Source, Volume
from medseg.phantom import anatomy
from medseg.phantom.anatomy import (
    IS_LUNG,
    LABEL_OF,
    LUNG_HU_PER_MM,
    TISSUES,
    Part,
)
from medseg.phantom.painting import Layer, coordinates, layer, slabs, tissues_at, tissues_on, whole
from medseg.phantom.shapes import Array, Ellipsoid, Point

Side: TypeAlias = Literal["right", "left"]

LABELS = (
    Label(name="right_lung", values=(1, 3), side="right"),
    Label(name="left_lung", values=(2, 4), side="left"),
    Label(name="right_nodule", values=(3,), side="right"),
    Label(name="left_nodule", values=(4,), side="left"),
    Label(name="airway", values=(5,)),
    Label(name="heart", values=(6,)),
    Label(name="spine", values=(7,)),
)
"""Lungs include their vessels and nodules; the airway (trachea, main bronchi) is not lung."""


@dataclass(frozen=True)
class Nodule:
    """A solid sphere in a lung; centre and radius in world mm, so its volume is 4/3 pi r^3."""

    center_mm: Point
    radius_mm: float
    side: Side


@dataclass(frozen=True)
class Thorax:
    """One patient; equal parameters give the same patient.

    Attributes:
        scale: Width, depth and height of the patient relative to the standard one.
        lung_height: Height of the right and the left lung relative to the standard one.
        heart: Size of the heart relative to the standard one.
        fat_mm: Thickness of the fat under the skin, before scaling.
        lung_hu: Mean density of healthy lung in HU.
        vessels: Seed of the branching of the pulmonary vessels.
        nodules: Spheres in the lungs, in world mm (not scaled).

    Example:
        >>> patient = medseg.Thorax.random(seed=7)
        >>> patient.scan(medseg.phantom_grid((8.0, 8.0, 10.0))).source.modality
        'CT'
    """

    scale: Point = (1.0, 1.0, 1.0)
    lung_height: tuple[float, float] = (1.0, 1.0)
    heart: float = 1.0
    fat_mm: float = 13.0
    lung_hu: float = -850.0
    vessels: int = 0
    nodules: tuple[Nodule, ...] = (
        Nodule((84.3, -31.4, 38.2), 9.0, "right"),
        Nodule((66.1, 38.7, 3.9), 5.0, "right"),
        Nodule((-83.6, -27.3, 47.8), 6.5, "left"),
    )

    @classmethod
    def random(cls, seed: int) -> Thorax:
        """A random plausible patient: size within 15 %, and different lungs, heart, vessels and nodules."""
        rng = np.random.default_rng(seed)
        size = rng.uniform(0.89, 1.11)
        width, depth, height = size * rng.uniform(0.965, 1.035, 3)
        right, left = rng.uniform(0.93, 1.06) * rng.uniform(0.97, 1.03, 2)
        patient = cls(
            scale=(float(width), float(depth), float(height)),
            lung_height=(float(right), float(left)),
            heart=float(rng.uniform(0.88, 1.14)),
            fat_mm=float(rng.uniform(7, 20)),
            lung_hu=float(int(rng.uniform(-880, -800))),
            vessels=int(rng.integers(1 << 31)),
            nodules=(),
        )
        return patient._with_nodules(rng, count=int(rng.integers(1, 6)))

    def scan(
        self,
        grid: Grid,
        *,
        modality: Literal["CT", "MR"] = "CT",
        noise_sd: float = 20.0,
        seed: int = 0,
    ) -> Volume:
        """The scan of this patient on ``grid``, int16 (X, Y, Z).

        Every voxel is the mean of eight points inside it (partial volume). The same grid stored
        in another of the 48 orientations gets the same values, including the noise.

        Args:
            grid: Grid to sample on; anything outside the body is air.
            modality: ``CT`` in HU; ``MR`` in arbitrary units (0 to about 1200) with a smooth
                bias field of about +-25 % and lungs dark.
            noise_sd: Standard deviation of the noise, in the unit of the scan: Gaussian for
                CT, Rician for MR (Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618).
            seed: Seed of the noise and of the bias field, not of the patient.

        Raises:
            UsageError: the modality is neither ``CT`` nor ``MR``, or the noise is negative.
        """
        if modality not in ("CT", "MR") or not noise_sd >= 0:
            raise UsageError(
                f"no phantom scan with modality {modality!r} and noise_sd {noise_sd}",
                where="Thorax.scan",
                remedy="use modality CT or MR and a noise of 0 or more",
                reason="phantom",
            )
        # Sampled in one orientation and reoriented afterwards, so that values, noise
        # and rounding are the same in all 48.
        upright = grid.oriented("RAS")
        layers = self._layers()
        rng = np.random.default_rng(seed)
        tilt = rng.uniform(-1, 1, 3)
        other = np.random.default_rng((seed, 1))  # a stream of its own: noise must not depend on the slabs
        array = np.empty(upright.shape, np.int16)
        for rows, affine in slabs(upright):
            shape = array[rows].shape
            values = self._signal(layers, affine, shape, modality)
            if modality == "MR":
                values *= _bias(affine, shape, tilt)
            if noise_sd:
                values += rng.normal(0, noise_sd, shape)
                if modality == "MR":
                    values = np.hypot(values, other.normal(0, noise_sd, shape))
            array[rows] = np.rint(values).clip(-1024, 3071)
        turned = Volume(array, upright).oriented(grid.axcodes).array
        return Volume(np.ascontiguousarray(turned), grid, Source(modality=modality))

    def truth(self, grid: Grid) -> Mask:
        """The exact label at every voxel centre of ``grid``, with :data:`LABELS`."""
        upright = grid.oriented("RAS")
        layers = self._layers()
        array = np.empty(upright.shape, np.uint8)
        for rows, affine in slabs(upright):
            array[rows] = LABEL_OF[tissues_on(layers, affine, array[rows].shape)]
        turned = Mask(array, upright, LABELS).oriented(grid.axcodes).array
        return Mask(np.ascontiguousarray(turned), grid, LABELS)

    def label_at(self, world_mm: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """The exact label (...) at world points (..., 3) in RAS+ mm."""
        points = np.asarray(world_mm, dtype=np.float64)
        return np.asarray(LABEL_OF[tissues_at(self._layers(), points)], dtype=np.uint8)

    def _layers(self) -> tuple[Layer, Layer]:
        """The anatomy, in the space of the standard patient, and the nodules, in world space."""
        parts = [
            *anatomy.table(),
            *anatomy.wall(self.fat_mm),
            *anatomy.lungs(self.lung_height, self.vessels),
            *anatomy.abdomen(),
            *anatomy.mediastinum(self.heart),
            *anatomy.bones(),
        ]
        nodules = [Part(Ellipsoid(n.center_mm, (n.radius_mm,) * 3), f"{n.side}_nodule") for n in self.nodules]
        return layer(parts, self.scale), layer(nodules, (1.0, 1.0, 1.0))

    def _signal(
        self, layers: Sequence[Layer], affine: Array, shape: tuple[int, int, int], modality: str
    ) -> Array:
        """Noise-free values, float64 (X, Y, Z): the mean over 2 x 2 x 2 points in each voxel."""
        table = np.array([t.mr if modality == "MR" else t.hu for t in TISSUES.values()], np.float64)
        if modality == "CT":
            table[IS_LUNG] = self.lung_hu
        halved = affine.copy()
        halved[:3, :3] /= 2
        halved[:3, 3] -= affine[:3, :3].sum(axis=1) / 4
        x, y, z = shape
        tissues = tissues_on(layers, halved, (2 * x, 2 * y, 2 * z))
        points = table[tissues]
        if modality == "CT":
            points += (LUNG_HU_PER_MM * IS_LUNG)[tissues] * coordinates(halved, whole(tissues.shape))[1]
        values: Array = points.reshape(x, 2, y, 2, z, 2).mean(axis=(1, 3, 5))
        return values

    def _with_nodules(self, rng: np.random.Generator, count: int) -> Thorax:
        """This patient with nodules that lie entirely inside a lung and do not touch one another."""
        layers = self._layers()
        shell = np.array([d for d in product((-1, 0, 1), repeat=3) if any(d)], dtype=np.float64)
        shell /= np.linalg.norm(shell, axis=1, keepdims=True)
        nodules: list[Nodule] = []
        while len(nodules) < count:
            radius = float(rng.uniform(3, 12))
            center = rng.uniform((-130, -90, -110), (130, 90, 130)) * self.scale
            around = np.vstack([center, center + shell * (radius + 3), center + shell * radius / 2])
            found = np.unique(LABEL_OF[tissues_at(layers, around)])
            clear = all(np.linalg.norm(center - n.center_mm) > radius + n.radius_mm + 4 for n in nodules)
            if clear and found.tolist() in ([1], [2]):
                x, y, z = (float(c) for c in center)
                nodules.append(Nodule((x, y, z), radius, "right" if found[0] == 1 else "left"))
        return Thorax(
            self.scale, self.lung_height, self.heart, self.fat_mm, self.lung_hu, self.vessels, tuple(nodules)
        )


def default_grid(spacing_mm: Point = (2.0, 2.0, 3.0), axcodes: str = "RAS") -> Grid:
    """A grid that covers every :class:`Thorax`: 392 x 304 x 336 mm.

    Args:
        spacing_mm: Voxel size along R-L, A-P and S-I, whatever the storage order.
        axcodes: Storage order, one of :func:`orientations`.
    """
    low, high = np.array((-196.0, -166.0, -164.0)), np.array((196.0, 138.0, 172.0))
    shape = np.maximum(np.rint((high - low) / spacing_mm), 1).astype(int)
    origin = (low + high - (shape - 1) * np.asarray(spacing_mm)) / 2
    return Grid.from_spacing(shape.tolist(), spacing_mm, origin_mm=origin.tolist()).oriented(axcodes)


def orientations() -> tuple[str, ...]:
    """The axis codes of the 48 ways to store a volume: six axis orders times eight choices of flips."""
    pairs = permutations(("RL", "AP", "SI"))
    return tuple("".join(codes) for order in pairs for codes in product(*order))


def rotated(grid: Grid, degrees_xyz: Point) -> Grid:
    """The grid turned about its centre: about world x first, then y, then z (right-handed)."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees_xyz)):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(3)
        step[a, a] = step[b, b] = np.cos(angle)
        step[b, a] = np.sin(angle)
        step[a, b] = -np.sin(angle)
        turn = step @ turn
    center = grid.corners_mm.mean(axis=0)
    affine = grid.affine.copy()
    affine[:3, :3] = turn @ grid.affine[:3, :3]
    affine[:3, 3] = center + turn @ (grid.affine[:3, 3] - center)
    return Grid(grid.shape, affine)


def _bias(affine: Array, shape: Sequence[int], tilt: Array) -> Array:
    """A smooth receive field around 1, (X, Y, Z), within about 25 %."""
    x, y, z = coordinates(affine, whole(shape))
    field: Array = np.exp(
        0.16 * np.sin(x / 110 + tilt[0]) + 0.12 * tilt[1] * np.sin(y / 80) + 0.08 * np.cos(z / 120 + tilt[2])
    )
    return field
