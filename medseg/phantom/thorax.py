"""An analytic thorax: a scan whose exact segmentation is known on every grid.

The world of the tests and the input of the demo. Every structure is a formula in RAS+ mm
(+x is the patient's right, +y anterior, +z superior), so the truth is exact on any grid,
oblique ones too. Nothing is mirror-symmetric and no two axes are alike, so that a flipped
or swapped axis cannot pass a test. It is anatomy in caricature: nothing measured on it
says how well a model does on patients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations, product
from typing import Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from medseg.errors import UsageError
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask, Source, Volume

Array: TypeAlias = npt.NDArray[np.float64]
Point: TypeAlias = tuple[float, float, float]
Side: TypeAlias = Literal["right", "left"]
Coordinates: TypeAlias = tuple[Array, Array, Array]
"""World x, y and z; the three arrays broadcast to the shape of the grid."""

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


class _Tissue(NamedTuple):
    hu: float
    mr: float
    label: int = 0


# HU: air -1000 and water 0 by definition; the tissues are mid-range values of Prokop and
# Galanski, "Spiral and Multislice Computed Tomography of the Body" (Thieme 2003), chapter on
# image display. MR: arbitrary units in the order of a T1-weighted gradient echo (fat bright,
# lung and cortical bone dark).
_TISSUES = {
    "air": _Tissue(-1000, 0),
    "fat": _Tissue(-100, 900),
    "muscle": _Tissue(50, 340),
    "right_lung": _Tissue(-850, 45, 1),
    "left_lung": _Tissue(-850, 45, 2),
    "right_vessel": _Tissue(40, 150, 1),
    "left_vessel": _Tissue(40, 150, 2),
    "right_nodule": _Tissue(30, 360, 3),
    "left_nodule": _Tissue(30, 360, 4),
    "airway": _Tissue(-1000, 0, 5),
    "heart": _Tissue(42, 280, 6),
    "spine": _Tissue(220, 470, 7),
    "bone": _Tissue(450, 180),
    "blood": _Tissue(45, 200),
    "liver": _Tissue(60, 430),
    "gas": _Tissue(-950, 0),
    "table skin": _Tissue(-150, 0),
    "table foam": _Tissue(-930, 0),
}
_CODE = {name: code for code, name in enumerate(_TISSUES)}
_LABEL = np.array([t.label for t in _TISSUES.values()], np.uint8)
# Supine lungs are denser at the back (Verschakelen et al., AJR 1993;161:713-7). 0.35 HU/mm, about
# 55 HU over a lung, is our choice.
_IS_LUNG = np.array([name.endswith("_lung") for name in _TISSUES])
_LUNG_HU_PER_MM = -0.35

_SLAB_VOXELS = 1 << 16  # eight points a voxel: working memory stays near 30 MB on any grid


class _Shape(Protocol):
    @property
    def box(self) -> tuple[Array, Array]:
        """Two (3,) corners in mm: the shape lies between them."""

    def inside(self, xyz: Coordinates) -> npt.NDArray[np.bool_]:
        """Where the points lie in the shape."""


@dataclass(frozen=True)
class _Ellipsoid:
    """Semi-axes along x, y, z; the cross-section narrows upwards by ``taper`` (an egg).

    Volume: pi a b c (4/3 + 4/15 taper^2).
    """

    center: Point
    radii: Point
    taper: float = 0.0

    @property
    def box(self) -> tuple[Array, Array]:
        reach = np.array(self.radii) * (1 + abs(self.taper))
        return np.array(self.center) - reach, np.array(self.center) + reach

    def inside(self, xyz: Coordinates) -> npt.NDArray[np.bool_]:
        u, v, w = ((p - c) / r for p, c, r in zip(xyz, self.center, self.radii, strict=True))
        width = np.maximum(1 - self.taper * w, 1e-9)
        within: npt.NDArray[np.bool_] = (u * u + v * v) / (width * width) + w * w < 1
        return within


@dataclass(frozen=True)
class _Capsule:
    """A tube from ``start`` to ``end`` with round ends; its radius goes from one to the other."""

    start: Point
    end: Point
    radii: tuple[float, float]

    @property
    def box(self) -> tuple[Array, Array]:
        ends = np.array([self.start, self.end])
        reach = np.array(self.radii)[:, None]
        return (ends - reach).min(axis=0), (ends + reach).max(axis=0)

    def inside(self, xyz: Coordinates) -> npt.NDArray[np.bool_]:
        x, y, z = (p - c for p, c in zip(xyz, self.start, strict=True))
        dx, dy, dz = (e - s for s, e in zip(self.start, self.end, strict=True))
        along = (x * dx + y * dy + z * dz) / (dx * dx + dy * dy + dz * dz)
        along = np.clip(along, 0, 1)
        radius = self.radii[0] + along * (self.radii[1] - self.radii[0])
        x, y, z = x - along * dx, y - along * dy, z - along * dz
        return x * x + y * y + z * z < radius * radius


@dataclass(frozen=True)
class _Box:
    low: Point
    high: Point

    @property
    def box(self) -> tuple[Array, Array]:
        return np.array(self.low), np.array(self.high)

    def inside(self, xyz: Coordinates) -> npt.NDArray[np.bool_]:
        x, y, z = ((low < p) & (p < high) for p, low, high in zip(xyz, self.low, self.high, strict=True))
        return x & y & z


@dataclass(frozen=True)
class _Ribs:
    """Bands of an ellipsoidal shell, every ``pitch`` mm, falling to the front, open at the sternum."""

    cage: _Ellipsoid
    pitch: float = 27.0
    front: float = 62.0

    @property
    def box(self) -> tuple[Array, Array]:
        return _Ellipsoid(self.cage.center, self.cage.radii, taper=0.12).box

    def inside(self, xyz: Coordinates) -> npt.NDArray[np.bool_]:
        x, y, z = xyz
        u, v, w = ((p - c) / r for p, c, r in zip(xyz, self.cage.center, self.cage.radii, strict=True))
        depth = (np.sqrt(u * u + v * v + w * w) - 1.045) / 0.042
        # The x term makes the two sides differ.
        height = np.mod(z + 0.5 * y + 0.07 * x, self.pitch) / 6.5 - 1
        ribs: npt.NDArray[np.bool_] = (depth * depth + height * height < 1) & (y < self.front)
        return ribs


class _Part(NamedTuple):
    """A shape and what it is made of; parts are painted in order, later ones over earlier ones.

    ``only``: paint it on this tissue and nowhere else (a lung's vessels stay in the lung).
    """

    shape: _Shape
    tissue: str
    only: str | None = None


class _Layer(NamedTuple):
    """Parts that share a space: world mm divided by ``scale``. ``corners``: (n, 8, 3), of their boxes."""

    parts: tuple[_Part, ...]
    scale: Point
    corners: Array


@dataclass(frozen=True)
class Nodule:
    """A solid sphere in a lung; centre and radius in world mm, so its volume is 4/3 pi r^3."""

    center_mm: Point
    radius_mm: float
    side: Side


@dataclass(frozen=True)
class Thorax:
    """One patient, a value: the same parameters are the same patient.

    Attributes:
        scale: Width, depth and height of the patient relative to the standard one.
        lung_height: Height of the right and the left lung relative to the standard one.
        heart: Size of the heart relative to the standard one.
        fat_mm: Thickness of the fat under the skin, before scaling.
        lung_hu: Mean density of healthy lung in HU.
        vessels: Seed of the branching of the pulmonary vessels.
        nodules: Spheres in the lungs, in world mm (not scaled).
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
        """A plausible other patient: size within 15 %, other lungs, heart, vessels and nodules."""
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

        Every voxel is the mean of eight points in it (partial volume). The same grid stored
        in another of the 48 orientations gets the same values, noise too.

        Args:
            grid: Where to sample; anything outside the body is air.
            modality: ``CT`` in HU; ``MR`` in arbitrary units (0 to about 1200) with a smooth
                bias field of about +-25 % and lungs dark.
            noise_sd: Standard deviation of the noise, in the unit of the scan: Gaussian for
                CT, Rician for MR (Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618).
            seed: Of the noise and of the bias field. Not of the patient.

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
        # Drawn in one orientation and turned afterwards: this makes the values, the noise
        # and the rounding the same in all 48.
        upright = grid.oriented("RAS")
        layers = self._layers()
        rng = np.random.default_rng(seed)
        tilt = rng.uniform(-1, 1, 3)
        other = np.random.default_rng((seed, 1))  # one stream each: noise must not depend on the slabs
        array = np.empty(upright.shape, np.int16)
        for rows, affine in _slabs(upright):
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
        for rows, affine in _slabs(upright):
            array[rows] = _LABEL[_tissues(layers, affine, array[rows].shape)]
        turned = Mask(array, upright, LABELS).oriented(grid.axcodes).array
        return Mask(np.ascontiguousarray(turned), grid, LABELS)

    def label_at(self, world_mm: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """The exact label (...) at world points (..., 3) in RAS+ mm."""
        points = np.asarray(world_mm, dtype=np.float64)
        return np.asarray(_LABEL[_tissues_at(self._layers(), points)], dtype=np.uint8)

    def _layers(self) -> tuple[_Layer, _Layer]:
        """The anatomy, in the space of the standard patient, and the nodules, in world space."""
        chest = [*_table(), *_wall(self.fat_mm), *_lungs(self.lung_height, self.vessels)]
        anatomy = [*chest, *_abdomen(), *_mediastinum(self.heart), *_bones()]
        nodules = [
            _Part(_Ellipsoid(n.center_mm, (n.radius_mm,) * 3), f"{n.side}_nodule") for n in self.nodules
        ]
        return _layer(anatomy, self.scale), _layer(nodules, (1.0, 1.0, 1.0))

    def _signal(
        self, layers: Sequence[_Layer], affine: Array, shape: tuple[int, int, int], modality: str
    ) -> Array:
        """Noise-free values, float64 (X, Y, Z): the mean over 2 x 2 x 2 points in each voxel."""
        table = np.array([t.mr if modality == "MR" else t.hu for t in _TISSUES.values()], np.float64)
        if modality == "CT":
            table[_IS_LUNG] = self.lung_hu
        halved = affine.copy()
        halved[:3, :3] /= 2
        halved[:3, 3] -= affine[:3, :3].sum(axis=1) / 4
        x, y, z = shape
        tissues = _tissues(layers, halved, (2 * x, 2 * y, 2 * z))
        points = table[tissues]
        if modality == "CT":
            points += (_LUNG_HU_PER_MM * _IS_LUNG)[tissues] * _coordinates(halved, _whole(tissues.shape))[1]
        values: Array = points.reshape(x, 2, y, 2, z, 2).mean(axis=(1, 3, 5))
        return values

    def _with_nodules(self, rng: np.random.Generator, count: int) -> Thorax:
        """This patient with nodules that lie wholly in a lung and do not touch one another."""
        layers = self._layers()
        shell = np.array([d for d in product((-1, 0, 1), repeat=3) if any(d)], dtype=np.float64)
        shell /= np.linalg.norm(shell, axis=1, keepdims=True)
        nodules: list[Nodule] = []
        while len(nodules) < count:
            radius = float(rng.uniform(3, 12))
            center = rng.uniform((-130, -90, -110), (130, 90, 130)) * self.scale
            around = np.vstack([center, center + shell * (radius + 3), center + shell * radius / 2])
            found = np.unique(_LABEL[_tissues_at(layers, around)])
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
    """The 48 ways to store a volume: six orders of the axes times eight choices of flips."""
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


# --- the anatomy, in mm of the standard patient -------------------------------------------


def _table() -> list[_Part]:
    return [
        _Part(_Box((-192, -143, -400), (206, -125, 400)), "table skin"),
        _Part(_Box((-188, -140, -400), (202, -128, 400)), "table foam"),
    ]


def _wall(fat_mm: float) -> list[_Part]:
    return [
        _Part(_Ellipsoid((0, 0, -40), (166, 123, 900)), "fat"),
        _Part(_Ellipsoid((1.5, -2, -40), (166 - fat_mm, 123 - fat_mm, 900)), "muscle"),
    ]


def _lungs(height: tuple[float, float], vessels: int) -> list[_Part]:
    rng = np.random.default_rng(vessels)
    right = _Ellipsoid((68.3, -4.1, 4.7), (59, 84, 131 * height[0]), taper=0.22)
    left = _Ellipsoid((-67.2, -5.3, 7.9), (54, 81, 127 * height[1]), taper=0.27)
    return [
        _Part(right, "right_lung"),
        _Part(left, "left_lung"),
        *(_Part(v, "right_vessel", only="right_lung") for v in _tree((30, -6, 8), 1, rng)),
        *(_Part(v, "left_vessel", only="left_lung") for v in _tree((-30, -9, 17), -1, rng)),
    ]


def _tree(hilum: Point, outward: int, rng: np.random.Generator, trunks: int = 7) -> Iterator[_Capsule]:
    """Vessels that leave the hilum and fork four times, each time thinner by a factor 0.72."""
    for trunk in range(trunks):
        angle = 2 * np.pi * (trunk + rng.uniform(-0.3, 0.3)) / trunks
        heading = np.array([outward * rng.uniform(0.5, 0.9), np.sin(angle), 1.3 * np.cos(angle)])
        yield from _branch(np.array(hilum), heading, 4.6, 38.0, 4, rng)


def _branch(
    start: Array, heading: Array, radius: float, length: float, forks: int, rng: np.random.Generator
) -> Iterator[_Capsule]:
    end = start + heading / np.linalg.norm(heading) * length * rng.uniform(0.8, 1.2)
    (x0, y0, z0), (x1, y1, z1) = start.tolist(), end.tolist()
    yield _Capsule((x0, y0, z0), (x1, y1, z1), (radius, 0.8 * radius))
    if forks:
        bend = rng.normal(size=3)
        bend *= 0.55 / np.linalg.norm(bend)
        unit = heading / np.linalg.norm(heading)
        for turn in (bend, -bend):
            yield from _branch(end, unit + turn, 0.72 * radius, 0.78 * length, forks - 1, rng)


def _abdomen() -> list[_Part]:
    """What the diaphragm covers, painted over the lungs: it makes their hollow bases."""
    return [
        _Part(_Ellipsoid((63.7, 6.2, -152.3), (76, 84, 93)), "liver"),
        _Part(_Ellipsoid((-64.4, 4.8, -166.1), (70, 80, 88)), "muscle"),
        _Part(_Ellipsoid((-58.3, 18.9, -112.7), (29, 24, 17)), "gas"),  # stomach bubble: air, not lung
    ]


def _mediastinum(heart: float) -> list[_Part]:
    return [
        _Part(_Ellipsoid((-1.7, 8.3, 25.0), (27, 78, 260)), "fat"),
        _Part(_Capsule((16, 17, -26), (-46, 37, -57), (37 * heart, 29 * heart)), "heart"),
        _Part(_Capsule((9, 21, -4), (7, 17, 47), (14, 14)), "blood"),  # ascending aorta
        _Part(_Capsule((7, 17, 47), (-19, -42, 51), (13, 12)), "blood"),
        _Part(_Capsule((-19, -42, 51), (-15, -58, -400), (12, 10)), "blood"),
        _Part(_Capsule((27, 11, -5), (25, 7, 105), (9, 8)), "blood"),  # superior vena cava
        _Part(_Capsule((-16, 34, 2), (-12, 6, 19), (14, 12)), "blood"),  # pulmonary arteries
        _Part(_Capsule((-12, 4, 17), (36, -5, 9), (10, 7)), "blood"),
        _Part(_Capsule((-14, 4, 21), (-36, -9, 19), (10, 7)), "blood"),
        *(
            _Part(_Capsule(start, end, (radius + wall, radius + wall)), tissue)
            for tissue, wall in (("muscle", 2.0), ("airway", 0.0))
            for start, end, radius in _AIRWAYS
        ),
    ]


# Trachea and main bronchi: start, end, radius. A trachea is 15 to 20 mm wide, the right main
# bronchus is the steeper and wider one (Gray's Anatomy).
_AIRWAYS: tuple[tuple[Point, Point, float], ...] = (
    ((3.2, -5.1, 400.0), (1.4, -19.3, 33.0), 8.6),
    ((1.4, -19.3, 33.0), (35.0, -20.7, 6.1), 6.9),
    ((1.4, -19.3, 33.0), (-42.0, -24.2, 8.9), 5.8),
)


def _bones() -> list[_Part]:
    joints: tuple[Point, ...] = ((3, -78, -400), (2.5, -92, -20), (4, -74, 400))
    canal: tuple[Point, ...] = tuple((x, y - 21, z) for x, y, z in joints)
    chain = list(pairwise(joints))
    tube = list(pairwise(canal))
    return [
        _Part(_Ribs(_Ellipsoid((0.6, -4.4, -2.0), (133, 93, 172))), "bone", only="muscle"),
        _Part(_Capsule((-1, 100, -45), (2, 82, 96), (9, 11)), "bone"),  # sternum
        *(_Part(_Capsule(a, b, (18, 18)), "spine") for a, b in chain),
        *(_Part(_Capsule(a, b, (13, 13)), "spine") for a, b in tube),
        *(_Part(_Capsule(a, b, (8, 8)), "muscle") for a, b in tube),  # the canal
    ]


# --- painting -----------------------------------------------------------------------------


def _slabs(grid: Grid) -> Iterator[tuple[slice, Array]]:
    """Slices along the first axis, each with the affine of its part of the grid."""
    rows = max(1, _SLAB_VOXELS // (grid.shape[1] * grid.shape[2]))
    for start in range(0, grid.shape[0], rows):
        affine = grid.affine.copy()
        affine[:3, 3] += affine[:3, 0] * start
        yield slice(start, min(start + rows, grid.shape[0])), affine


def _coordinates(affine: Array, ranges: Sequence[tuple[int, int]]) -> Coordinates:
    """World x, y, z of a block of voxels; on an upright grid each is a line, not a block."""
    axes = np.ogrid[tuple(slice(low, high) for low, high in ranges)]
    x, y, z = (
        sum((row[a] * axes[a] for a in range(3) if row[a]), start=np.full((1, 1, 1), row[3]))
        for row in affine[:3]
    )
    return x, y, z


def _whole(shape: Sequence[int]) -> list[tuple[int, int]]:
    return [(0, n) for n in shape]


def _layer(parts: Sequence[_Part], scale: Point) -> _Layer:
    boxes = np.array([part.shape.box for part in parts]).reshape(-1, 2, 3)
    choice = np.array(list(product((0, 1), repeat=3)))
    return _Layer(tuple(parts), scale, boxes[:, choice, np.arange(3)])


def _tissues(layers: Sequence[_Layer], affine: Array, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Tissue codes, uint8 (X, Y, Z), at the voxel centres."""
    tissues = np.zeros(shape, np.uint8)
    for layer in layers:
        unscaled = np.diag([*(1 / s for s in layer.scale), 1.0]) @ affine
        inverse = np.linalg.inv(unscaled)
        reach = layer.corners @ inverse[:3, :3].T + inverse[:3, 3]
        low = np.maximum(np.floor(reach.min(axis=1)), 0).astype(int)
        high = np.minimum(np.ceil(reach.max(axis=1)) + 1, shape).astype(int)
        # A part is painted only into the block of voxels that its box can reach.
        for number in np.flatnonzero((low < high).all(axis=1)):
            ranges = list(zip(low[number].tolist(), high[number].tolist(), strict=True))
            block = tissues[tuple(slice(a, b) for a, b in ranges)]
            _fill(block, layer.parts[number], _coordinates(unscaled, ranges))
    return tissues


def _tissues_at(layers: Sequence[_Layer], points: Array) -> npt.NDArray[np.uint8]:
    """Tissue codes, uint8 (...), at world points (..., 3)."""
    tissues = np.zeros(points.shape[:-1], np.uint8)
    for layer in layers:
        x, y, z = np.moveaxis(points / np.asarray(layer.scale), -1, 0)
        for part in layer.parts:
            _fill(tissues, part, (x, y, z))
    return tissues


def _fill(tissues: npt.NDArray[np.uint8], part: _Part, xyz: Coordinates) -> None:
    inside = part.shape.inside(xyz)
    if part.only is not None:
        inside = inside & (tissues == _CODE[part.only])
    np.copyto(tissues, _CODE[part.tissue], where=inside)


def _bias(affine: Array, shape: Sequence[int], tilt: Array) -> Array:
    """A smooth receive field around 1, (X, Y, Z), within about 25 %."""
    x, y, z = _coordinates(affine, _whole(shape))
    field: Array = np.exp(
        0.16 * np.sin(x / 110 + tilt[0]) + 0.12 * tilt[1] * np.sin(y / 80) + 0.08 * np.cos(z / 120 + tilt[2])
    )
    return field
