"""Lesions of the lungs: each one's size and place, all together, and growth between two dates."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from medseg.errors import UsageError
from medseg.images.connected_components import components
from medseg.images.run_length import Array, Runs
from medseg.inference.lungs import LEFT, RIGHT
from medseg.measurement.lung_measures import LungScan
from medseg.measurement.measurement_table import WHOLE, StructureMeasures
from medseg.measurement.regions import third_of

NELSON_MM3 = (50.0, 500.0)
"""Volumes below the first are class ``small``, up to the second ``intermediate``, above it ``large``
(NELSON: van Klaveren et al. 2009, doi:10.1056/NEJMoa0906085)."""

GROWTH_PERCENT = 25.0
"""A nodule grows in NELSON from this volume change on."""

REPEATABILITY_PERCENT = 27.0
"""Volumes of unchanged nodules differ by up to this between two scans, so a smaller change is no evidence."""

GROWING_DAYS = 400.0
"""A volume doubling time below this is fast growth in NELSON."""

CLASSES = ("small", "intermediate", "large")
_THIRDS = ("upper", "middle", "lower")


@dataclass(frozen=True)
class Lesion:
    """One 26-connected lesion.

    Attributes:
        number: From 1, the largest first.
        volume_mm3: Voxels times voxel volume.
        nelson_class: ``small``, ``intermediate`` or ``large``, see `NELSON_MM3`.
        side: ``right`` or ``left``, of the nearest lung; None without lungs.
        third: ``upper``, ``middle`` or ``lower``, by the height of that lung, of the lesion's centre.
        pleura_mm: Smallest distance from a voxel of the lesion to one outside of that lung and the lesion:
            the size of a voxel where it touches the surface.
        center_mm: Mean of its voxels in RAS+ mm.
        outside_percent: Share of its voxels that the lung mask lacks.
    """

    number: int
    volume_mm3: float
    nelson_class: str
    side: str | None
    third: str | None
    pleura_mm: float | None
    center_mm: tuple[float, float, float]
    outside_percent: float


@dataclass(frozen=True)
class Growth:
    """The change of a volume between two dates.

    Attributes:
        change_percent: Change in percent of the first volume.
        doubling_days: Volume doubling time VDT = ln 2 x days / ln(V2 / V1); negative for a shrinking lesion,
            None without change.
        beyond_repeatability: Whether the change is larger than `REPEATABILITY_PERCENT`.
        grows: Whether it is at least `GROWTH_PERCENT` and beyond the repeatability, with a doubling time
            below `GROWING_DAYS`.

    Example:
        >>> medseg.growth(100.0, 120.0, 100.0).beyond_repeatability
        False
    """

    change_percent: float
    doubling_days: float | None
    beyond_repeatability: bool
    grows: bool


def measure_lesions(found: Array, lungs: LungScan) -> tuple[Lesion, ...]:
    """Every lesion, the largest first.

    Args:
        found: bool (X, Y, Z) on the grid of the lungs.
        lungs: Both lungs, with the lesions in the box.
    """
    runs = Runs.of(found)
    number, count = components(runs, corners=True)
    whole = {side: _filled(lungs.sides == side, found) for side in (RIGHT, LEFT)}
    distances: dict[int, Array] = {}
    lesions = []
    for each in range(count):
        part = runs.kept(number == each)
        box = part.box()
        assert box is not None  # a component has voxels
        voxels = part.binary()[box]
        place = np.argwhere(voxels) + [axis.start for axis in box]
        lesions.append(_lesion(place, lungs, whole, distances))
    ordered = sorted(lesions, key=lambda lesion: (-lesion.volume_mm3, lesion.center_mm))
    return tuple(replace(lesion, number=number) for number, lesion in enumerate(ordered, start=1))


def totals(lesions: tuple[Lesion, ...], lungs: LungScan) -> dict[str, float | None]:
    """Number, volume and classes of all lesions, and their share of both lungs."""
    volume_mm3 = sum(lesion.volume_mm3 for lesion in lesions)
    inside_mm3 = sum(lesion.volume_mm3 * (1 - lesion.outside_percent / 100) for lesion in lesions)
    lung_mm3 = np.count_nonzero(lungs.sides) * lungs.grid.voxel_ml * 1000
    whole_mm3 = lung_mm3 + volume_mm3 - inside_mm3
    classes: dict[str, float] = {f"{name}_lesions": 0.0 for name in CLASSES}
    for lesion in lesions:
        classes[f"{lesion.nelson_class}_lesions"] += 1
    return {
        "lesions": float(len(lesions)),
        "volume_ml": volume_mm3 / 1000,
        "share_of_lungs_percent": 100 * volume_mm3 / whole_mm3 if lung_mm3 else None,
        **classes,
    }


def growth(first_mm3: float, second_mm3: float, days: float) -> Growth:
    """The change of a volume between two dates, with its doubling time.

    Args:
        first_mm3: Volume at the first date, in mm³, above 0.
        second_mm3: Volume at the second date, in mm³, above 0.
        days: Days from the first to the second date, above 0.

    Raises:
        UsageError: a volume or the number of days is not positive (``measure``).

    Example:
        >>> medseg.growth(100.0, 200.0, 100.0).doubling_days
        100.0
    """
    if not (first_mm3 > 0 and second_mm3 > 0 and days > 0):
        raise UsageError(
            f"no growth from {first_mm3} to {second_mm3} mm³ in {days} days",
            where="growth",
            remedy="give two volumes and a number of days above 0, the earlier volume first",
            reason="measure",
        )
    change = 100 * (second_mm3 / first_mm3 - 1)
    ratio = math.log(second_mm3 / first_mm3)
    doubling = math.log(2) * days / ratio if ratio else None
    beyond = abs(change) > REPEATABILITY_PERCENT
    fast = doubling is not None and 0 < doubling < GROWING_DAYS
    return Growth(change, doubling, beyond, beyond and change >= GROWTH_PERCENT and fast)


def _lesion(place: Array, lungs: LungScan, whole: dict[int, Array], distances: dict[int, Array]) -> Lesion:
    """One lesion, without its number."""
    grid = lungs.grid
    index = tuple(place.T)
    volume_mm3 = len(place) * grid.voxel_ml * 1000
    center = grid.world(place.mean(axis=0))
    inside = lungs.sides[index]
    side = _side_of(inside, place, whole)
    third = pleura_mm = None
    if side is not None:
        if side not in distances:
            from scipy import ndimage

            padded = np.pad(whole[side], 1)
            inner = (slice(1, -1),) * 3
            distances[side] = ndimage.distance_transform_edt(padded, sampling=grid.spacing_mm)[inner]
        pleura_mm = float(distances[side][index].min())
        third = _THIRDS[third_of(whole[side], grid, place.mean(axis=0).tolist())]
    name = (
        "small" if volume_mm3 < NELSON_MM3[0] else "large" if volume_mm3 > NELSON_MM3[1] else "intermediate"
    )
    x, y, z = (float(mm) for mm in center)
    outside = 100 * float(np.count_nonzero(inside == 0)) / len(place)
    word = None if side is None else "right" if side == RIGHT else "left"
    return Lesion(0, volume_mm3, name, word, third, pleura_mm, (x, y, z), outside)


def _side_of(inside: Array, place: Array, whole: dict[int, Array]) -> int | None:
    """The lung with most of the voxels, else that whose middle is nearer; None without lungs."""
    counts = {side: int(np.count_nonzero(inside == side)) for side in (RIGHT, LEFT)}
    if any(counts.values()):
        return max(counts, key=lambda side: counts[side])
    middles = {side: np.argwhere(lung).mean(axis=0) for side, lung in whole.items() if lung.any()}
    if not middles:
        return None
    at = place.mean(axis=0)
    return min(middles, key=lambda side: float(np.linalg.norm(middles[side] - at)))


def _filled(lung: Array, found: Array) -> Array:
    """A lung with the lesions that touch it, since masks of lungs often spare them."""
    from scipy import ndimage

    near = ndimage.binary_dilation(lung, ndimage.generate_binary_structure(3, 3))
    runs = Runs.of(found)
    number, _ = components(runs, corners=True)
    touching = np.unique(number[runs.counted(near, lambda slab: slab) > 0])
    return np.asarray(lung | runs.kept(np.isin(number, touching)).binary())


DEFINITIONS = {
    "lesions": "26-connected lesions",
    "share_of_lungs_percent": "volume of all lesions as a share of the lungs with the lesions",
    "small_lesions": "NELSON: lesions below 50 mm³",
    "intermediate_lesions": "NELSON: lesions of 50 to 500 mm³",
    "large_lesions": "NELSON: lesions above 500 mm³",
    "nelson_class": "1 below 50 mm³, 2 up to 500 mm³, 3 above",
    "pleura_mm": "smallest distance from a voxel of the lesion to one outside of the lung with the lesion",
    "outside_percent": "share of the lesion that the lung mask lacks",
    "center_r_mm": "middle of the lesion along R, in RAS+ mm",
    "center_a_mm": "middle of the lesion along A",
    "center_s_mm": "middle of the lesion along S",
}
"""Columns of lesions that lungs do not have."""


def lesion_rows(found: Array, lungs: LungScan) -> tuple[StructureMeasures, ...]:
    """A row ``lesions`` for all together, then one for each, whose region is its side and third."""
    lesions = measure_lesions(found, lungs)
    rows = [StructureMeasures("lesions", WHOLE, totals(lesions, lungs))]
    for lesion in lesions:
        place = WHOLE if lesion.side is None else f"{lesion.side}_{lesion.third}_third"
        values = {
            "volume_ml": lesion.volume_mm3 / 1000,
            "nelson_class": float(1 + CLASSES.index(lesion.nelson_class)),
            "pleura_mm": lesion.pleura_mm,
            "outside_percent": lesion.outside_percent,
            **dict(zip(("center_r_mm", "center_a_mm", "center_s_mm"), lesion.center_mm, strict=True)),
        }
        rows.append(StructureMeasures(f"lesion_{lesion.number}", place, values))
    return tuple(rows)
