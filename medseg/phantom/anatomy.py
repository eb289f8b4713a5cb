"""The anatomy of the phantom: shapes of one tissue each, in mm of the standard patient, painted in order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from medseg.phantom.shapes import Array, Box, Capsule, Ellipsoid, Point, Ribs, Shape


class Tissue(NamedTuple):
    """Intensity in CT (HU) and MR (arbitrary units), and the label; 0 is background."""

    hu: float
    mr: float
    label: int = 0


# HU: air -1000 and water 0 by definition; the tissues are mid-range values of Prokop and
# Galanski, "Spiral and Multislice Computed Tomography of the Body" (Thieme 2003), chapter on
# image display. MR: arbitrary units in the order of a T1-weighted gradient echo (fat bright,
# lung and cortical bone dark).
TISSUES = {
    "air": Tissue(-1000, 0),
    "fat": Tissue(-100, 900),
    "muscle": Tissue(50, 340),
    "right_lung": Tissue(-850, 45, 1),
    "left_lung": Tissue(-850, 45, 2),
    "right_vessel": Tissue(40, 150, 1),
    "left_vessel": Tissue(40, 150, 2),
    "right_nodule": Tissue(30, 360, 3),
    "left_nodule": Tissue(30, 360, 4),
    "airway": Tissue(-1000, 0, 5),
    "heart": Tissue(42, 280, 6),
    "spine": Tissue(220, 470, 7),
    "bone": Tissue(450, 180),
    "blood": Tissue(45, 200),
    "liver": Tissue(60, 430),
    "gas": Tissue(-950, 0),
    "table skin": Tissue(-150, 0),
    "table foam": Tissue(-930, 0),
}
CODE = {name: code for code, name in enumerate(TISSUES)}
LABEL_OF = np.array([t.label for t in TISSUES.values()], np.uint8)
# Supine lungs are denser at the back (Verschakelen et al., AJR 1993;161:713-7). The gradient of 0.35 HU/mm,
# about 55 HU over a lung, is our choice.
IS_LUNG = np.array([name.endswith("_lung") for name in TISSUES])
LUNG_HU_PER_MM = -0.35


class Part(NamedTuple):
    """A shape and its tissue; parts are painted in order, later ones over earlier ones.

    With ``only``, the part is painted over that tissue only (the vessels of a lung stay inside it).
    """

    shape: Shape
    tissue: str
    only: str | None = None


def table() -> list[Part]:
    """The table that the patient lies on."""
    return [
        Part(Box((-192, -143, -400), (206, -125, 400)), "table skin"),
        Part(Box((-188, -140, -400), (202, -128, 400)), "table foam"),
    ]


def wall(fat_mm: float) -> list[Part]:
    """Fat under the skin, ``fat_mm`` thick, and muscle."""
    return [
        Part(Ellipsoid((0, 0, -40), (166, 123, 900)), "fat"),
        Part(Ellipsoid((1.5, -2, -40), (166 - fat_mm, 123 - fat_mm, 900)), "muscle"),
    ]


def lungs(height: tuple[float, float], vessels: int) -> list[Part]:
    """Both lungs with relative heights (right, left); ``vessels`` is the seed of their branching."""
    rng = np.random.default_rng(vessels)
    right = Ellipsoid((68.3, -4.1, 4.7), (59, 84, 131 * height[0]), taper=0.22)
    left = Ellipsoid((-67.2, -5.3, 7.9), (54, 81, 127 * height[1]), taper=0.27)
    return [
        Part(right, "right_lung"),
        Part(left, "left_lung"),
        *(Part(v, "right_vessel", only="right_lung") for v in _tree((30, -6, 8), 1, rng)),
        *(Part(v, "left_vessel", only="left_lung") for v in _tree((-30, -9, 17), -1, rng)),
    ]


def _tree(hilum: Point, outward: int, rng: np.random.Generator, trunks: int = 7) -> Iterator[Capsule]:
    """Vessels that leave the hilum and fork four times, each time 0.72 times as thick."""
    for trunk in range(trunks):
        angle = 2 * np.pi * (trunk + rng.uniform(-0.3, 0.3)) / trunks
        heading = np.array([outward * rng.uniform(0.5, 0.9), np.sin(angle), 1.3 * np.cos(angle)])
        yield from _branch(np.array(hilum), heading, 4.6, 38.0, 4, rng)


def _branch(
    start: Array, heading: Array, radius: float, length: float, forks: int, rng: np.random.Generator
) -> Iterator[Capsule]:
    end = start + heading / np.linalg.norm(heading) * length * rng.uniform(0.8, 1.2)
    (x0, y0, z0), (x1, y1, z1) = start.tolist(), end.tolist()
    yield Capsule((x0, y0, z0), (x1, y1, z1), (radius, 0.8 * radius))
    if forks:
        bend = rng.normal(size=3)
        bend *= 0.55 / np.linalg.norm(bend)
        unit = heading / np.linalg.norm(heading)
        for turn in (bend, -bend):
            yield from _branch(end, unit + turn, 0.72 * radius, 0.78 * length, forks - 1, rng)


def abdomen() -> list[Part]:
    """Liver, spleen and stomach gas, painted over the lungs, whose hollow bases they form."""
    return [
        Part(Ellipsoid((63.7, 6.2, -152.3), (76, 84, 93)), "liver"),
        Part(Ellipsoid((-64.4, 4.8, -166.1), (70, 80, 88)), "muscle"),
        Part(Ellipsoid((-58.3, 18.9, -112.7), (29, 24, 17)), "gas"),  # stomach bubble: air, not lung
    ]


def mediastinum(heart: float) -> list[Part]:
    """Fat, a heart of this relative size, great vessels, trachea and main bronchi."""
    return [
        Part(Ellipsoid((-1.7, 8.3, 25.0), (27, 78, 260)), "fat"),
        Part(Capsule((16, 17, -26), (-46, 37, -57), (37 * heart, 29 * heart)), "heart"),
        Part(Capsule((9, 21, -4), (7, 17, 47), (14, 14)), "blood"),  # ascending aorta
        Part(Capsule((7, 17, 47), (-19, -42, 51), (13, 12)), "blood"),
        Part(Capsule((-19, -42, 51), (-15, -58, -400), (12, 10)), "blood"),
        Part(Capsule((27, 11, -5), (25, 7, 105), (9, 8)), "blood"),  # superior vena cava
        Part(Capsule((-16, 34, 2), (-12, 6, 19), (14, 12)), "blood"),  # pulmonary arteries
        Part(Capsule((-12, 4, 17), (36, -5, 9), (10, 7)), "blood"),
        Part(Capsule((-14, 4, 21), (-36, -9, 19), (10, 7)), "blood"),
        *(
            Part(Capsule(start, end, (radius + wall, radius + wall)), tissue)
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


def bones() -> list[Part]:
    """Ribs, sternum and spine with its canal."""
    joints: tuple[Point, ...] = ((3, -78, -400), (2.5, -92, -20), (4, -74, 400))
    canal: tuple[Point, ...] = tuple((x, y - 21, z) for x, y, z in joints)
    chain = list(pairwise(joints))
    tube = list(pairwise(canal))
    return [
        Part(Ribs(Ellipsoid((0.6, -4.4, -2.0), (133, 93, 172))), "bone", only="muscle"),
        Part(Capsule((-1, 100, -45), (2, 82, 96), (9, 11)), "bone"),  # sternum
        *(Part(Capsule(a, b, (18, 18)), "spine") for a, b in chain),
        *(Part(Capsule(a, b, (13, 13)), "spine") for a, b in tube),
        *(Part(Capsule(a, b, (8, 8)), "muscle") for a, b in tube),  # the canal
    ]
